//! One judge of what devices did and saw: did every promise hold?
//!
//! Whoever runs devices, real ones or modelled ones, writes down what each does and sees, as [`Entry`]s in the order in which
//! they happened, and brings everything to rest. [`judge()`] then names each [`Violation`]:
//!
//! - **nothing is lost**: what was accepted, or was shown anywhere, is shown at every device of every recipient and at the
//!   sender's other devices, unless the device left, gave it up or was told of a gap there. A device begins with what comes after it;
//!   but the first one after a time without devices inherits what nobody took, for nobody else will;
//! - **shown once**: at every device; after its client was opened again also what it had not acknowledged;
//! - **one place**: a message has one origin, position, stamp and body wherever it is seen, and no other message has its place. Where an
//!   origin has ended, what the next one carried over is seen under both; what it did not carry over may be stored anew, and is shown
//!   no second time to who had it. Who took part in both is told that the first has ended;
//! - **per-sender order**: what one device sent keeps its order, as it arrives and sorted by (stamp, origin);
//! - **causal order**: what a device sends sorts behind everything that it had shown;
//! - **true receipts**: `delivered` only for what a device of the reader acknowledged before and did not set aside, `read` only for
//!   what one of them read before, in secret to nobody but the reader's own devices, and none goes back; and what a device acknowledged that is still there has its receipt in the end, unless
//!   the receipt may lie in a gap. So has what somebody read, once the server took their word, unless they said it in secret before.
//!
//! It needs nothing but the ids of the protocol: no runtime, no SDK, no daemon, so any harness may use it: the promise tests
//! with real processes, the core's simulation, the demo and the benchmarks judge by the same rules. Messages have lists of recipients, which have one
//! member as long as there are no groups.
//!
//! A harness whose log would be too long feeds a [`Judge`] and lets it [forget](Judge::forget_settled) what is settled: the same
//! rules in bounded memory.
//!
//! Invariants: the verdict follows from the entries alone; every rule has a log in `tests.rs` that breaks it and no other.

mod end;
mod entry;
mod forget;
mod judge;
mod lineage;
mod state;
#[cfg(test)]
mod tests;
mod violation;

pub use entry::{Entry, Key, Place, ReceiptKind, What, fingerprint};
pub use judge::{Judge, Terms, judge};
pub use violation::Violation;
