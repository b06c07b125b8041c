//! Whether a send is accepted, and into whose outboxes it goes.

use std::sync::Arc;

use quail_protocol::id::{AccountId, Position, Stamp};
use quail_protocol::v1::{self, Reason};
use smallvec::smallvec;

use super::content::{self, At};
use crate::command::{Accepted, Effect, Outcome, SendCommand, ValidSend};
use crate::outbox::Earlier;
use crate::ports::outbox::{Accounts, Entry, Note, RecentSend, StoredEvent};
use crate::state::State;

impl State {
    /// Decides a send and answers it. After a temporary refusal everything behind it on the lane is refused too, so that
    /// the order of sending is kept when the client sends again.
    pub(crate) fn send(&mut self, command: SendCommand, now_ms: u64, outcome: &mut Outcome) {
        let (connection, number) = (command.connection, command.number);
        let answer = if self.refusing.contains(&connection) {
            Err(Reason::AfterRefused.error())
        } else {
            self.accept(command, now_ms, outcome)
        };
        match answer {
            Ok(accepted) => outcome.after.push(Effect::Accepted { connection, accepted }),
            Err(error) => {
                if error.temporary {
                    self.refusing.insert(connection);
                }
                outcome.after.push(Effect::Refused { connection, number, error });
            }
        }
    }

    fn accept(
        &mut self,
        command: SendCommand,
        now_ms: u64,
        outcome: &mut Outcome,
    ) -> Result<Accepted, v1::Error> {
        let SendCommand { account, device, number, .. } = command;
        let send = command.send?;
        let digest = content::digest(&send);
        let own = self.accounts.get_mut(&account).and_then(|outbox| outbox.device_mut(device));
        // The session may have ended while the command was on its way.
        let own = own.ok_or_else(|| Reason::Unauthenticated.error())?;
        match own.sends.find(number, send.id, digest) {
            Earlier::New => {}
            Earlier::Same(earlier) => {
                let (position, stamp) = (earlier.position, earlier.stamp);
                return Ok(Accepted { number, origin: self.given_by(position), position, stamp });
            }
            Earlier::IdReused => return Err(Reason::IdReused.error()),
            Earlier::NumberReused => return Err(Reason::NumberReused.error()),
            Earlier::NumberPassed => return Err(Reason::NumberPassed.error()),
        }
        content::check(account, &send, self.delete_for_all_ms, now_ms)?;
        if !self.accounts.get(&send.recipient).is_some_and(|outbox| outbox.is_known()) {
            // The gateway tells the core of a recipient before it hands over the send; this one got lost on the way.
            return Err(Reason::DirectoryUnavailable.error());
        }
        self.admission.admit(account, send.content.len())?;
        let stamp = self.clock.next(now_ms, send.seen).map_err(|_| Reason::Clock.error())?;
        let position = self.next_position();
        let recent = RecentSend { number, id: send.id, digest, position, stamp };
        outcome.entries.push(Entry::Sent { device, send: recent });
        if let Some(own) = self.accounts.get_mut(&account).and_then(|outbox| outbox.device_mut(device)) {
            own.sends.push(recent);
        }
        self.put((account, device), &send, position, stamp, outcome);
        Ok(Accepted { number, origin: self.origin, position, stamp })
    }

    /// Puts the event into the outbox of the recipient and, for the sender's other devices, of the sender. A change is a message in all
    /// of this, so that receipts, windows and feeds need not know of it. What is for the sender's own devices alone is in no
    /// outbox if there are none: the archive has it all the same.
    fn put(
        &mut self,
        (account, device): (AccountId, quail_protocol::id::DeviceId),
        send: &ValidSend,
        position: Position,
        stamp: Stamp,
        outcome: &mut Outcome,
    ) {
        let frame = content::frame(account, send, At { origin: self.origin, position, stamp });
        let note = Note::Message { sender: account, device, recipient: send.recipient };
        let event = Arc::new(StoredEvent { position, note, frame });

        let is_private = send.content.is_private() && account != send.recipient;
        let mut accounts: Accounts = if is_private { Accounts::new() } else { smallvec![send.recipient] };
        let elsewhere = self.accounts.get(&account).is_some_and(|outbox| outbox.has_device_besides(device));
        if elsewhere && account != send.recipient {
            accounts.push(account);
        }
        outcome.entries.push(Entry::Event { event: event.clone(), accounts: accounts.clone() });
        for account in accounts {
            if let Some(outbox) = self.accounts.get_mut(&account) {
                outbox.append(account, &event, outcome);
            }
        }
    }
}
