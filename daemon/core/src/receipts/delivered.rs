//! Delivered: the sender learns how far a recipient's devices have acknowledged.
//!
//! A receipt names a stretch of positions, not a single mark: a stretch never covers what the recipient did not get, so a
//! gap between two acknowledged messages is a border between two stretches. Devices of one account are not equally far, and
//! a new one begins in the middle: what it acknowledged says nothing of what lies before its start, which an older device
//! may acknowledge later.

use quail_protocol::id::{AccountId, Position};
use quail_protocol::v1::ReceiptKind;

use super::Receipt;
use crate::command::Outcome;
use crate::outbox::Acknowledged;
use crate::state::State;

impl State {
    /// Sends receipts for what a device of `account` has acknowledged.
    pub(crate) fn delivered(
        &mut self,
        account: AccountId,
        taken: Acknowledged,
        now_ms: u64,
        outcome: &mut Outcome,
    ) {
        for stretch in taken.into_stretches() {
            let Some(outbox) = self.accounts.get_mut(&account) else {
                return;
            };
            let (before, collapsed) = (Position(stretch.first.0 - 1), outbox.collapsed());
            // Of what was collapsed only what stands in the stretch itself is known to have been taken.
            let after = if collapsed <= before { stretch.since.max(collapsed) } else { before };
            let Some(stretch_untold) = outbox.receipts.delivered.tell(stretch.sender, (after, stretch.last))
            else {
                continue;
            };
            let receipt = Receipt {
                kind: ReceiptKind::Delivered,
                sender: stretch.sender,
                reader: account,
                stretch: stretch_untold,
            };
            self.tell_sender(receipt, now_ms, outcome);
        }
    }
}
