//! What the service manager is told: that the daemon serves, reloads, stops, how it is, and that it is alive.
//!
//! The protocol is systemd's sd_notify; without a manager (no `NOTIFY_SOCKET`) nothing is told. Alive means that a command
//! went through the sequencer: a daemon whose sequencer hangs in a disk's driver still has a runtime that could say "alive"
//! for ever, and must be restarted all the same.
//!
//! Invariants: the environment is read and never changed; a watchdog message is sent only after the sequencer has answered
//! within half the watchdog's patience.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gateway::Gateway;

/// How often the status is looked at, if no watchdog asks for more.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// The shortest time between two watchdog messages, whatever the manager asks for.
const BEAT_MIN: Duration = Duration::from_millis(10);

/// What a stop may take besides the drain.
const STOP_MARGIN: Duration = Duration::from_secs(15);

/// Sends a message to the service manager.
type Tell = dyn Fn(&[NotifyState<'_>]) -> io::Result<()> + Send + Sync;

/// Tells the service manager. Cheap to clone.
#[derive(Clone)]
pub(super) struct Notifier {
    send: Arc<Tell>,
}

impl Notifier {
    /// Returns what tells the manager of this process, if there is one.
    pub(super) fn system() -> Self {
        Self { send: Arc::new(sd_notify::notify) }
    }

    /// The daemon serves.
    pub(super) fn ready(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// The daemon reads its configuration again; [`ready`](Self::ready) follows.
    pub(super) fn reloading(&self) {
        let mut states = vec![NotifyState::Reloading];
        // Newer managers want to know when, to tell this reload from an older one.
        states.extend(NotifyState::monotonic_usec_now());
        self.tell(&states);
    }

    /// The daemon drains, which may take so long.
    pub(super) fn stopping(&self, drain: Duration) {
        let takes = u32::try_from((drain + STOP_MARGIN).as_micros()).unwrap_or(u32::MAX);
        self.tell(&[
            NotifyState::Stopping,
            NotifyState::Status("Draining"),
            NotifyState::ExtendTimeoutUsec(takes),
        ]);
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        if let Err(error) = (self.send)(states) {
            tracing::warn!(%error, "cannot tell the service manager");
        }
    }
}

/// Tells the manager from time to time that the daemon is alive, and how it is.
pub(super) struct Pulse {
    pub(super) notifier: Notifier,
    pub(super) gateway: Arc<Gateway>,
    /// Has one task for each connection, and one that accepts them.
    pub(super) connections: TaskTracker,
    /// How long the manager waits for a sign of life, if it does.
    pub(super) watchdog: Option<Duration>,
}

impl Pulse {
    /// Returns the patience of this process's watchdog, if it has one.
    pub(super) fn system_watchdog() -> Option<Duration> {
        sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero())
    }

    /// Beats until told to stop. The last thing that holds the gateway must not be this.
    pub(super) async fn run(self, stop: CancellationToken) {
        let beat = self.beat_interval();
        let mut ticks = tokio::time::interval(beat.unwrap_or(STATUS_INTERVAL).min(STATUS_INTERVAL));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let beating = async {
            let mut told = String::new();
            loop {
                ticks.tick().await;
                self.tell_status(&mut told);
                if let Some(beat) = beat {
                    self.beat(beat).await;
                }
            }
        };
        tokio::select! {
            () = beating => {}
            () = stop.cancelled() => {}
        }
    }

    fn beat_interval(&self) -> Option<Duration> {
        self.watchdog.map(|patience| (patience / 2).max(BEAT_MIN))
    }

    /// Says that the daemon is alive if its sequencer answers in time, and returns whether it did.
    async fn beat(&self, patience: Duration) -> bool {
        let answered = tokio::time::timeout(patience, self.gateway.probe_sequencer()).await;
        let is_alive = matches!(answered, Ok(Ok(())));
        if is_alive {
            self.notifier.tell(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(waited_ms = patience.as_millis() as u64, "the sequencer does not answer");
        }
        is_alive
    }

    fn tell_status(&self, told: &mut String) {
        let connections = self.connections.len().saturating_sub(1);
        let status = format!("Serving, {connections} connections");
        if *told != status {
            self.notifier.tell(&[NotifyState::Status(&status)]);
            *told = status;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use quail_core::State;
    use quail_core::ports::directory::{Directory, TwinDirectory};
    use quail_core::ports::outbox::{Recovered, TwinOutbox};
    use quail_protocol::id::Origin;

    use super::*;
    use crate::config::{Class, RateTable};
    use crate::delivery::{Delivery, Reads, Releaser};
    use crate::directory::{DirectoryService, SignUpPolicy};
    use crate::gateway::{GatewayParts, Rates};
    use crate::sequencer::{Committer, Parts, Sequencer};

    type Told = Arc<Mutex<Vec<String>>>;

    /// A pulse over a sequencer that does not run until somebody runs it, and what was told.
    fn pulse(watchdog: Option<Duration>) -> (Pulse, Told, (Sequencer, Committer)) {
        let told = Told::default();
        let log = told.clone();
        let send = move |states: &[NotifyState<'_>]| {
            log.lock().unwrap().extend(states.iter().map(ToString::to_string));
            Ok(())
        };
        let state = State::new(Origin(1), Recovered::default());
        let delivery = Arc::new(Delivery::default());
        let releaser = Box::new(Releaser::new(delivery.clone(), Reads::default()));
        let outbox = Box::new(TwinOutbox::default());
        let Parts { sequencer, committer, handle } =
            Sequencer::parts(state, outbox, releaser, Arc::new(|| 1), Arc::default());
        let directory: Arc<dyn Directory> = Arc::new(TwinDirectory::new());
        let gateway = Gateway::new(GatewayParts {
            origin: Origin(1),
            sequencer: handle,
            delivery,
            directory: DirectoryService::new(directory.clone(), SignUpPolicy::Open),
            reads: directory,
            history: None,
            clock: Arc::new(|| 1),
            rates: Arc::new(Rates::new(&RateTable::new([None; Class::ALL.len()]))),
            back_pressure: Arc::new(|| false),
            metrics: Arc::default(),
        });
        let (gateway, connections) = (Arc::new(gateway), TaskTracker::new());
        let notifier = Notifier { send: Arc::new(send) };
        let pulse = Pulse { notifier, gateway, connections, watchdog };
        (pulse, told, (sequencer, committer))
    }

    #[tokio::test]
    async fn a_sequencer_that_hangs_keeps_the_watchdog_waiting() {
        let (pulse, told, (sequencer, committer)) = pulse(Some(Duration::from_secs(60)));
        for _ in 0..3 {
            assert!(!pulse.beat(Duration::from_millis(20)).await);
        }
        assert_eq!(*told.lock().unwrap(), [""; 0]);

        let deciding = std::thread::spawn(move || sequencer.run());
        let committing = std::thread::spawn(move || committer.run());
        assert!(pulse.beat(Duration::from_secs(60)).await);
        assert_eq!(*told.lock().unwrap(), ["WATCHDOG=1"]);
        drop(pulse);
        assert_eq!(deciding.join().unwrap(), Ok(()), "nothing holds the sequencer");
        assert_eq!(committing.join().unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn a_sequencer_that_has_ended_is_not_alive() {
        let (pulse, told, sequencer) = pulse(Some(Duration::from_secs(60)));
        drop(sequencer);
        assert!(!pulse.beat(Duration::from_secs(60)).await);
        assert_eq!(*told.lock().unwrap(), [""; 0]);
    }

    #[tokio::test]
    async fn the_status_is_told_when_it_changes() {
        let (pulse, told, _sequencer) = pulse(None);
        let mut last = String::new();
        for _ in 0..2 {
            pulse.tell_status(&mut last);
        }
        for _ in 0..2 {
            let released = CancellationToken::new();
            pulse.connections.spawn(async move { released.cancelled().await });
        }
        pulse.tell_status(&mut last);
        let expected = ["STATUS=Serving, 0 connections", "STATUS=Serving, 1 connections"];
        assert_eq!(*told.lock().unwrap(), expected);
    }

    #[test]
    fn half_of_the_patience_and_never_less_than_the_least() {
        let beat = |watchdog| pulse(watchdog).0.beat_interval();
        assert_eq!(beat(None), None);
        assert_eq!(beat(Some(Duration::from_secs(30))), Some(Duration::from_secs(15)));
        assert_eq!(beat(Some(Duration::from_micros(1))), Some(BEAT_MIN));
    }

    #[test]
    fn a_stop_may_take_as_long_as_the_longest_drain() {
        let told = Told::default();
        let log = told.clone();
        let send = move |states: &[NotifyState<'_>]| {
            log.lock().unwrap().extend(states.iter().map(ToString::to_string));
            Ok(())
        };
        Notifier { send: Arc::new(send) }.stopping(Duration::from_secs(3600));
        let expected = ["STOPPING=1", "STATUS=Draining", "EXTEND_TIMEOUT_USEC=3615000000"];
        assert_eq!(*told.lock().unwrap(), expected);
    }
}
