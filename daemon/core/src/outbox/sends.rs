//! The window of a device's recent sends: what makes sending twice sending once.
//!
//! A device numbers its sends; the window keeps the last accepted ones with their answers. A number at or below the
//! highest accepted is never decided anew. A client keeps no more sends unanswered than the window holds, so whatever it
//! sends again is found here.

use std::collections::VecDeque;

use quail_protocol::id::MessageId;
use quail_protocol::limits::SENDS_UNANSWERED_MAX;

use crate::ports::outbox::RecentSend;

/// The accepted sends of one device, numbers rising.
#[derive(Debug, Default)]
pub(crate) struct SendWindow {
    recent: VecDeque<RecentSend>,
    /// The last bytes of their ids, which are random: every new send looks through them, and nearly never finds one.
    tails: VecDeque<u32>,
}

/// What the window knows of a send that is to be decided.
#[derive(Debug, PartialEq)]
pub(crate) enum Earlier {
    /// Never accepted before: decide it.
    New,
    /// Accepted before with the same content: the same answer again.
    Same(RecentSend),
    /// The id was accepted with another content.
    IdReused,
    /// The number was accepted for another message.
    NumberReused,
    /// The number is at or below the highest accepted, and its answer is no longer held.
    NumberPassed,
}

impl SendWindow {
    pub(crate) fn find(&self, number: u64, id: MessageId, digest: [u8; 16]) -> Earlier {
        let mark = self.recent.back().map_or(0, |send| send.number);
        if number <= mark {
            return match self.recent.binary_search_by_key(&number, |send| send.number) {
                Ok(at) if self.recent[at].id != id => Earlier::NumberReused,
                Ok(at) => Self::compare(self.recent[at], digest),
                Err(_) => Earlier::NumberPassed,
            };
        }
        let (older, newer) = self.tails.as_slices();
        if !newer.contains(&tail(id)) && !older.contains(&tail(id)) {
            return Earlier::New;
        }
        // Newest first: a client that lost its counter repeats what it sent last.
        match self.recent.iter().rev().find(|send| send.id == id) {
            Some(send) => Self::compare(*send, digest),
            None => Earlier::New,
        }
    }

    pub(crate) fn push(&mut self, send: RecentSend) {
        // First the oldest out: for one more than it holds, a queue would double its room.
        if self.recent.len() >= SENDS_UNANSWERED_MAX {
            self.recent.pop_front();
            self.tails.pop_front();
        }
        self.recent.push_back(send);
        self.tails.push_back(tail(send.id));
    }

    fn compare(send: RecentSend, digest: [u8; 16]) -> Earlier {
        if send.digest == digest { Earlier::Same(send) } else { Earlier::IdReused }
    }
}

fn tail(id: MessageId) -> u32 {
    let [.., a, b, c, d] = id.0;
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use quail_protocol::id::{Position, Stamp};

    use super::*;

    fn send(number: u64) -> RecentSend {
        let id = MessageId((number as u128).to_be_bytes());
        RecentSend {
            number,
            id,
            digest: [number as u8; 16],
            position: Position(number),
            stamp: Stamp(number),
        }
    }

    fn window(numbers: impl IntoIterator<Item = u64>) -> SendWindow {
        let mut window = SendWindow::default();
        numbers.into_iter().for_each(|number| window.push(send(number)));
        window
    }

    #[test]
    fn the_same_send_finds_its_answer_and_another_is_told_why_not() {
        let window = window([1, 2, 5]);
        let known = send(2);
        assert_eq!(window.find(2, known.id, known.digest), Earlier::Same(known));
        assert_eq!(window.find(2, known.id, [0; 16]), Earlier::IdReused);
        assert_eq!(window.find(2, send(9).id, known.digest), Earlier::NumberReused);
        assert_eq!(window.find(3, send(3).id, [3; 16]), Earlier::NumberPassed);
        assert_eq!(window.find(6, send(6).id, [6; 16]), Earlier::New);
    }

    #[test]
    fn an_id_under_a_new_number_is_the_same_message() {
        let window = window([1, 2]);
        assert_eq!(window.find(7, send(1).id, send(1).digest), Earlier::Same(send(1)));
        assert_eq!(window.find(7, send(1).id, [9; 16]), Earlier::IdReused);
    }

    #[test]
    fn the_window_holds_as_many_as_a_client_may_leave_unanswered() {
        let newest = SENDS_UNANSWERED_MAX as u64 + 1;
        let window = window(1..=newest);
        assert_eq!(window.find(1, send(1).id, send(1).digest), Earlier::NumberPassed);
        assert_eq!(window.find(2, send(2).id, send(2).digest), Earlier::Same(send(2)));
        assert_eq!(window.recent.len(), SENDS_UNANSWERED_MAX);
        assert!(window.recent.capacity() < 2 * SENDS_UNANSWERED_MAX);
    }
}
