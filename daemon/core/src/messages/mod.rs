//! Messages: what a person sends, and whether it is accepted.

mod admission;
mod content;
mod send;

pub(crate) use admission::Admission;
