//! The demo: a text goes from one to another while the daemon between them is killed.
//!
//! It needs nothing running and leaves nothing behind, so it is the shortest way to see the promises hold on one's own
//! machine, and the tests run it too. The story: two accounts on a private daemon; the first half is sent while the
//! recipient is offline, then it comes online and the second half follows; the daemon is killed with SIGKILL at points
//! spread over all of that (`plan.rs`), while sends have no answer and acknowledgements are on their way, and started
//! again on the same port and data. At last the recipient's program is started anew, to see that nothing comes twice, and
//! the checker judges what the two devices did and saw (`verdict.rs`).
//!
//! Invariants: kills are tied to progress, never to time; nothing waits for ever: when nothing moves for
//! [`STALL_TIMEOUT`] the demo stops and reports what is missing; dropping the future kills the daemon.

mod backlog;
mod board;
mod people;
mod plan;
mod report;
mod sample;
mod verdict;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quail_client::{Credentials, Error, Stats};
use tokio::sync::watch;

use crate::launcher::{Daemon, DaemonOptions, LogTarget};
use backlog::Backlog;
use board::Board;
use people::{Recipient, Sender};
use plan::Kill;
pub use report::{Confirm, Counts, DemoError, DemoReport, Step};
pub use sample::TEXT;
use verdict::verdict;

/// Most lines a demo sends; all are kept in memory until they are compared.
pub const LINES_MAX: usize = 100_000;

/// Most kills of one demo.
pub const KILLS_MAX: usize = 100;

/// The demo gives up when nothing has moved for so long: longer than the idle timeout after which a client notices, at
/// the latest, that its server has gone.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How often those who watch are told of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

/// How often a kill looks whether its sends have left, once it no longer looks all the time.
const WRITTEN_INTERVAL: Duration = Duration::from_millis(1);

/// How many times it looks before that. A write takes some ten microseconds, and the answer not much longer.
const WRITTEN_SPINS: usize = 10_000;

const SENDER: &str = "alice";
const RECIPIENT: &str = "dinah";

/// What to play.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// The daemon's program.
    pub quaild: PathBuf,
    /// An empty directory for the daemon's data and log.
    pub directory: PathBuf,
    /// The text, one message per line.
    pub lines: Vec<String>,
    /// How often to kill the daemon.
    pub kills: usize,
}

/// Plays the demo; tells `watch` what happens. Dropping the future ends it and everything it started.
///
/// # Errors
/// [`DemoError`] where the demo could not be played. A promise that was found broken is no error: the report says so.
pub async fn run(
    options: DemoOptions,
    watch: &mut (dyn FnMut(&Step) + Send),
) -> Result<DemoReport, DemoError> {
    let DemoOptions { quaild, directory, lines, kills } = options;
    let (line_count, max) = (lines.len(), LINES_MAX);
    if line_count > max {
        return Err(DemoError::TooManyLines { lines: line_count, max });
    }
    if kills > KILLS_MAX {
        return Err(DemoError::TooManyKills { kills, max: KILLS_MAX });
    }
    let began = Instant::now();
    let daemon = Daemon::start(DaemonOptions {
        log: LogTarget::File(directory.join("quaild.log")),
        ..DaemonOptions::new(quaild, directory.join("data"))
    });
    let mut play = Play::begin(daemon.await?, &lines, watch).await?;
    let recipient = match play.perform(kills).await {
        Ok(stats) => stats,
        Err(Halt::Failed(error)) => return Err(error),
        Err(Halt::Stuck(problem)) => {
            play.board.problem(problem);
            Stats::default()
        }
    };
    Ok(play.report(recipient, began))
}

/// Why the play does not go on.
enum Halt {
    /// It cannot be played.
    Failed(DemoError),
    /// A promise seems to be broken; the report shows which.
    Stuck(String),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Stuck(format!("a client ended: {error}"))
    }
}

/// Everything that is on stage.
struct Play<'a> {
    lines: &'a [String],
    watch: &'a mut (dyn FnMut(&Step) + Send),
    board: Arc<Board>,
    counts: watch::Receiver<Counts>,
    sender: Sender,
    recipient: Option<Recipient>,
    recipient_credentials: Credentials,
    backlog: Backlog,
    /// How many lines are sent before the recipient comes online.
    offline: usize,
    in_flight_at_kill: Vec<usize>,
    daemon: Daemon,
}

impl<'a> Play<'a> {
    async fn begin(
        daemon: Daemon,
        lines: &'a [String],
        watch: &'a mut (dyn FnMut(&Step) + Send),
    ) -> Result<Self, DemoError> {
        let address = daemon.address();
        watch(&Step::Started { pid: daemon.pid().unwrap_or_default(), address: address.to_string() });
        let failed = |action| move |source| DemoError::Client { action, source };
        let sender = people::sign_up(address, SENDER).await.map_err(failed("sign up the sender"))?;
        let recipient = people::sign_up(address, RECIPIENT).await.map_err(failed("sign up the recipient"))?;
        let board = Arc::new(Board::new(&sender, &recipient));
        let sender = Sender::open(address, &sender, recipient.account, &board);
        let sender = sender.await.map_err(failed("connect the sender"))?;
        let backlog = Backlog::new(lines);
        Ok(Self {
            lines,
            watch,
            counts: board.counts(),
            board,
            sender,
            recipient: None,
            recipient_credentials: recipient,
            offline: backlog.offline(),
            backlog,
            in_flight_at_kill: Vec::new(),
            daemon,
        })
    }

    /// Plays to the end; returns the counters of the recipient.
    async fn perform(&mut self, kills: usize) -> Result<Stats, Halt> {
        let (lines, offline) = (self.lines.len(), self.offline);
        (self.watch)(&Step::Sending { lines, offline });
        for kill in plan::kills(lines, kills) {
            self.interrupt(kill).await?;
        }
        self.send_upto(lines).await?;
        self.reach(|counts| counts.accepted + counts.refused >= lines).await?;
        self.bring_recipient().await?;
        self.reach(|counts| counts.settled >= counts.accepted && counts.shown >= counts.accepted).await?;
        let stats = match self.recipient.take() {
            Some(recipient) => {
                (self.watch)(&Step::RecipientAgain);
                let (stats, store) = recipient.close().await?;
                let (address, credentials) = (self.daemon.address(), &self.recipient_credentials);
                people::read_again(address, credentials, store, &self.board).await?;
                stats
            }
            None => Stats::default(),
        };
        self.sender.close().await?;
        Ok(stats)
    }

    /// Kills the daemon at a point of the plan and starts it again.
    async fn interrupt(&mut self, kill: Kill) -> Result<(), Halt> {
        self.send_upto(kill.ahead).await?;
        // Once the recipient is online, its acknowledgements are to be interrupted too.
        let shown = if self.recipient.is_some() { kill.point / 2 } else { 0 };
        self.reach(|counts| counts.accepted + counts.refused >= kill.point && counts.shown >= shown).await?;
        if self.in_flight() == 0 {
            // The daemon was faster than this task: give it something to do, and strike before it is done. The change
            // from the first half to the second would take the moment away.
            let is_first_half = self.sender.sent() < self.offline;
            let limit = if is_first_half { kill.limit.min(self.offline) } else { kill.limit };
            self.send_and_see_written(limit).await?;
        }
        let in_flight = self.in_flight();
        self.daemon.kill().await.map_err(|error| Halt::Failed(error.into()))?;
        let killed = Instant::now();
        self.in_flight_at_kill.push(in_flight);
        let (number, counts) = (kill.number, *self.counts.borrow());
        (self.watch)(&Step::Killed { number, in_flight, counts });
        let reconnects = self.sender.stats().reconnects;
        self.daemon.restart().await.map_err(|error| Halt::Failed(error.into()))?;
        // The next kill is to interrupt something, also where there is nothing left to send.
        let reconnected = tokio::time::timeout(STALL_TIMEOUT, self.sender.reconnected(reconnects));
        reconnected.await.map_err(|_| self.stuck())??;
        let away = killed.elapsed();
        (self.watch)(&Step::Restarted { number, away });
        Ok(())
    }

    /// Sends on until so many lines are sent; brings the recipient online on the way.
    async fn send_upto(&mut self, end: usize) -> Result<(), Halt> {
        while self.sender.sent() < end {
            if self.sender.sent() == self.offline {
                self.reach_offline_half().await?;
            }
            let shown = self.backlog.shown_before(self.sender.sent());
            if self.counts.borrow().shown < shown {
                self.reach(|counts| counts.shown >= shown).await?;
            }
            let Some(line) = self.lines.get(self.sender.sent()) else {
                return Ok(());
            };
            // A window that stays full means that the server accepts nothing.
            let sent = tokio::time::timeout(STALL_TIMEOUT, self.sender.send(line));
            sent.await.map_err(|_| self.stuck())??;
        }
        Ok(())
    }

    async fn reach_offline_half(&mut self) -> Result<(), Halt> {
        if self.recipient.is_none() {
            let half = self.offline;
            self.reach(|counts| counts.accepted + counts.refused >= half).await?;
            self.bring_recipient().await?;
        }
        Ok(())
    }

    async fn bring_recipient(&mut self) -> Result<(), Halt> {
        if self.recipient.is_none() {
            (self.watch)(&Step::RecipientOnline(*self.counts.borrow()));
            let address = self.daemon.address();
            let recipient = Recipient::open(address, &self.recipient_credentials, &self.board);
            self.recipient = Some(recipient.await?);
        }
        Ok(())
    }

    /// Sends what is left before `limit` and waits until the first of it has left this process.
    async fn send_and_see_written(&mut self, limit: usize) -> Result<(), Halt> {
        let (sent, writes) = (self.sender.sent(), self.sender.stats().publish_writes);
        self.send_upto(limit).await?;
        if self.sender.sent() == sent {
            return Ok(());
        }
        let began = Instant::now();
        for spin in 0.. {
            if self.sender.stats().publish_writes > writes {
                break;
            }
            if began.elapsed() > STALL_TIMEOUT {
                return Err(self.stuck());
            }
            match spin < WRITTEN_SPINS {
                true => tokio::task::yield_now().await,
                false => tokio::time::sleep(WRITTEN_INTERVAL).await,
            }
        }
        Ok(())
    }

    /// Waits until the counts have come so far, and tells the watcher on the way.
    async fn reach(&mut self, far_enough: impl Fn(&Counts) -> bool) -> Result<(), Halt> {
        let mut told = Instant::now();
        loop {
            let counts = *self.counts.borrow_and_update();
            if told.elapsed() >= PROGRESS_INTERVAL {
                (self.watch)(&Step::Progress(counts));
                told = Instant::now();
            }
            if far_enough(&counts) {
                return Ok(());
            }
            match tokio::time::timeout(STALL_TIMEOUT, self.counts.changed()).await {
                // The sender of the counts lives as long as `self`.
                Ok(_) => {}
                Err(_) => return Err(self.stuck()),
            }
        }
    }

    fn in_flight(&self) -> usize {
        let counts = *self.counts.borrow();
        self.sender.sent() - counts.accepted - counts.refused
    }

    fn stuck(&self) -> Halt {
        Halt::Stuck(format!("nothing moved for {STALL_TIMEOUT:?}"))
    }

    fn report(self, recipient: Stats, began: Instant) -> DemoReport {
        let verdict = verdict(self.lines.len(), &self.board.take_log());
        let (counts, sender, lines) = (*self.counts.borrow(), self.sender.stats(), self.lines.len());
        let is_flawless = verdict == verdict::Verdict::default();
        let problem = self.board.first_problem().or(verdict.other);
        DemoReport {
            ok: is_flawless && problem.is_none() && counts.accepted == lines && counts.delivered == lines,
            lines,
            accepted: counts.accepted,
            delivered: counts.delivered,
            duplicates: verdict.duplicates,
            missing: verdict.missing,
            out_of_order: verdict.out_of_order,
            altered: verdict.altered,
            kills: self.in_flight_at_kill.len(),
            in_flight_at_kill: self.in_flight_at_kill,
            reconnects: sender.reconnects + recipient.reconnects,
            resent: sender.resent,
            duplicates_dropped: recipient.duplicates_dropped,
            elapsed: began.elapsed(),
            confirm: self.board.confirm(),
            problem,
        }
    }
}
