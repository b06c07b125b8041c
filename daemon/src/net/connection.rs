//! One connection: a task that owns its lanes, its mailbox and its session.
//!
//! The task waits for whatever comes first: a stream the client opens, frames on a lane, a push in the mailbox, room to
//! write. It hands commands over once per wake-up, and it never waits for one lane while another could go on.
//!
//! Invariants: the first stream is the hello, and nothing else is looked at before it is decided; a connection without a
//! session is closed after [`AUTHENTICATE_TIMEOUT`], one that must be refused too often when its budget is used up, and one whose
//! peer takes nothing of what waits for it when it has done so for too long; whatever ends the connection, the core is told. Before
//! the handshake is complete nothing is acted upon but what may be replayed (`connection/early.rs`).

mod early;
mod ending;
mod rare;
mod refusals;
mod signals;

use std::sync::Arc;
use std::time::Duration;

use quail_core::ports::directory::SessionFacts;
use quail_core::{Command, ConnectionId, FeedId};
use quail_protocol::limits::AUTHENTICATE_TIMEOUT;
use quail_protocol::v1::{Reason, open::Stream};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::budget::RefusalBudget;
use super::endpoint::{STREAMS_WITH_SESSION, WINDOW_WITH_SESSION};
use super::handshake::{Arrived, Handshake};
use super::hold::Hold;
use super::lane::ReadLaneError;
use super::lanes::{Lanes, Up};
use super::requests::{RequestStep, Requests};
use super::stall::StallTimer;
use super::streams::{self, Opened, Shape};
use super::whereabouts::Whereabouts;
use crate::delivery::{Down, Mailbox, SignalBox};
use crate::gateway::Gateway;
use crate::ops::metrics::{Held, LaneLabel};
use early::Early;
use ending::count_closed;
use rare::Rare;

/// How long a connection that drains may take to get its answers out.
const DRAIN_PATIENCE: Duration = Duration::from_secs(3);

/// How long a client that is told why its connection ends may take to hear it.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// A connection after its hello.
pub(super) struct Connection {
    id: ConnectionId,
    quic: quinn::Connection,
    gateway: Arc<Gateway>,
    mailbox: Mailbox,
    signals: Arc<SignalBox>,
    session: Option<SessionFacts>,
    /// Counts the session while it lasts.
    held: Option<Held>,
    lanes: Lanes,
    /// Streams whose first frame is being read; the stream limit bounds them.
    opening: JoinSet<Result<Opened, Reason>>,
    requests: Requests,
    deadline: Instant,
    budget: RefusalBudget,
    stall: StallTimer,
    hold: Hold,
    /// There until the handshake is complete.
    early: Option<Box<Early>>,
    /// Counts the connection, from the end of its handshake.
    counted: Option<Held>,
    whereabouts: Whereabouts,
    rare: Rare,
}

/// Why a connection ends.
pub(super) enum End {
    /// The peer or the network ended it.
    Gone,
    /// We end it and say why.
    Close(Reason),
    /// The process is about to stop.
    Drain,
}

impl Connection {
    /// Decides the hello, and returns the connection if there is one after it.
    pub(super) async fn open(
        id: ConnectionId,
        arrived: Arrived,
        gateway: Arc<Gateway>,
        drain: CancellationToken,
        stall: Duration,
    ) -> Option<Self> {
        let Arrived { quic, first, mut handshake } = arrived;
        let mut counted = handshake.is_none().then(|| Held::new(&gateway.metrics().connections));
        let began = Instant::now();
        let deadline = began + AUTHENTICATE_TIMEOUT;
        let greeting = Self::greet(&quic, &gateway, first, &mut handshake);
        let greeting = tokio::time::timeout_at(deadline, greeting);
        let greeted = tokio::select! {
            greeted = greeting => greeted.unwrap_or(Err(End::Close(Reason::FrameTimeout))),
            () = drain.cancelled() => Err(End::Drain),
        };
        let session = match greeted {
            Ok(session) => session,
            Err(End::Gone) => return None,
            Err(why) => {
                let reason = match why {
                    End::Close(reason) => reason,
                    _ => Reason::Draining,
                };
                gateway.refusals().count(reason);
                count_closed(&gateway, reason);
                early::end(handshake, &quic, &gateway, reason).await;
                return None;
            }
        };
        if handshake.is_none() && counted.is_none() {
            counted = Some(Held::new(&gateway.metrics().connections));
        }
        let mailbox = gateway.delivery().open(id);
        let whereabouts = Whereabouts::new(quic.remote_address(), began);
        let mut connection = Self {
            id,
            quic,
            gateway,
            signals: mailbox.signals(),
            mailbox,
            session: None,
            held: None,
            lanes: Lanes::default(),
            opening: JoinSet::new(),
            requests: Requests::new(),
            deadline,
            budget: RefusalBudget::new(began),
            stall: StallTimer::new(stall),
            hold: Hold::default(),
            early: handshake.map(|handshake| Box::new(Early::new(handshake))),
            counted,
            whereabouts,
            rare: Rare::new(drain),
        };
        connection.begin(session).await;
        Some(connection)
    }

    /// Serves a connection to its end.
    pub(super) async fn live(&mut self) -> End {
        loop {
            if let Err(end) = self.step().await {
                return end;
            }
        }
    }

    async fn greet(
        quic: &quinn::Connection,
        gateway: &Gateway,
        first: Option<(SendStream, RecvStream)>,
        handshake: &mut Option<Handshake>,
    ) -> Result<Option<SessionFacts>, End> {
        let (send, recv) = match first {
            Some(first) => first,
            None => quic.accept_bi().await.map_err(|_| End::Gone)?,
        };
        let opened = streams::open(send, recv).await.map_err(End::Close)?;
        let Stream::Hello(hello) = opened.stream else {
            opened.refuse(Reason::WrongFrame).await;
            return Err(End::Close(Reason::WrongFrame));
        };
        if let Some(shaking) = handshake.as_mut().filter(|_| hello.session_token.is_empty()) {
            // Nothing that somebody without a session says may be said in early data.
            if !shaking.done(quic, gateway).await {
                return Err(End::Gone);
            }
            *handshake = None;
        }
        streams::hello(gateway, &hello, opened.writer).await.map_err(End::Close)
    }

    fn opened_session(&mut self, session: SessionFacts) {
        tracing::debug!(connection = self.id.0, account = %session.account, device = %session.device, "session");
        self.quic.set_max_concurrent_bi_streams(VarInt::from_u32(STREAMS_WITH_SESSION));
        self.quic.set_receive_window(VarInt::from_u32(WINDOW_WITH_SESSION));
        self.held = Some(Held::new(&self.gateway.metrics().sessions));
        self.session = Some(session);
    }

    /// Waits for the next thing and does it. Everything it waits for is cancel safe.
    async fn step(&mut self) -> Result<(), End> {
        self.expect_rare();
        let stuck_since = self.lanes.stuck_since();
        let holds = || self.hold.holds(self.gateway.is_backed_up(), Instant::now());
        tokio::select! {
            downs = self.mailbox.receive() => self.write(downs).await,
            up = self.lanes.turn(holds) => match up {
                Ok(None) => Ok(()),
                Ok(Some(up)) => self.take(up).await,
                Err(ReadLaneError::Gone(_)) => Err(End::Gone),
                Err(error) => {
                    tracing::debug!(connection = self.id.0, %error, "lane cannot be read");
                    Err(End::Close(error.reason()))
                }
            },
            came = rare::next(&mut self.rare) => self.take_rare(came),
            Some(opened) = self.opening.join_next(), if !self.opening.is_empty() => match opened {
                Ok(Ok(opened)) => Box::pin(self.opened(opened)).await,
                Ok(Err(_)) => self.charge(),
                Err(_) => Err(End::Close(Reason::Internal)),
            },
            step = self.requests.next(), if self.requests.len() > 0 => self.request_step(step),
            () = self.signals.due() => {
                self.write_signals();
                Ok(())
            }
            complete = early::complete(&mut self.early, &self.quic, &self.gateway), if self.early.is_some() => {
                if complete { Box::pin(self.confirmed()).await } else { Err(End::Gone) }
            }
            () = self.stall.elapsed(stuck_since) => {
                // What was waited for may have moved since then.
                let is_over = self.stall.is_over(self.lanes.stuck_since());
                if is_over { Err(End::Close(Reason::Stalled)) } else { Ok(()) }
            }
        }
    }

    /// Queues what the mailbox has, and writes it as far as there is room.
    async fn write(&mut self, downs: Option<Vec<Down>>) -> Result<(), End> {
        let mut downs = downs.ok_or(End::Close(Reason::Limit))?;
        loop {
            let within_budget = self.count_refusals(&downs);
            self.lanes.push(downs, self.gateway.origin()).map_err(End::Close)?;
            within_budget?;
            match self.mailbox.try_receive() {
                Some(more) => downs = more,
                None => break,
            }
        }
        // Most of the time there is room, and one write now saves a wake-up later.
        self.lanes.try_flush().await;
        Ok(())
    }

    fn request_step(&mut self, step: RequestStep) -> Result<(), End> {
        match step {
            RequestStep::Opened(session) => self.opened_session(*session),
            RequestStep::Answered { charged: true } => return self.charge(),
            RequestStep::Decided | RequestStep::Answered { charged: false } => {}
        }
        Ok(())
    }

    fn lane(&self, lane: &'static str) -> Held {
        Held::new(&self.gateway.metrics().lanes.get_or_create(&LaneLabel { lane }))
    }

    /// Decides what a new stream is for.
    async fn opened(&mut self, opened: Opened) -> Result<(), End> {
        let Some(opened) = self.unless_early(opened) else { return Ok(()) };
        // Its client may have been told of the end of one request before it opened this stream for the next.
        while let Some(step) = self.requests.try_next() {
            self.request_step(step)?;
        }
        let session = self.session.clone();
        let refused = match (&opened.stream, &session) {
            (Stream::Hello(_), _) => Some(Reason::WrongFrame),
            (Stream::Publish(_) | Stream::Feed(_), None) => Some(Reason::Unauthenticated),
            (Stream::Publish(_), Some(_)) if self.lanes.has_publish() => Some(Reason::Limit),
            (Stream::Request(_), _) if !self.requests.has_room() => Some(Reason::Limit),
            _ => None,
        };
        if let Some(reason) = refused {
            self.gateway.requests().spawn(opened.refuse(reason));
            return self.refused(reason);
        }
        let Opened { stream, reader, writer } = opened;
        match (stream, session) {
            (Stream::Publish(_), _) => self.lanes.open_publish(reader, writer, self.lane("publish")),
            (Stream::Feed(attach), Some(session)) => match self.gateway.attach(self.id, &session, &attach) {
                Ok(command) => {
                    if let Some(older) =
                        self.lanes.open_feed(attach.number, reader, writer, self.lane("feed"))
                    {
                        self.gateway.requests().spawn(older.finish(END_PATIENCE));
                    }
                    self.submit(vec![command]).await?;
                }
                Err(error) => {
                    let reason = error.reason();
                    self.gateway.requests().spawn(Shape::Feed.refuse(reader, writer, error));
                    return self.refused(reason);
                }
            },
            (Stream::Request(request), session) => {
                let prefix = self.whereabouts.prefix(&self.quic, self.gateway.metrics());
                streams::request(
                    &self.gateway,
                    (self.id, prefix),
                    request,
                    session,
                    (reader, writer),
                    self.requests.begin(),
                );
            }
            // Refused above.
            (Stream::Hello(_), _) | (Stream::Feed(_), None) => {}
        }
        Ok(())
    }

    /// Hands over what came up a lane.
    async fn take(&mut self, mut up: Up) -> Result<(), End> {
        self.whereabouts.look(&self.quic, self.gateway.metrics());
        if up.is_end() {
            self.lanes.close_reader(&up);
            return Ok(());
        }
        self.take_signals(&mut up)?;
        let Some(session) = &self.session else { return Err(End::Close(Reason::Unauthenticated)) };
        let commands = match up {
            Up::Publish(frames) => {
                let commands = self.gateway.publish(self.id, session, frames).await;
                let commands = commands.map_err(|error| End::Close(error.reason()))?;
                self.lanes.handed_over(&commands);
                commands
            }
            Up::Feed(frames) => {
                let feed = FeedId { connection: self.id, number: self.lanes.feed_number() };
                let commands = match self.lanes.count_reads(&frames) {
                    Ok(()) => self.gateway.feed(feed, session, frames).await,
                    Err(reason) => Err(reason.error()),
                };
                match commands {
                    Ok(commands) => commands,
                    Err(error) => {
                        let reason = error.reason();
                        self.lanes.end_feed(error);
                        return self.refused(reason);
                    }
                }
            }
        };
        self.submit(commands).await
    }

    async fn submit(&self, commands: Vec<Command>) -> Result<(), End> {
        self.gateway.submit(commands).await.map_err(|_| End::Close(Reason::Draining))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A future that is made of a connection, for its size alone.
    const fn size_of_living<'a, F>(_: fn(&'a mut Connection) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_that_waits_is_small() {
        let size = size_of::<Connection>() + size_of_living(Connection::live);
        assert!(size <= 3 * 1024, "{size} bytes for each connection");
    }
}
