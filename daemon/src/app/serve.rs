//! Starting, running and stopping the daemon: the one place that names concrete adapters.
//!
//! Start goes from the inside out: directory, outbox, sequencer, gateway, and the socket last, so that nobody is let in
//! before everything stands. Stop goes from the outside in: no new connections, answers out, sequencer done, stores closed.
//!
//! Invariants: the address is printed only when the daemon serves; a sequencer that ends by itself ends the process with
//! an error, because what it had not released must count as not done.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use quail_core::ports::directory::Administration;
use quail_core::ports::outbox::{Outbox, StoreError};
use quail_protocol::address::Address;
use quinn::{Endpoint, VarInt};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admin::{Administrator, Standing};
use super::archive::{self, OpenArchive, RunningArchive};
use super::notify::{Notifier, Pulse};
use super::ops_port::OpsPort;
use super::outbox::{self, Known, OpenOutbox};
use super::reload::{self, Certificates, CurrentPin, Reload};
use super::signals::{Asked, Signals};
use super::{DataDir, DataPaths, Settings, reset_key, storage};
use crate::config::{Config, SignUp, Tls};
use crate::delivery::{BacklogThread, Delivery, Reads, Releaser};
use crate::directory::{AdminService, DirectoryService, SignUpPolicy};
use crate::gateway::{Gateway, GatewayParts, Rates};
use crate::net::identity::Identity;
use crate::net::{Accepting, accept_all, bind};
use crate::ops::admin::AdminSocket;
use crate::ops::clock::unix_ms;
use crate::ops::metrics::Metrics;
use crate::ops::version;
use crate::sequencer::{Committer, Parts, Sequencer};

/// How long the parts behind the connections may take to stop once these are gone.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// Everything that runs.
struct Running {
    /// Holds the lock of the data directory until everything in it is closed.
    data: DataDir,
    sockets: Sockets,
    gateway: Arc<Gateway>,
    connections: TaskTracker,
    /// The admin socket with the requests on it, and the pulse.
    chores: TaskTracker,
    drain: CancellationToken,
    reads: Reads,
    threads: Threads,
    reload: Reload,
    notifier: Notifier,
}

/// Where the daemon is heard.
struct Sockets {
    endpoint: Endpoint,
    /// Cancelled when the endpoint's own task has panicked.
    endpoint_failed: CancellationToken,
    ops: OpsPort,
}

/// Serves until a signal asks to stop.
///
/// # Errors
/// Whatever keeps the daemon from starting, or the failure of its outbox.
pub async fn serve(settings: Settings) -> anyhow::Result<()> {
    // Before anything else: a signal during the start must not be lost.
    let mut signals = Signals::new().context("listen for signals")?;
    let metrics = Arc::new(Metrics::new());
    // Before the directory, so that those who watch are told what is waited for.
    let ops = OpsPort::open(settings.loaded.config.ops.listen, metrics.clone()).await?;
    let (config, paths) = (&settings.loaded.config, settings.data.paths());
    let waits = |reason| ops.waits("directory", reason);
    let opening = async {
        let directory = storage::open(&config.storage, paths, waits).await.context("open the directory")?;
        // In Postgres it is in the same database.
        let archive = archive::open(config, paths, waits).await?;
        let known = outbox::look(paths, &*directory, archive.as_ref()).await?;
        anyhow::Ok(Opened { directory, archive, known })
    };
    let opened = tokio::select! {
        opened = opening => opened?,
        name = signals.end() => {
            tracing::info!(signal = name, "stopped while waiting for the directory");
            return Ok(());
        }
    };
    let mut running = start(settings, opened, metrics, ops).await?;
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop(name) => {
                    tracing::info!(signal = name, "draining");
                    break;
                }
                Asked::Reload => {
                    running.notifier.reloading();
                    running.reload.run(running.gateway.metrics());
                    running.notifier.ready();
                }
            },
            ended = &mut running.threads.sequencer_ended => return Err(sequencer_failed(ended)),
            () = running.sockets.endpoint_failed.cancelled() => anyhow::bail!("the task of the socket panicked"),
            () = running.threads.backlog_ended.cancelled() => anyhow::bail!("the backlog thread panicked"),
            () = running.threads.archive_ended.cancelled() => anyhow::bail!("the archive's thread panicked"),
        }
    }
    tokio::select! {
        stopped = shut_down(running) => stopped,
        name = signals.stop() => {
            tracing::warn!(signal = name, "second signal, ending now");
            std::process::exit(1);
        }
    }
}

/// What may be a server's, which may have been waited for.
struct Opened {
    directory: Arc<dyn Administration>,
    archive: Option<OpenArchive>,
    known: Known,
}

/// What needs no socket: it stands before anybody is let in.
struct Inside {
    gateway: Arc<Gateway>,
    directory: DirectoryService,
    admin: AdminService,
    rates: Arc<Rates>,
    reads: Reads,
    threads: Threads,
    /// Whether the outbox has found the disk full.
    disk_full: Arc<dyn Fn() -> bool + Send + Sync>,
}

async fn start_inside(
    config: &Config,
    paths: &DataPaths,
    Opened { directory, archive, known }: Opened,
    metrics: Arc<Metrics>,
) -> anyhow::Result<Inside> {
    let OpenOutbox { engine, state, origin, archiving } =
        outbox::open(config, paths, &*directory, known, metrics.clone()).await?;
    let archive_ended = CancellationToken::new();
    let (delivery, reads) = (Arc::new(Delivery::new(metrics.clone())), Reads::default());
    let archive = archive
        .zip(archiving)
        .map(|(open, from)| archive::start(open, from, metrics.clone(), delivery.clone(), &archive_ended));

    let (reader, back_pressure) = (engine.reader(), engine.back_pressure());
    let (expiry, disk_full) = (engine.expiry(), engine.disk_full());
    let releaser = Box::new(Releaser::new(delivery.clone(), reads.clone()));
    let Parts { sequencer, committer, handle } =
        Sequencer::parts(state, Box::new(engine), releaser, Arc::new(unix_ms), metrics.clone());
    outbox::watch_age(&expiry, &handle);
    let decider = handle.clone();
    let hand_back = Box::new(move |command| decider.submit_blocking(vec![command]).is_ok());
    let backlog = BacklogThread { reads: reads.clone(), reader, hand_back, delivery: delivery.clone() };
    let signalled = delivery.clone();
    let sequencer = sequencer.with_signals(move |signals| signalled.signal(signals));
    let threads = start_threads(sequencer, committer, backlog)?;
    let threads = Threads { archive: archive.transpose()?, archive_ended, ..threads };
    let history = threads.archive.as_ref().map(|archive| archive.history(directory.clone(), metrics.clone()));
    let service = DirectoryService::new(directory.clone(), policy(config.accounts.sign_up));
    let admin = AdminService::new(directory.clone(), &service);
    let rates = Arc::new(Rates::new(&config.rates));
    let gateway = Arc::new(Gateway::new(GatewayParts {
        origin,
        sequencer: handle,
        delivery,
        directory: service.clone(),
        reads: directory,
        history,
        clock: Arc::new(unix_ms),
        rates: rates.clone(),
        back_pressure,
        metrics,
    }));
    Ok(Inside { gateway, directory: service, admin, rates, reads, threads, disk_full })
}

async fn start(
    settings: Settings,
    opened: Opened,
    metrics: Arc<Metrics>,
    ops: OpsPort,
) -> anyhow::Result<Running> {
    let Settings { loaded, source, data, log } = settings;
    let (config, paths) = (&loaded.config, data.paths());
    let identity = identity(&config.tls, paths, &config.server.name)?;
    let reset_key = reset_key::load_or_create(&paths.root().join("reset.key"))?;
    let inside = start_inside(config, paths, opened, metrics.clone()).await?;
    let Inside { gateway, directory, admin, rates, reads, threads, disk_full } = inside;
    metrics.certificate_expiry.set(identity.expiry());
    ops.started(&gateway, disk_full);
    let endpoint_failed = CancellationToken::new();
    let tls = identity.server_config()?;
    let (listen, early_data) = (config.server.listen, config.tls.early_data);
    let endpoint = bind(listen, tls, &reset_key, early_data, metrics.clone(), endpoint_failed.clone())?;
    let address = endpoint.local_addr().context("read the bound address")?;
    let (connections, drain) = (TaskTracker::new(), CancellationToken::new());
    let pin = CurrentPin::new(identity.pin());
    let standing = Standing {
        origin: gateway.origin(),
        listen: address,
        ops_address: ops.address(),
        data: paths.root().to_owned(),
        pin: pin.clone(),
        since: Instant::now(),
    };
    let socket = AdminSocket::bind(&config.admin.socket)?;
    let dead = threads.archive.as_ref().map(RunningArchive::dead);
    let administrator = Administrator { admin, gateway: gateway.clone(), standing, dead };
    let chores = TaskTracker::new();
    chores.spawn(socket.serve(Arc::new(administrator), chores.clone(), drain.clone()));
    connections.spawn(accept_all(Accepting {
        endpoint: endpoint.clone(),
        gateway: gateway.clone(),
        connections: connections.clone(),
        drain: drain.clone(),
        stall: config.limits.stall,
    }));
    announce(config, address, &identity)?;
    let (name, paths) = (config.server.name.clone(), paths.clone());
    let certificates = Certificates { endpoint: endpoint.clone(), paths, name, reset_key, pin, metrics };
    let appliers = vec![
        reload::sign_up(directory),
        reload::log_level(log),
        reload::rates(rates),
        reload::certificates(certificates),
    ];
    let reload = Reload::new(source, &loaded, appliers);
    let notifier = Notifier::system();
    notifier.ready();
    let pulse = Pulse {
        notifier: notifier.clone(),
        gateway: gateway.clone(),
        connections: connections.clone(),
        watchdog: Pulse::system_watchdog(),
    };
    chores.spawn(pulse.run(drain.clone()));
    if let Some(archive) = &threads.archive {
        chores.spawn(archive.tell_unread(gateway.sequencer().clone(), drain.clone()));
    }
    let (recorder, drained) = (gateway.clone(), drain.clone());
    chores.spawn(async move { recorder.record_seen_until(drained).await });
    let sockets = Sockets { endpoint, endpoint_failed, ops };
    Ok(Running { data, sockets, gateway, connections, chores, drain, reads, threads, reload, notifier })
}

/// The threads, and how their end is noticed.
struct Threads {
    handles: Vec<JoinHandle<()>>,
    /// Resolves when sequencer and committer have ended; by an error, or by a panic if the sender is dropped without one.
    sequencer_ended: oneshot::Receiver<Result<(), StoreError>>,
    /// Cancelled when the backlog thread has ended, however it did.
    backlog_ended: CancellationToken,
    /// None where there is no archive.
    archive: Option<RunningArchive>,
    /// Cancelled when the archive's thread has ended, however it did.
    archive_ended: CancellationToken,
}

fn start_threads(
    sequencer: Sequencer,
    committer: Committer,
    backlog: BacklogThread,
) -> anyhow::Result<Threads> {
    let (ended, sequencer_ended) = oneshot::channel();
    let sequencer = std::thread::Builder::new().name("sequencer".to_owned()).spawn(move || sequencer.run());
    let sequencer = sequencer.context("start the sequencer")?;
    let committer = std::thread::Builder::new().name("committer".to_owned()).spawn(move || {
        // After a failed sync the sequencer goes on deciding until the process ends, and nobody hears of it. Otherwise it
        // has ended first; a panic there is passed on by a panic here.
        let outcome = committer
            .run()
            .and_then(|()| sequencer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        // Nobody listens any more only if the process is about to end anyway.
        let _ = ended.send(outcome);
    });
    let backlog_ended = CancellationToken::new();
    let ended = backlog_ended.clone().drop_guard();
    let backlog = std::thread::Builder::new().name("backlog".to_owned()).spawn(move || {
        backlog.run();
        drop(ended);
    });
    let handles =
        vec![committer.context("start the committer")?, backlog.context("start the backlog thread")?];
    let archive_ended = CancellationToken::new();
    Ok(Threads { handles, sequencer_ended, backlog_ended, archive: None, archive_ended })
}

/// Returns the operator's certificate, else the daemon's own for the host `name`.
pub(super) fn identity(tls: &Tls, paths: &DataPaths, name: &str) -> anyhow::Result<Identity> {
    match &tls.operator {
        Some(files) => Ok(Identity::load(&files.certificate, &files.key)?),
        None => Ok(Identity::load_or_create(&paths.certificate(), &paths.key(), name)?),
    }
}

/// Returns what a setting means to the directory.
pub(super) fn policy(sign_up: SignUp) -> SignUpPolicy {
    match sign_up {
        SignUp::Open => SignUpPolicy::Open,
        SignUp::Invite => SignUpPolicy::Invite,
        SignUp::Closed => SignUpPolicy::Closed,
    }
}

/// Prints the address, alone on its line, for people and for programs that start a daemon.
fn announce(config: &Config, address: SocketAddr, identity: &Identity) -> anyhow::Result<()> {
    // An operator's certificate is trusted by its issuer and may be renewed with another key; a pin would outlive it.
    let pin = config.tls.operator.is_none().then_some(identity.pin());
    let printed = Address { handle: None, host: config.server.name.clone(), port: address.port(), pin };
    tracing::info!(%address, pin = %identity.pin(), version = version::VERSION, "serving");
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{printed}").and_then(|()| stdout.flush()).context("print the address")
}

async fn shut_down(running: Running) -> anyhow::Result<()> {
    let Running { data, sockets, gateway, connections, chores, drain, reads, threads, reload, notifier } =
        running;
    let Sockets { endpoint, ops, .. } = sockets;
    ops.drain();
    notifier.stopping(reload.drain());
    drain.cancel();
    connections.close();
    gateway.requests().close();
    chores.close();
    let finished = async {
        connections.wait().await;
        gateway.requests().wait().await;
        chores.wait().await;
    };
    if tokio::time::timeout(reload.drain(), finished).await.is_err() {
        tracing::warn!(connections = connections.len(), "drain took too long, closing what is left");
    }
    endpoint.close(
        VarInt::from_u32(quail_protocol::error::close::code(quail_protocol::v1::Reason::Draining)),
        b"",
    );
    let _ = tokio::time::timeout(STOP_PATIENCE, endpoint.wait_idle()).await;
    tracing::info!(refusals = gateway.refusals().summary(), "drained");
    // The last connections are gone now. What cannot be written in time is worth no wait.
    let _ = tokio::time::timeout(STOP_PATIENCE, gateway.record_seen()).await;
    reads.stop();
    ops.close().await;
    drop(gateway);
    match tokio::time::timeout(STOP_PATIENCE, threads.sequencer_ended).await {
        Ok(Ok(Ok(()))) => {}
        Ok(ended) => return Err(sequencer_failed(ended)),
        // Some task still holds a handle. All that was released is durable, so there is nothing to wait for.
        Err(_) => {
            tracing::warn!("the sequencer did not end in time");
            return Ok(());
        }
    }
    let joined =
        tokio::task::spawn_blocking(move || threads.handles.into_iter().all(|thread| thread.join().is_ok()))
            .await;
    anyhow::ensure!(joined.context("wait for threads")?, "a thread panicked while stopping");
    if let Some(archive) = threads.archive {
        // Last, so that it has everything that was decided.
        archive.stop().await?;
    }
    drop(data);
    tracing::info!("stopped");
    Ok(())
}

fn sequencer_failed(ended: Result<Result<(), StoreError>, oneshot::error::RecvError>) -> anyhow::Error {
    match ended {
        Ok(Err(error)) => {
            anyhow::Error::new(error).context("the outbox failed; nothing unsynced was answered")
        }
        Ok(Ok(())) => anyhow::anyhow!("the sequencer ended without being asked"),
        Err(_) => anyhow::anyhow!("the sequencer panicked"),
    }
}
