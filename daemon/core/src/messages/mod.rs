//! Messages: whether a send is accepted, and what follows from it.

mod send;
