//! Tests of the settled store.
