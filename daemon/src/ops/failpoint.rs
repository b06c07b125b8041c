//! Fail points: named places at which a test lets the process die.
//!
//! Without the feature `failpoints` there is nothing of them in the program. With it, `QUAIL_FAILPOINT=name` or `name:3` kills
//! the process the first or third time it reaches the place of that name, as abruptly as `kill -9`: no destructor runs, no
//! buffer is written. The daemon itself refuses to be built with the feature; `quaild-failpoints` is for tests.
//!
//! What takes long or much by nature a test may ask to come sooner, through [`setting`], and what is over too soon to be looked at
//! it may keep waiting, through [`is_held`].

/// Every fail point. A test goes through the list, so a place that is not in it does not exist.
pub const NAMES: &[&str] = &[
    "journal-before-write",
    "journal-written",
    "journal-synced",
    "journal-segment-begun",
    "journal-replayed",
    "journal-copied",
    "journal-epoch-switched",
    "journal-recycled",
    "spill-frozen",
    "settled-chunk-written",
    "settled-deleted",
    "settled-before-mark",
    "settled-marked",
    "settled-rotate-copied",
    "settled-rotate-switched",
    "spill-released",
];

/// Dies here if a test asked for it.
#[cfg(feature = "failpoints")]
pub fn reached(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// The place and how often it may still be passed.
    static ASKED: OnceLock<Option<(String, AtomicU32)>> = OnceLock::new();
    debug_assert!(NAMES.contains(&name));
    let asked = ASKED.get_or_init(|| {
        let asked = std::env::var("QUAIL_FAILPOINT").ok()?;
        let (place, count) = asked.split_once(':').unwrap_or((&asked, "1"));
        Some((place.to_owned(), AtomicU32::new(count.parse().unwrap_or(1))))
    });
    if let Some((place, left)) = asked
        && place == name
        && left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        // What SIGKILL does, from inside: nothing of ours runs after it.
        std::process::abort();
    }
}

/// Does nothing: the feature is off.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reached(_name: &'static str) {}

/// Returns the number in an environment variable, where a test set it, instead of what is `usual`: how long something waits,
/// or how large it grows.
#[cfg(any(test, feature = "failpoints"))]
pub fn setting(variable: &'static str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(usual)
}

/// Returns what is `usual`: the feature is off.
#[cfg(not(any(test, feature = "failpoints")))]
#[inline(always)]
pub fn setting(_variable: &'static str, usual: u64) -> u64 {
    usual
}

/// Returns whether a test keeps something waiting: while the file exists whose path is in an environment variable.
#[cfg(feature = "failpoints")]
pub fn is_held(variable: &'static str) -> bool {
    std::env::var_os(variable).is_some_and(|path| std::path::Path::new(&path).exists())
}

/// Returns that nothing is kept waiting: the feature is off.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn is_held(_variable: &'static str) -> bool {
    false
}
