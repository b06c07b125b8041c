//! One connection between a client and the daemon: two lanes whose frames keep their order, and two ends that learn of a
//! cut at different times. What arrives after an end has learnt of it is lost, so a cut loses any suffix of what was on
//! its way, in each direction its own.

use quail_core::Accepted;
use quail_protocol::id::{Origin, Position};
use quail_protocol::v1;
use quail_protocol::v1::Reason;

use crate::reading::Mark;

/// What a client writes.
#[derive(Clone, Debug)]
pub(crate) enum Up {
    Send { number: u64, seen: u64 },
    Restart,
    Attach { feed: u64, cursors: Vec<(Origin, Position)>, set_aside: Vec<(Origin, Position)> },
    Ack { feed: u64, origin: Origin, upto: u64, set_aside: Vec<(Origin, Position)> },
    Read { feed: u64, mark: Mark },
}

/// What the daemon writes. Frames of a feed carry its number: on the wire each feed is a stream of its own.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    Accepted(Accepted),
    Refused {
        number: u64,
        reason: Reason,
        temporary: bool,
    },
    Event {
        feed: u64,
        event: Box<v1::Event>,
    },
    Gap {
        feed: u64,
        from: u64,
        upto: u64,
    },
    /// An origin has ended and another one carries on.
    OriginGone {
        feed: u64,
        origin: Origin,
        from: u64,
        by: Origin,
    },
    CaughtUp {
        feed: u64,
    },
    /// Answers a mark, with why it was not taken and whether that may change.
    Read {
        feed: u64,
        error: Option<(Reason, bool)>,
    },
    Ended {
        feed: u64,
        reason: Reason,
    },
}

/// A connection. The daemon names it by its index plus one.
pub(crate) struct Link {
    pub(crate) device: usize,
    pub(crate) client_open: bool,
    pub(crate) server_open: bool,
    /// When the newest frame of each direction and lane arrives; nothing of that lane arrives earlier.
    newest: [u64; 4],
}

impl Link {
    pub(crate) fn new(device: usize) -> Self {
        Self { device, client_open: true, server_open: true, newest: [0; 4] }
    }

    pub(crate) fn up_arrives(&mut self, up: &Up, earliest: u64) -> u64 {
        self.arrives(usize::from(!matches!(up, Up::Send { .. } | Up::Restart)), earliest)
    }

    pub(crate) fn down_arrives(&mut self, down: &Down, earliest: u64) -> u64 {
        self.arrives(2 + usize::from(!matches!(down, Down::Accepted(..) | Down::Refused { .. })), earliest)
    }

    fn arrives(&mut self, lane: usize, earliest: u64) -> u64 {
        self.newest[lane] = self.newest[lane].max(earliest);
        self.newest[lane]
    }
}
