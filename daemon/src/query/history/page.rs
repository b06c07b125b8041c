//! How much of an answer fits into its frame.
//!
//! Invariant: the first element always fits, since a body is bounded well below a frame and what surrounds it by `wire.rs`; so who
//! pages always gets on.

use prost::Message;
use quail_protocol::limits::FRAME_BYTES_MAX;

/// What the frame itself takes: the response, the rest of the answer, up to where the archive is.
const SURROUNDINGS: usize = 256;

/// Tag and length of an element.
const ELEMENT: usize = 4;

/// What is left of a frame.
#[derive(Debug)]
pub(super) struct Room {
    left: usize,
}

impl Room {
    /// Returns an empty frame.
    pub(super) fn new() -> Self {
        Self { left: FRAME_BYTES_MAX - SURROUNDINGS }
    }

    /// Takes room for an element, if there is some.
    pub(super) fn take(&mut self, element: &impl Message) -> bool {
        self.take_bytes(element.encoded_len() + ELEMENT)
    }

    /// Takes room for something of a known size, if there is some.
    pub(super) fn take_bytes(&mut self, bytes: usize) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    /// Returns the first of some elements, as many as there is room for, and whether any is left out.
    pub(super) fn fill<T: Message>(&mut self, elements: impl IntoIterator<Item = T>) -> (Vec<T>, bool) {
        let mut taken = Vec::new();
        for element in elements {
            if !self.take(&element) {
                return (taken, true);
            }
            taken.push(element);
        }
        (taken, false)
    }
}
