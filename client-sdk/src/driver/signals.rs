//! Signals of a connection, as datagrams; the feed lane writes them where the server takes none.
//!
//! Invariant: nothing waits for a datagram, and one that finds no room is dropped.

use prost::Message;
use quail_protocol::limits::SIGNAL_BYTES_MAX;
use quail_protocol::v1;

use crate::Error;
use crate::frames::connection_error;
use crate::shared::Shared;

/// Writes and reads datagrams until the connection fails or the client is to end.
pub(super) async fn run(shared: &Shared, connection: &quinn::Connection) -> Result<(), Error> {
    // In early data this is what the server took last time, and it may not take less now. Who takes no datagrams may not send any
    // either.
    let has_datagrams = shared.options.datagrams && connection.max_datagram_size().is_some();
    shared.signals.connected(!has_datagrams);
    loop {
        tokio::select! {
            () = shared.finish.cancelled() => {
                write(shared, connection);
                return Ok(());
            }
            datagram = connection.read_datagram() => {
                let datagram = datagram.map_err(|error| connection_error(&error))?;
                // The server's limit as well as ours; what is no signal is of a later version.
                if datagram.len() <= SIGNAL_BYTES_MAX && let Ok(signal) = v1::Signal::decode(datagram) {
                    shared.signals.arrived(&signal);
                }
            }
            () = shared.signals.datagrams_due() => write(shared, connection),
        }
    }
}

fn write(shared: &Shared, connection: &quinn::Connection) {
    if shared.signals.is_by_feed() {
        return;
    }
    for signal in shared.signals.take() {
        // An error means that it does not fit or that the connection is gone; either way it is not worth more.
        let _ = connection.send_datagram(signal.encode_to_vec().into());
    }
}
