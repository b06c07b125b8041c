//! Signals: what is true for a moment goes from a device to those of another account that are attached now, and what an account has
//! not read to its own.
//!
//! Nothing is stored and nothing is answered. The core decides only who gets it, because it alone knows which devices speak for
//! an account and which feeds are open; it looks at nothing but what it holds in memory, so a signal costs no directory and no disk.
//!
//! Invariant: an account that there is not, one without an attached device and one's own are the same to who sends.

use std::sync::Arc;

use quail_protocol::id::{AccountId, DeviceId};
use quail_protocol::v1;

use crate::command::{FeedId, Outcome};
use crate::state::State;

/// A signal whose form has been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalCommand {
    /// Who sends.
    pub account: AccountId,
    /// From which device.
    pub device: DeviceId,
    /// Whom it is for.
    pub to: AccountId,
    /// The device's counter.
    pub counter: u64,
    /// What it says.
    pub body: v1::signal::Body,
}

/// How much an account has not read in a conversation, for its own devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreadCommand {
    /// Who has not read it.
    pub account: AccountId,
    /// In the conversation with whom.
    pub peer: AccountId,
    /// Rises with everything that is said of this conversation.
    pub counter: u64,
    /// How many messages.
    pub count: u32,
}

/// A signal for one feed. It may leave before anything else of its outcome is durable, and may be dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalOut {
    /// The feed, and with it the connection, that it is for.
    pub feed: FeedId,
    /// The device that sent it: of two signals of one device and kind only the newer need wait.
    pub from: DeviceId,
    /// The signal as it goes down.
    pub signal: Arc<v1::Signal>,
}

impl State {
    /// Passes on how much is unread.
    pub(crate) fn unread(&self, command: UnreadCommand, outcome: &mut Outcome) {
        let UnreadCommand { account, peer, counter, count } = command;
        let Some(outbox) = self.accounts.get(&account) else { return };
        let body = Some(v1::signal::Body::Unread(v1::Unread { count }));
        let signal = Arc::new(v1::Signal { account: peer.to_bytes(), counter, body, ..Default::default() });
        // It comes from no device; of two of one conversation only the newer need wait.
        let from = DeviceId(peer.0);
        outcome.signals.extend(outbox.feeds().map(|feed| SignalOut { feed, from, signal: signal.clone() }));
    }

    /// Passes a signal on.
    pub(crate) fn signal(&self, command: &SignalCommand, outcome: &mut Outcome) {
        let SignalCommand { account, device, to, counter, body } = *command;
        // The session may have ended while the signal was on its way.
        let is_there = self.accounts.get(&account).is_some_and(|outbox| outbox.has_device(device));
        let Some(recipient) = self.accounts.get(&to).filter(|_| is_there && to != account) else {
            return;
        };
        let signal =
            v1::Signal { account: account.to_bytes(), device: device.to_bytes(), counter, body: Some(body) };
        let signal = Arc::new(signal);
        let out = |feed| SignalOut { feed, from: device, signal: signal.clone() };
        outcome.signals.extend(recipient.feeds().map(out));
    }
}
