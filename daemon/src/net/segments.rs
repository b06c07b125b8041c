//! How many packets a connection may hand to the kernel at once, and so how large its send buffer becomes.
//!
//! quinn writes what goes out together into one buffer per connection, which it never makes smaller: room for ten packets, 14 KB,
//! from the first time that there are two. There are two in every handshake, so a connection that is silent from then on would
//! keep it for nothing. While a connection begins, its packets are handed over one by one, and the buffer stays as large as
//! two of them. Who has more to say later gets the large buffer and the fast way.
//!
//! Invariant: who polls a connection says whether it begins, on the thread that polls it; outside of that nobody is held back.

use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// For how many wake-ups a connection begins. A handshake, a hello and an attach take some twenty.
const BEGINNING_POLLS: u8 = 64;

thread_local! {
    /// Whether the connection that is polled on this thread begins.
    static BEGINS: Cell<bool> = const { Cell::new(false) };
}

/// The first wake-ups of a connection.
#[derive(Debug)]
pub(super) struct Beginning {
    polls_left: u8,
}

impl Beginning {
    pub(super) fn new() -> Self {
        Self { polls_left: BEGINNING_POLLS }
    }

    /// Polls a connection, which must not panic, and counts that.
    pub(super) fn poll<T>(&mut self, poll: impl FnOnce() -> T) -> T {
        let Some(left) = self.polls_left.checked_sub(1) else { return poll() };
        self.polls_left = left;
        BEGINS.set(true);
        let polled = poll();
        BEGINS.set(false);
        polled
    }
}

/// The socket of the endpoint, on which a connection that begins sends one packet at a time.
#[derive(Debug)]
pub(super) struct SegmentedSocket {
    socket: Arc<dyn AsyncUdpSocket>,
}

impl SegmentedSocket {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Self {
        Self { socket }
    }
}

impl AsyncUdpSocket for SegmentedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(context, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        if BEGINS.get() { 1 } else { self.socket.max_transmit_segments() }
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that takes ten packets at once.
    #[derive(Debug)]
    struct Ten;

    impl AsyncUdpSocket for Ten {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            unreachable!("nothing is sent")
        }

        fn try_send(&self, _: &Transmit<'_>) -> io::Result<()> {
            Ok(())
        }

        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn max_transmit_segments(&self) -> usize {
            10
        }
    }

    #[test]
    fn a_connection_sends_single_packets_while_it_begins_and_nobody_else_does() {
        let socket = SegmentedSocket::new(Arc::new(Ten));
        let segments = || socket.max_transmit_segments();
        let mut beginning = Beginning::new();
        for _ in 0..BEGINNING_POLLS {
            assert_eq!(beginning.poll(segments), 1);
            assert_eq!(segments(), 10);
        }
        assert_eq!(beginning.poll(segments), 10);
    }
}
