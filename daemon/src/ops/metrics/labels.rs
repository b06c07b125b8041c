//! Labels of metrics. Their values are words of the program, so their number is known.

use prometheus_client::encoding::EncodeLabelSet;

/// How a handshake ended: `completed`, `failed`, `timeout`; or what became of it before it began: `retried`,
/// `refused`, `limited`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HandshakeLabel {
    /// The end.
    pub result: &'static str,
}

/// What became of early data: `accepted`, a client spoke in it; `rejected`, its ticket was not good (any more).
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EarlyDataLabel {
    /// What became of it.
    pub result: &'static str,
}

/// Kind of a lane: `publish`, `feed`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LaneLabel {
    /// The kind.
    pub lane: &'static str,
}

/// A command and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CommandLabels {
    /// Its name in the command table.
    pub command: &'static str,
    /// `OK`, or the reason of its refusal.
    pub result: &'static str,
}

/// A reason of the error table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// Its name.
    pub reason: &'static str,
}

/// A rate class.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ClassLabel {
    /// Its name in the configuration.
    pub class: &'static str,
}

/// Where something happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PlaceLabel {
    /// `connection` or `transport`.
    pub place: &'static str,
}

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReloadLabel {
    /// `taken` or `refused`.
    pub result: &'static str,
}
