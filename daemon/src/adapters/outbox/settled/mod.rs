//! The settled store.
