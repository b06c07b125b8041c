//! Read: a reader's device says what was read, and the sender and the reader's other devices learn it.
//!
//! A device names stretches, because it alone knows where it missed something; the core takes of them what the account got.
//! Nothing is kept but the receipts themselves: to say the same again changes nothing, so a mark needs no number, and a
//! device repeats it until it is answered.
//!
//! Invariants: a receipt covers nothing that no device of the account acknowledged; no receipt goes to a sender while the
//! reader's account does not want it.

use quail_protocol::id::{AccountId, Position};
use quail_protocol::v1::{self, Reason, ReceiptKind};

use super::Receipt;
use crate::command::{Effect, Outcome, ReadCommand, ValidRead};
use crate::state::State;

/// What one stretch of a mark counts for where each sender may only add its share: about the bytes of its two receipts.
const MARK_BYTES: usize = 256;

impl State {
    /// Takes a mark and answers it. One of a feed that was replaced meanwhile is passed over, as its acknowledgements are.
    pub(crate) fn read(&mut self, command: ReadCommand, now_ms: u64, outcome: &mut Outcome) {
        let ReadCommand { feed, account, device, read } = command;
        if !self.accounts.get(&account).is_some_and(|outbox| outbox.has_feed(device, feed)) {
            return;
        }
        let taken = read.and_then(|read| self.mark(account, device, read, now_ms, outcome));
        outcome.after.push(Effect::ReadAnswered { feed, error: taken.err() });
    }

    fn mark(
        &mut self,
        account: AccountId,
        device: quail_protocol::id::DeviceId,
        read: ValidRead,
        now_ms: u64,
        outcome: &mut Outcome,
    ) -> Result<(), v1::Error> {
        let ValidRead { sender, stretches } = read;
        let own = stretches.into_iter().filter_map(|(origin, after, upto)| self.held(origin, (after, upto)));
        let own: Vec<_> = own.collect();
        if own.is_empty() {
            return Ok(());
        }
        if own.iter().any(|(_, upto)| *upto > self.last_position) {
            return Err(Reason::ReadInvalid.error());
        }
        if !self.accounts.get(&sender).is_some_and(|outbox| outbox.is_known()) {
            // The gateway tells the core of a sender before it hands over the mark; this one got lost on the way.
            return Err(Reason::DirectoryUnavailable.error());
        }
        let outbox = self.accounts.get(&account).ok_or_else(|| Reason::Unauthenticated.error())?;
        let got =
            own.into_iter().flat_map(|stretch| outbox.receipts.got(sender, stretch, outbox.collapsed()));
        let got: Vec<(Position, Position)> = got.collect();
        if got.is_empty() {
            return Err(Reason::ReadInvalid.error());
        }
        let inherited: usize = got.iter().map(|stretch| self.inherited(*stretch).len()).sum();
        self.admission.admit(account, MARK_BYTES * (got.len() + inherited))?;
        for stretch in got {
            let Some(outbox) = self.accounts.get_mut(&account) else { break };
            let Some(stretch) = outbox.receipts.read.tell(sender, stretch) else { continue };
            let (is_told, others) = (outbox.read_receipts, outbox.has_device_besides(device));
            let receipt = Receipt { kind: ReceiptKind::Read, sender, reader: account, stretch };
            if sender == account {
                // A note to oneself: reader and sender are the same devices, and the one that read is told like a sender.
                self.tell_sender(receipt, now_ms, outcome);
                continue;
            }
            if is_told {
                self.tell_sender(receipt, now_ms, outcome);
            }
            if others {
                self.tell_reader(device, receipt, now_ms, outcome);
            } else if !is_told {
                self.note_down(Some(device), receipt, now_ms, outcome);
            }
        }
        Ok(())
    }
}
