//! Receipts: telling senders how far their messages came.

mod delivered;

pub(crate) use delivered::ReceiptBook;
