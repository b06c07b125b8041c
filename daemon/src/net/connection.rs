//! One connection: a task that owns its lanes, its mailbox and its session.
//!
//! The task waits for whatever comes first: a stream the client opens, frames on a lane, a push in the mailbox, room to
//! write. It hands commands over once per wake-up, and it never waits for one lane while another could go on.
//!
//! Invariants: the first stream is the hello, and nothing else is looked at before it is decided; a connection without a
//! session is closed after [`AUTHENTICATE_TIMEOUT`], one that must be refused too often when its budget is used up, and one whose
//! peer takes nothing of what waits for it when it has done so for too long; whatever ends the connection, the core is told.

mod refusals;
mod signals;

use std::sync::Arc;
use std::time::Duration;

use quail_core::ports::directory::SessionFacts;
use quail_core::{Command, ConnectionId, FeedId};
use quail_protocol::error::close;
use quail_protocol::limits::AUTHENTICATE_TIMEOUT;
use quail_protocol::v1::{Reason, open::Stream};
use quinn::VarInt;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::budget::RefusalBudget;
use super::endpoint::{STREAMS_WITH_SESSION, WINDOW_WITH_SESSION};
use super::hold::Hold;
use super::lane::ReadLaneError;
use super::lanes::{Lanes, Up};
use super::requests::{RequestStep, Requests};
use super::stall::StallTimer;
use super::streams::{self, Opened, Shape};
use crate::delivery::{Mailbox, SignalBox};
use crate::gateway::{Gateway, Prefix};
use crate::ops::metrics::{Held, LaneLabel, ReasonLabel};

/// How long a connection that drains may take to get its answers out.
const DRAIN_PATIENCE: Duration = Duration::from_secs(3);

/// How long a client that is told why its connection ends may take to hear it.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// Most turns in which a connection that ends reads what had arrived. Its windows allow no more than that.
const REST_TURNS_MAX: usize = 64;

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
}

/// Why a connection ends.
enum End {
    /// The peer or the network ended it.
    Gone,
    /// We end it and say why.
    Close(Reason),
    /// The process is about to stop.
    Drain,
}

impl Connection {
    /// Serves a connection from hello to end.
    pub(super) async fn run(
        id: ConnectionId,
        quic: quinn::Connection,
        gateway: Arc<Gateway>,
        drain: CancellationToken,
        stall: Duration,
    ) {
        let began = Instant::now();
        let deadline = began + AUTHENTICATE_TIMEOUT;
        // What happens once lies in boxes of its own: the task of a connection that waits shall be small.
        let greeting = Box::pin(tokio::time::timeout_at(deadline, Self::greet(&quic, &gateway)));
        let greeted = tokio::select! {
            greeted = greeting => greeted.unwrap_or(Err(End::Close(Reason::FrameTimeout))),
            () = drain.cancelled() => Err(End::Drain),
        };
        let session = match greeted {
            Ok(session) => session,
            Err(End::Gone) => return,
            Err(End::Close(reason)) => {
                gateway.refusals().count(reason);
                count_closed(&gateway, reason);
                return end(&quic, reason);
            }
            Err(End::Drain) => return end(&quic, Reason::Draining),
        };
        let mailbox = gateway.delivery().open(id);
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
        };
        if let Some(session) = session {
            connection.gateway.bind(id, &session).await;
            connection.opened_session(session);
        }
        let end = loop {
            tokio::select! {
                step = connection.step() => if let Err(end) = step { break end },
                () = drain.cancelled() => break End::Drain,
            }
        };
        Box::pin(connection.finish(end)).await;
    }

    async fn greet(quic: &quinn::Connection, gateway: &Gateway) -> Result<Option<SessionFacts>, End> {
        let (send, recv) = quic.accept_bi().await.map_err(|_| End::Gone)?;
        let opened = streams::open(send, recv).await.map_err(End::Close)?;
        let Stream::Hello(hello) = opened.stream else {
            opened.refuse(Reason::WrongFrame).await;
            return Err(End::Close(Reason::WrongFrame));
        };
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
        let may_open = self.requests.len() + self.opening.len() < STREAMS_WITH_SESSION as usize;
        let stuck_since = self.lanes.stuck_since();
        let holds = || self.hold.holds(self.gateway.is_backed_up(), Instant::now());
        tokio::select! {
            downs = self.mailbox.receive() => {
                let downs = downs.ok_or(End::Close(Reason::Limit))?;
                let within_budget = self.count_refusals(&downs);
                self.lanes.push(downs, self.gateway.origin()).map_err(End::Close)?;
                // Most of the time there is room, and one write now saves a wake-up later.
                self.lanes.try_flush().await;
                within_budget
            }
            up = self.lanes.turn(holds) => match up {
                Ok(None) => Ok(()),
                Ok(Some(up)) => self.take(up).await,
                Err(ReadLaneError::Gone(_)) => Err(End::Gone),
                Err(error) => {
                    tracing::debug!(connection = self.id.0, %error, "lane cannot be read");
                    Err(End::Close(error.reason()))
                }
            },
            stream = self.quic.accept_bi(), if may_open => {
                let (send, recv) = stream.map_err(|_| End::Gone)?;
                self.opening.spawn(streams::open(send, recv));
                Ok(())
            }
            Some(opened) = self.opening.join_next() => match opened {
                Ok(Ok(opened)) => Box::pin(self.opened(opened)).await,
                Ok(Err(reason)) => self.refused(reason),
                Err(_) => Err(End::Close(Reason::Internal)),
            },
            step = self.requests.next() => self.request_step(step),
            () = self.signals.due() => {
                self.write_signals();
                Ok(())
            }
            datagram = self.quic.read_datagram(), if self.session.is_some() => self.datagram(datagram),
            () = self.stall.elapsed(stuck_since) => {
                // What was waited for may have moved since then.
                let is_over = self.stall.is_over(self.lanes.stuck_since());
                if is_over { Err(End::Close(Reason::Stalled)) } else { Ok(()) }
            }
            () = tokio::time::sleep_until(self.deadline), if self.session.is_none() => {
                Err(End::Close(Reason::Unauthenticated))
            }
        }
    }

    fn request_step(&mut self, step: RequestStep) -> Result<(), End> {
        match step {
            RequestStep::Opened(session) => self.opened_session(session),
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
                streams::request(
                    &self.gateway,
                    (self.id, Prefix::of(self.quic.remote_address().ip())),
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

    /// Takes what had arrived before the end: above all the last acknowledgements of a client that said goodbye right after
    /// them. QUIC told it that they had come; that we have read them it cannot know.
    async fn take_the_rest(&mut self) {
        for _ in 0..REST_TURNS_MAX {
            // What is not ready now is not among it. The feed is read first, so no lost lane hides its acknowledgements.
            let up = tokio::select! {
                biased;
                up = self.lanes.turn(|| false) => up,
                () = std::future::ready(()) => return,
            };
            match up {
                Ok(Some(up)) => {
                    if self.take(up).await.is_err() {
                        return;
                    }
                }
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }

    async fn finish(mut self, why: End) {
        if matches!(why, End::Gone | End::Drain) {
            self.take_the_rest().await;
        }
        let (patience, reason) = match why {
            End::Gone => (Duration::ZERO, Reason::Internal),
            End::Close(reason) => (END_PATIENCE, reason),
            End::Drain => (DRAIN_PATIENCE, Reason::Draining),
        };
        if !patience.is_zero() {
            self.gateway.refusals().count(reason);
            count_closed(&self.gateway, reason);
            tracing::debug!(connection = self.id.0, reason = reason.as_str_name(), "closing");
            // Answers that are on their way still go out: what the client was told it need not ask again.
            let _ = tokio::time::timeout(patience, self.settle()).await;
            self.lanes.finish(patience).await;
            end(&self.quic, reason);
        }
        if let Some(session) = &self.session {
            self.gateway.disconnected(self.id, session).await;
        }
    }

    /// Waits until every send that was handed over and every request is answered.
    async fn settle(&mut self) {
        while self.lanes.unanswered() > 0 || self.requests.len() > 0 {
            tokio::select! {
                downs = self.mailbox.receive() => {
                    let Some(downs) = downs else { return };
                    // A reason to close is no news any more.
                    let _ = self.lanes.push(downs, self.gateway.origin());
                }
                step = self.requests.next() => {
                    // Nor is what it costs.
                    let _ = self.request_step(step);
                }
                _ = self.quic.closed() => return,
            }
        }
    }
}

fn count_closed(gateway: &Gateway, reason: Reason) {
    gateway.metrics().closed.get_or_create(&ReasonLabel { reason: reason.meta().name }).inc();
}

fn end(quic: &quinn::Connection, reason: Reason) {
    quic.close(VarInt::from_u32(close::code(reason)), reason.as_str_name().as_bytes());
}
