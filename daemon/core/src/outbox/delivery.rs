//! Attach, acknowledge, read on: the ways in which a device moves through its outbox.

use std::sync::Arc;

use quail_protocol::id::{AccountId, DeviceId, Position};
use quail_protocol::v1::Reason;

use super::account::AccountOutbox;
use super::feed::{Acknowledged, Feed, Mode};
use super::lineage::Claim;
use crate::command::{Effect, FeedId, Outcome};
use crate::ports::outbox::{Entry, Note, StoredEvent};
use crate::state::State;

impl State {
    /// Opens the feed of a device. The greatest attach number wins; the feed that loses is ended.
    pub(crate) fn attach(
        &mut self,
        feed: FeedId,
        (account, device): (AccountId, DeviceId),
        claim: Claim,
        set_aside: Vec<Position>,
        outcome: &mut Outcome,
    ) {
        let opened = match self.accounts.get_mut(&account) {
            Some(outbox) => outbox.open_feed(feed, (account, device), claim, set_aside, outcome),
            None => Err(Reason::Unauthenticated),
        };
        match opened {
            Ok(outbox) => {
                outbox.resolve(account, outcome);
                outbox.pump(account, device, outcome);
            }
            Err(reason) => outcome.after.push(Effect::Ended { feed, error: reason.error() }),
        }
    }

    /// Takes an acknowledgement. One that belongs to a feed that was replaced meanwhile is passed over.
    pub(crate) fn ack(
        &mut self,
        id: FeedId,
        (account, device_id): (AccountId, DeviceId),
        (upto, set_aside): (Position, &[Position]),
        now_ms: u64,
        outcome: &mut Outcome,
    ) {
        let last_position = self.last_position;
        let Some(outbox) = self.accounts.get_mut(&account) else {
            return;
        };
        let Some(device) = outbox.device_mut(device_id) else {
            return;
        };
        let Some(feed) = device.feed.as_mut().filter(|feed| feed.id == id) else {
            return;
        };
        let sent = |position: &Position| *position <= last_position;
        if !sent(&upto) || !set_aside.iter().all(sent) || !feed.set_aside(set_aside) {
            device.feed = None;
            outcome.after.push(Effect::Ended { feed: id, error: Reason::AckInvalid.error() });
            return;
        }
        // What was written to an older feed may be acknowledged on this one before it is written again: then it need not be.
        feed.claimed = feed.claimed.max(upto);
        let is_unseen = upto > feed.next;
        let mut taken = Acknowledged::since(device.whole_since);
        let progress = feed.ack(upto, &mut taken);
        device.whole_since = taken.whole_since();
        let acked = device.record.acked.max(upto);
        let acked_moved = std::mem::replace(&mut device.record.acked, acked) < acked;
        if device.settle() || acked_moved {
            outcome.entries.push(Entry::Device { account, device: device_id, record: device.record });
            outbox.resolve(account, outcome);
        }
        if is_unseen {
            outbox.receipts.acknowledged_unseen(upto);
        }
        outbox.pump(account, device_id, outcome);
        outbox.tell_stall(device_id, progress, outcome);
        self.delivered(account, taken, now_ms, outcome);
    }

    /// Goes on with a feed after its read came back.
    pub(crate) fn backlog(
        &mut self,
        id: FeedId,
        (account, device_id): (AccountId, DeviceId),
        events: Vec<Arc<StoredEvent>>,
        now_ms: u64,
        outcome: &mut Outcome,
    ) {
        let Some(outbox) = self.accounts.get_mut(&account) else {
            return;
        };
        let collapsed = outbox.collapsed();
        let Some(device) = outbox.devices.iter_mut().find(|device| device.id == device_id) else {
            return;
        };
        let Some(feed) = device.feed.as_mut().filter(|feed| feed.id == id) else {
            return;
        };
        let Mode::Reading { upto } = feed.mode else { return };
        feed.mode = Mode::Behind;
        let mut taken = Acknowledged::since(device.whole_since);
        let (is_empty, after) = (events.is_empty(), feed.next);
        // What was collapsed since the read was asked for may or may not be among the events: all of it is the gap.
        if let Some((from, upto)) = feed.pass_collapsed(collapsed) {
            outcome.after.push(Effect::Gap { feed: id, from, upto });
        }
        for event in events.into_iter().filter(|event| event.position > feed.next).collect::<Vec<_>>() {
            if let Note::Lost { from } = event.note {
                if let Some((from, upto)) = feed.pass_lost(from, event.position) {
                    outcome.after.push(Effect::Gap { feed: id, from, upto });
                }
            } else if feed.pass(&event, (account, device_id), &mut taken) {
                outbox.receipts.written(event.position);
                outcome.after.push(Effect::Deliver { feed: id, event });
            }
        }
        // What was claimed in advance and given up ends a stretch as it passes.
        device.whole_since = taken.whole_since();
        if device.settle() {
            outcome.entries.push(Entry::Device { account, device: device_id, record: device.record });
            outbox.resolve(account, outcome);
        }
        if is_empty && outbox.holds(after, upto) {
            // The index says there are events and the store says there are none: what was lost becomes a gap. What was
            // withdrawn since the read was asked for is in neither.
            outbox.collapse(upto, account, outcome);
        }
        outbox.pump(account, device_id, outcome);
        outbox.tell_stall(device_id, false, outcome);
        self.delivered(account, taken, now_ms, outcome);
    }
}

impl AccountOutbox {
    fn open_feed(
        &mut self,
        id: FeedId,
        (account, device_id): (AccountId, DeviceId),
        claim: Claim,
        set_aside: Vec<Position>,
        outcome: &mut Outcome,
    ) -> Result<&mut Self, Reason> {
        let device = self.device_mut(device_id).ok_or(Reason::Unauthenticated)?;
        if id.number <= device.record.attach_number {
            return Err(Reason::Replaced);
        }
        if let Some(older) = device.feed.take() {
            outcome.after.push(Effect::Ended { feed: older.id, error: Reason::Replaced.error() });
        }
        if device.record.attach_number == 0 {
            // It is younger than what was restored. Where it began nobody remembers, so what it says to have taken before does not
            // come again, and is no proof that it got it.
            device.record.cursor = device.record.cursor.max(claim.inherited);
            device.whole_since = device.whole_since.max(claim.inherited);
        }
        // It said so to this origin or to one that it inherited from, found in the backlog or not.
        let claimed = claim.taken.max(device.record.acked.min(claim.closed));
        // A device may have acknowledged more than it was found to have taken; that much is still here.
        let acked = device.record.acked.min(device.record.cursor);
        for (origin, from) in claim.gone {
            outcome.after.push(Effect::OriginGone { feed: id, origin, from });
        }
        let mut feed = Feed::new(id, device.record.cursor, claimed);
        // What no cursor of the attach passes is not given up by it; at most as many as the wire allows are left.
        feed.set_aside(&set_aside.into_iter().filter(|position| *position <= claimed).collect::<Vec<_>>());
        if claimed < acked {
            // The device forgot what it had acknowledged: this origin no longer has it, the device must be told.
            feed.pass_gap(claimed.next(), acked);
            outcome.after.push(Effect::Gap { feed: id, from: claimed.next(), upto: acked });
        }
        device.feed = Some(feed);
        device.record.attach_number = id.number;
        let is_unseen = claimed > device.record.acked;
        device.record.acked = device.record.acked.max(claimed);
        outcome.entries.push(Entry::Device { account, device: device_id, record: device.record });
        if is_unseen {
            // What it has read of this it may say before the backlog with it has been looked through.
            self.receipts.acknowledged_unseen(claimed);
        }
        Ok(self)
    }
}
