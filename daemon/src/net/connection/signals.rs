//! Signals of a connection: as datagrams where the peer takes them, else, and what is unread in any case, on its feed lane.
//!
//! Invariant: a signal makes nothing else wait. Where there is no room it is dropped: quinn's queue of datagrams is bounded and
//! drops the oldest, and a feed lane whose bytes are not taken gets none.

use bytes::Bytes;
use prost::Message;
use quail_protocol::limits::SIGNAL_BYTES_MAX;
use quail_protocol::v1::{self, Reason, feed_up};
use quinn::ConnectionError;

use super::{Connection, End};
use crate::net::lanes::Up;

impl Connection {
    /// Writes the signals that wait.
    pub(super) fn write_signals(&mut self) {
        for out in self.signals.take() {
            if out.feed.number != self.lanes.feed_number() {
                // The connection has attached anew since.
                continue;
            }
            let bytes = out.signal.encode_to_vec();
            // Nobody says again what is unread, so that goes where nothing is lost on the way.
            let by_lane = matches!(out.signal.body, Some(v1::signal::Body::Unread(_)));
            let fits = !by_lane && self.quic.max_datagram_size().is_some_and(|max| bytes.len() <= max);
            let is_written = if fits {
                let has_room = self.quic.datagram_send_buffer_space() >= bytes.len();
                // What is newer takes the place of what is older. An error means that the connection is gone.
                let _ = self.quic.send_datagram(bytes.into());
                has_room
            } else {
                self.lanes.push_signal((*out.signal).clone())
            };
            if !is_written {
                self.gateway.metrics().signals_dropped.inc();
            }
        }
    }

    /// Takes a datagram.
    pub(super) fn datagram(&mut self, datagram: Result<Bytes, ConnectionError>) -> Result<(), End> {
        let datagram = datagram.map_err(|_| End::Gone)?;
        if datagram.len() > SIGNAL_BYTES_MAX {
            return self.refused(Reason::Malformed);
        }
        match v1::Signal::decode(datagram) {
            Ok(signal) => self.signal(&signal).unwrap_or_else(|reason| self.refused(reason)),
            Err(_) => self.refused(Reason::Malformed),
        }
    }

    /// Takes the signals out of what came up the feed lane. One that is malformed ends the feed, as every such frame does.
    pub(super) fn take_signals(&mut self, up: &mut Up) -> Result<(), End> {
        let Up::Feed(frames) = up else { return Ok(()) };
        let is_signal = |up: &mut v1::FeedUp| matches!(up.frame, Some(feed_up::Frame::Signal(_)));
        for frame in frames.extract_if(.., is_signal).collect::<Vec<_>>() {
            let Some(feed_up::Frame::Signal(signal)) = frame.frame else { continue };
            match self.signal(&signal) {
                Ok(charged) => charged?,
                Err(reason) => {
                    frames.clear();
                    self.lanes.end_feed(reason.error());
                    return self.refused(reason);
                }
            }
        }
        Ok(())
    }

    /// Passes a signal on. One too many is not told to be refused, but it is charged.
    fn signal(&mut self, signal: &v1::Signal) -> Result<Result<(), End>, Reason> {
        let Some(session) = &self.session else { return Ok(Ok(())) };
        match self.gateway.signal(session, signal) {
            Err(Reason::RateLimited) => Ok(self.charge()),
            passed => passed.map(Ok),
        }
    }
}
