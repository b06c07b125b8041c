//! An archive that reads along, and what the outbox does while it is behind.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use quail_core::ports::outbox::Room;

use super::*;

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the double looks whether it is time to acknowledge.
const LOOK: Duration = Duration::from_millis(5);

const MIB: usize = 1024 * 1024;

/// A double of an archive: takes what there is at once, and acknowledges it after a while.
struct ArchiveDouble {
    shared: Arc<Double>,
    thread: Option<JoinHandle<()>>,
}

struct Double {
    stop: AtomicBool,
    /// How long after it has read something it says that this is archived; never while `None`.
    delay: Mutex<Option<Duration>>,
    /// Positions of the events it was handed, in order.
    taken: Mutex<Vec<u64>>,
    /// Up to where it has said that all is archived.
    archived: Mutex<Position>,
}

impl ArchiveDouble {
    fn read_along(engine: &OutboxEngine, delay: Option<Duration>) -> Self {
        let shared = Arc::new(Double {
            stop: AtomicBool::new(false),
            delay: Mutex::new(delay),
            taken: Mutex::default(),
            archived: Mutex::new(Position::ZERO),
        });
        let (double, reader) = (shared.clone(), engine.archive().expect("opened for an archive"));
        Self { shared, thread: Some(std::thread::spawn(move || double.run(reader))) }
    }

    fn set_delay(&self, delay: Option<Duration>) {
        *self.shared.delay.lock().unwrap() = delay;
    }

    fn taken(&self) -> Vec<u64> {
        self.shared.taken.lock().unwrap().clone()
    }

    /// Waits until it has taken so many events.
    fn takes(&self, count: usize) {
        wait_until("the archive to take everything", || self.shared.taken.lock().unwrap().len() >= count);
    }

    fn archived(&self) -> Position {
        *self.shared.archived.lock().unwrap()
    }
}

impl Drop for ArchiveDouble {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the archive could not read");
        }
    }
}

impl Double {
    fn run(&self, mut reader: ArchiveReader) {
        let mut waiting: Vec<(Instant, Position)> = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let tailed = reader.next(256 * 1024, LOOK).unwrap();
            self.taken.lock().unwrap().extend(tailed.events.iter().map(|tailed| tailed.event.position.0));
            waiting.push((Instant::now(), tailed.upto));
            let Some(delay) = *self.delay.lock().unwrap() else { continue };
            let due = waiting.partition_point(|(read_at, _)| read_at.elapsed() >= delay);
            if let Some((_, upto)) = waiting.drain(..due).next_back() {
                *self.archived.lock().unwrap() = upto;
                reader.archived(upto);
            }
        }
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(LOOK);
    }
}

/// An outbox, who sends to it, and its figures.
struct Sending {
    engine: OutboxEngine,
    metrics: Arc<Metrics>,
    last: u64,
}

impl Sending {
    fn open(path: &std::path::Path, archived: Position, limits: Limits) -> Self {
        let metrics = Arc::new(Metrics::new());
        let options = OutboxOptions { limits, archived: Some(archived), ..OutboxOptions::default() };
        let Opened { engine, recovered, .. } = open_with(path, &options, &metrics);
        Self { engine, metrics, last: recovered.last_position.0 }
    }

    /// Sends so many bytes to one account, in one batch.
    fn send(&mut self, bytes: usize) {
        const EVENT_BYTES: usize = 32 * 1024;
        let entries: Vec<_> = (0..bytes.div_ceil(EVENT_BYTES))
            .map(|_| {
                self.last += 1;
                Entry::Event {
                    event: event(self.last, EVENT_BYTES.min(bytes)),
                    accounts: vec![account(1)].into(),
                }
            })
            .collect();
        self.commit(&entries);
    }

    /// The account takes everything.
    fn acknowledge(&mut self) {
        self.commit(&[Entry::Resolved { account: account(1), upto: Position(self.last) }]);
    }

    fn commit(&mut self, entries: &[Entry]) {
        let (last_position, last_stamp) = (Position(self.last), Stamp(self.last));
        self.engine.commit(Batch { entries, last_position, last_stamp }).unwrap();
    }
}

fn limits(unarchived: usize) -> Limits {
    Limits { unarchived_bytes: unarchived as u64, free_bytes: Some(0), ..Limits::default() }
}

/// Returns the files of segments there are, spares and all, and their bytes. One may be renamed or removed between two looks.
fn segments(path: &std::path::Path) -> (usize, u64) {
    let files = std::fs::read_dir(path.join("journal")).unwrap().map(Result::unwrap);
    let segments = files.filter(|file| file.file_name().to_string_lossy().ends_with(".segment"));
    let sizes = segments.filter_map(|file| file.metadata().ok());
    sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size.len()))
}

#[test]
fn segments_wait_for_the_archive_and_are_recycled_when_it_has_them() {
    /// What fills more than twenty segments of 16 MiB.
    const BYTES: usize = 330 * MIB;
    /// One that is written, a spare made ahead, and spares that are kept.
    const LEFT_MAX: usize = 18;
    let directory = TempDir::new().unwrap();
    let mut sending = Sending::open(directory.path(), Position::ZERO, Limits::default());
    let archive = ArchiveDouble::read_along(&sending.engine, None);
    for _ in 0..BYTES / (10 * MIB) {
        sending.send(10 * MIB);
        sending.acknowledge();
    }
    sending.engine.settle().unwrap();
    archive.takes(sending.last as usize);
    let (count, bytes) = segments(directory.path());
    assert!(bytes >= BYTES as u64, "{count} segments of {bytes} bytes are left before it was archived");
    assert!(sending.metrics.outbox.unarchived_bytes.get() >= BYTES as i64);

    archive.set_delay(Some(Duration::from_millis(20)));
    wait_until("segments to be recycled", || segments(directory.path()).0 <= LEFT_MAX);
    wait_until("the figures", || {
        let outbox = &sending.metrics.outbox;
        outbox.unarchived_bytes.get() == 0 && outbox.journal_bytes.get() < bytes as i64
    });
    assert_eq!(archive.taken(), (1..=sending.last).collect::<Vec<_>>(), "in order, each once");
}

#[test]
fn an_archive_that_is_behind_makes_it_tight_then_full_and_open_again_when_it_has_caught_up() {
    let directory = TempDir::new().unwrap();
    let mut sending = Sending::open(directory.path(), Position::ZERO, limits(8 * MIB));
    let is_backed_up = sending.engine.back_pressure();
    let archive = ArchiveDouble::read_along(&sending.engine, None);
    sending.send(3 * MIB);
    sending.acknowledge();
    assert_eq!(sending.engine.room(), Room::Open);
    sending.send(2 * MIB);
    assert!(matches!(sending.engine.room(), Room::Tight { .. }), "{:?}", sending.engine.room());
    assert!(!is_backed_up());
    sending.send(4 * MIB);
    sending.acknowledge();
    // That all of it is settled helps nothing.
    sending.engine.settle().unwrap();
    archive.takes(sending.last as usize);
    assert!(matches!(sending.engine.room(), Room::Full { .. }), "{:?}", sending.engine.room());
    assert!(is_backed_up());

    // Nobody sends while it is full: that there is room is seen without.
    archive.set_delay(Some(Duration::ZERO));
    wait_until("room", || sending.engine.room() == Room::Open);
    assert!(!is_backed_up());
}

#[test]
fn a_restart_with_the_archive_behind_hands_out_again_what_was_not_archived() {
    for is_settled in [false, true] {
        let directory = TempDir::new().unwrap();
        let mut sending = Sending::open(directory.path(), Position::ZERO, limits(8 * MIB));
        let archive = ArchiveDouble::read_along(&sending.engine, Some(Duration::ZERO));
        for _ in 0..10 {
            sending.send(64 * 1024);
        }
        wait_until("the archive", || archive.archived() == Position(20));
        archive.set_delay(None);
        for _ in 0..50 {
            sending.send(128 * 1024);
        }
        archive.takes(220);
        let archived = archive.archived();
        assert_eq!(archived, Position(20));
        if is_settled {
            // Neither a spill nor an acknowledgement takes it from the archive.
            sending.engine.settle().unwrap();
            sending.acknowledge();
            sending.engine.settle().unwrap();
        }
        assert_eq!(archive.taken(), (1..=220).collect::<Vec<_>>());
        drop((archive, sending));

        let mut sending = Sending::open(directory.path(), archived, limits(8 * MIB));
        assert!(matches!(sending.engine.room(), Room::Tight { .. }), "settled {is_settled}");
        let archive = ArchiveDouble::read_along(&sending.engine, Some(Duration::from_millis(20)));
        sending.send(32 * 1024);
        wait_until("room", || sending.engine.room() == Room::Open);
        archive.takes(201);
        assert_eq!(archive.taken(), (21..=221).collect::<Vec<_>>(), "settled {is_settled}");
    }
}

#[test]
fn what_is_spilled_is_still_read_by_the_archive() {
    let directory = TempDir::new().unwrap();
    let mut sending = Sending::open(directory.path(), Position::ZERO, Limits::default());
    for _ in 0..5 {
        sending.send(64 * 1024);
        sending.engine.settle().unwrap();
    }
    assert_eq!(sending.metrics.outbox.unsettled_bytes.get(), 0);
    let archive = ArchiveDouble::read_along(&sending.engine, None);
    archive.takes(10);
    assert_eq!(archive.taken(), (1..=10).collect::<Vec<_>>());
}
