//! What a change in the journal means to the archive.
//!
//! Whose message an edit or a deletion for all is of, the event does not say: it is that of who says so. The other account of the
//! conversation is in the event; whether it is the one whose message is named, or the one it was for, follows from that.

use quail_core::ports::archive::{Change, ChangeKind, MessageRef};
use quail_protocol::id::{AccountId, Origin, Stamp};
use quail_protocol::v1::{self, changed};

use super::item::{What, account, named};

/// Understands a change.
pub(super) fn change(origin: Origin, stamp: Stamp, changed: v1::Changed) -> Result<What, String> {
    let (by, peer) = (account(&changed.sender)?, account(&changed.recipient)?);
    let own = |id: &[u8]| named(&changed.sender, id);
    let (message, kind) = match changed.change {
        Some(changed::Change::Edit(edit)) => {
            (own(&edit.id)?, ChangeKind::Edit { kind: edit.kind, body: edit.body })
        }
        Some(changed::Change::DeleteForAll(delete)) => (own(&delete.id)?, ChangeKind::DeleteForAll),
        Some(changed::Change::DeleteForMe(delete)) => {
            (named(&delete.sender, &delete.id)?, ChangeKind::DeleteForMe { account: by })
        }
        Some(changed::Change::React(react)) => {
            let text = std::str::from_utf8(&react.text).map_err(|error| error.to_string())?;
            let reaction = Some(text.to_owned()).filter(|text| !text.is_empty());
            (named(&react.sender, &react.id)?, ChangeKind::React { account: by, reaction })
        }
        // What no daemon that wrote this journal could mean.
        None => return Ok(What::Nothing),
    };
    let recipient = recipient(message, by, peer)?;
    Ok(What::Change(Change { message, recipient, origin, stamp, kind }))
}

/// Returns whom a message of the conversation is for.
fn recipient(message: MessageRef, by: AccountId, peer: AccountId) -> Result<AccountId, String> {
    match message.sender {
        sender if sender == by => Ok(peer),
        sender if sender == peer => Ok(by),
        _ => Err("a change of a message of another conversation".to_owned()),
    }
}
