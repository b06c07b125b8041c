//! What the application has in hand, over processes: how often an event was handed out, and how many processes died with it.
//!
//! Committing before each event that it is handed out would cost a disk sync per event. So events that arrive together are
//! committed together, as in hand, before the first of them is handed out: if the process dies, all of them count one death,
//! because nobody knows which. After that the later processes are careful with those: each is committed as in hand by itself,
//! when the application is about to be given it. An innocent one that only waited behind a deadly one therefore stays at
//! one death, and the deadly one comes to three.
//!
//! What a program holds for long is not what it dies of: systems end programs whenever they like, with whatever they hold. So
//! an event that the process has survived for a minute is out of suspicion.
//!
//! Invariants: the attempts that are committed are never fewer than those that were handed out; a death is counted only
//! for what was committed as in hand and neither acknowledged nor released.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use quail_protocol::id::{Origin, Position};

use crate::store::{FeedChange, Hand, Place, Standing};

/// An event is given up when so many processes died with it in hand.
pub(crate) const DEATHS_MAX: u32 = 3;

/// How long after it was given to the application an event may be what the process dies of.
pub(crate) const SUSPECT_FOR: Duration = Duration::from_secs(60);

/// Most events of which something is known; of those of other processes the first makes room. A server writes a window of
/// 256 and what follows as it is acknowledged out of order ([`PENDING_EVENTS_MAX`](super::inbox::PENDING_EVENTS_MAX)), so
/// only origins that never come back fill this.
const HANDS_MAX: usize = 8192;

/// What is known of events that no cursor has passed.
#[derive(Debug, Default)]
pub(super) struct Hands {
    hands: BTreeMap<Place, Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    hand: Hand,
    /// It was offered by this process.
    is_offered: bool,
    /// When it came in hand.
    since: Option<Instant>,
}

/// How an event is to be handed out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    /// How often it was handed out, this time included.
    pub(crate) attempt: u32,
    /// Too many died of it.
    pub(crate) gives_up: bool,
    /// It is committed as in hand only when the application is about to be given it.
    pub(crate) is_careful: bool,
}

impl Offer {
    fn of(hand: &Hand) -> Self {
        let gives_up = hand.deaths >= DEATHS_MAX;
        let is_careful = hand.standing == Standing::Released && !gives_up;
        Self { attempt: hand.attempts.max(1), gives_up, is_careful }
    }
}

impl Hands {
    /// Goes on after another process: what that one had in hand when it ended may have ended it.
    pub(super) fn restore(hands: BTreeMap<Place, Hand>) -> Self {
        let known = |mut hand: Hand| {
            if hand.standing == Standing::InHand {
                hand.standing = Standing::Released;
                hand.deaths = hand.deaths.saturating_add(1);
            }
            Known { hand, is_offered: false, since: None }
        };
        Self { hands: hands.into_iter().map(|(place, hand)| (place, known(hand))).collect() }
    }

    /// Notes that an event is about to be handed out by this process. Returns what is to be committed before as well.
    pub(super) fn offer(&mut self, place: Place, now: Instant) -> (Offer, Vec<FeedChange>) {
        let mut changes = Vec::new();
        if self.hands.len() >= HANDS_MAX && !self.hands.contains_key(&place) {
            changes.extend(self.make_room());
        }
        let unknown = Hand { attempts: 0, deaths: 0, standing: Standing::Released };
        let known =
            self.hands.entry(place).or_insert(Known { hand: unknown, is_offered: false, since: None });
        if !known.is_offered {
            known.is_offered = true;
            known.hand.attempts = known.hand.attempts.saturating_add(1);
            if known.hand.deaths == 0 {
                known.hand.standing = Standing::InHand;
                known.since = Some(now);
            }
            changes.push(FeedChange::Hand(place, known.hand));
        }
        (Offer::of(&known.hand), changes)
    }

    /// Returns how an event is handed out that was offered.
    pub(super) fn offered(&self, place: Place) -> Offer {
        let first = || Offer { attempt: 1, ..Offer::default() };
        self.hands.get(&place).map_or_else(first, |known| Offer::of(&known.hand))
    }

    /// The application is about to be given an event that was offered carefully.
    pub(super) fn take(&mut self, place: Place, now: Instant) -> Option<FeedChange> {
        let change = self.stand(place, Standing::Released, Standing::InHand)?;
        if let Some(known) = self.hands.get_mut(&place) {
            known.since = Some(now);
        }
        Some(change)
    }

    /// Takes out of suspicion what the process has survived.
    pub(super) fn release_old(&mut self, now: Instant) -> Vec<FeedChange> {
        let is_old = |known: &Known| known.since.is_some_and(|since| since + SUSPECT_FOR <= now);
        let old = self.hands.iter().filter(|(_, known)| is_old(known));
        let places: Vec<_> = old.map(|(place, _)| *place).collect();
        places.into_iter().filter_map(|place| self.release(place)).collect()
    }

    /// The application let go of an event.
    pub(super) fn release(&mut self, place: Place) -> Option<FeedChange> {
        self.stand(place, Standing::InHand, Standing::Released)
    }

    /// The application let go of everything.
    pub(super) fn release_all(&mut self) -> Vec<FeedChange> {
        let places: Vec<_> = self.hands.keys().copied().collect();
        places.into_iter().filter_map(|place| self.release(place)).collect()
    }

    /// The application acknowledged an event; what is before it may be missing.
    pub(super) fn done(&mut self, place: Place) -> Option<FeedChange> {
        let known = self.hands.get_mut(&place)?;
        known.hand.standing = Standing::Done;
        Some(FeedChange::Hand(place, known.hand))
    }

    pub(super) fn is_done(&self, place: Place) -> bool {
        self.hands.get(&place).is_some_and(|known| known.hand.standing == Standing::Done)
    }

    /// Forgets what a cursor has passed, and returns it.
    pub(super) fn passed(&mut self, origin: Origin, cursor: Position) -> Vec<Place> {
        // One after the other: a look at all of them would cost a whole window per acknowledgement. Most devices have one origin,
        // and what a cursor passes lies in front.
        let mut places = Vec::new();
        while let Some(first) = self.hands.first_entry()
            && first.key().0 == origin
            && first.key().1 <= cursor
        {
            places.push(first.remove_entry().0);
        }
        while self.hands.first_key_value().is_some_and(|(first, _)| first.0 < origin)
            && let Some((place, _)) = self.hands.range((origin, Position::ZERO)..=(origin, cursor)).next()
        {
            let place = *place;
            self.hands.remove(&place);
            places.push(place);
        }
        places
    }

    fn stand(&mut self, place: Place, from: Standing, to: Standing) -> Option<FeedChange> {
        let known = self.hands.get_mut(&place).filter(|known| known.hand.standing == from)?;
        known.hand.standing = to;
        Some(FeedChange::Hand(place, known.hand))
    }

    fn make_room(&mut self) -> Option<FeedChange> {
        if self.hands.len() < HANDS_MAX {
            return None;
        }
        let oldest = self.hands.iter().find(|(_, known)| !known.is_offered).map(|(place, _)| *place)?;
        self.hands.remove(&oldest);
        Some(FeedChange::HandGone(oldest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLY: Place = (Origin(1), Position(5));
    const BEHIND: Place = (Origin(1), Position(6));

    fn now() -> Instant {
        Instant::now()
    }

    /// What a process leaves when it dies.
    fn died(hands: Hands) -> Hands {
        Hands::restore(hands.hands.into_iter().map(|(place, known)| (place, known.hand)).collect())
    }

    #[test]
    fn what_three_processes_died_with_is_given_up_and_what_waited_behind_it_is_not() {
        let mut hands = Hands::default();
        for attempt in 1..=3 {
            let (deadly, behind) = (hands.offer(DEADLY, now()).0, hands.offer(BEHIND, now()).0);
            assert_eq!((deadly.attempt, deadly.gives_up, behind.attempt), (attempt, false, attempt));
            assert_eq!(deadly.is_careful, attempt > 1);
            assert_eq!(hands.take(DEADLY, now()).is_some(), attempt > 1);
            hands = died(hands);
        }
        assert!(hands.offer(DEADLY, now()).0.gives_up);
        let behind = hands.offer(BEHIND, now()).0;
        assert!(!behind.gives_up && behind.attempt == 4);
    }

    #[test]
    fn what_was_released_is_not_what_the_process_died_of() {
        let mut hands = Hands::default();
        for attempt in 1..=9 {
            assert_eq!(hands.offer(DEADLY, now()).0.attempt, attempt);
            hands.release_all();
            hands = died(hands);
        }
        assert!(!hands.offer(DEADLY, now()).0.gives_up);
    }

    #[test]
    fn what_a_process_survived_for_long_is_not_what_it_died_of() {
        let mut hands = Hands::default();
        for life in 1..=9 {
            let now = now();
            let (offer, _) = hands.offer(DEADLY, now);
            assert_eq!((offer.attempt, offer.is_careful), (life, false), "nobody died of it");
            assert_eq!(hands.release_old(now + SUSPECT_FOR / 2), []);
            assert_eq!(hands.release_old(now + SUSPECT_FOR).len(), 1);
            assert_eq!(hands.release_old(now + SUSPECT_FOR), []);
            hands = died(hands);
        }
    }

    #[test]
    fn an_event_is_offered_once_per_process() {
        let mut hands = Hands::default();
        assert_eq!(hands.offer(DEADLY, now()).1.len(), 1);
        assert_eq!(hands.offer(DEADLY, now()).1, []);
        assert_eq!(hands.passed(Origin(1), Position(5)), [DEADLY]);
        assert_eq!(hands.offer(DEADLY, now()).0.attempt, 1);
    }

    #[test]
    fn a_process_that_dies_before_it_handed_anything_out_counts_no_death() {
        let mut hands = Hands::default();
        hands.offer(DEADLY, now());
        for _ in 0..9 {
            hands = died(hands);
        }
        assert!(!hands.offer(DEADLY, now()).0.gives_up);
    }

    #[test]
    fn what_is_known_is_bounded_in_memory_and_in_the_store() {
        let old = |position| (Origin(9), Position(position));
        let left = Hand { attempts: 1, deaths: 0, standing: Standing::Released };
        let mut hands = Hands::restore((1..=HANDS_MAX as u64).map(|at| (old(at), left)).collect());
        let (_, changes) = hands.offer(DEADLY, now());
        assert_eq!(changes[0], FeedChange::HandGone(old(1)));
        assert_eq!((changes.len(), hands.hands.len()), (2, HANDS_MAX));
    }
}
