//! Messages: what a person sends, and whether it is accepted.

mod admission;
mod send;

pub(crate) use admission::Admission;
