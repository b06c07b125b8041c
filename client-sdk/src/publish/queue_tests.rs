//! The queue against hand-written scenes and against a model of a server that refuses, forgets and is cut off.

use proptest::prelude::*;
use quail_protocol::limits::FRAME_BYTES_MAX;

use super::*;

const ROOM: usize = 1 << 20;

fn message(number: u64) -> Outgoing {
    Outgoing {
        id: MessageId((number as u128).to_be_bytes()),
        recipient: AccountId([7; 16]),
        kind: 1,
        body: Bytes::from(number.to_string()),
        extra: Bytes::new(),
    }
}

fn queue(numbers: std::ops::RangeInclusive<u64>) -> Queue<()> {
    let mut queue = Queue::new();
    queue.tried(u64::MAX);
    numbers.for_each(|number| queue.push(number, message(number), ()));
    queue
}

/// What a lane would write now: numbers of sends, zero for a restart.
fn write(queue: &mut Queue<()>, now: Instant) -> Vec<u64> {
    let mut buffer = BytesMut::new();
    queue.fill(&mut buffer, ROOM, 0, now);
    let mut written = Vec::new();
    while let Some(up) = frame::decode::<v1::PublishUp>(&mut buffer, FRAME_BYTES_MAX).unwrap() {
        match up.frame.unwrap() {
            publish_up::Frame::Restart(_) => written.push(0),
            publish_up::Frame::Send(send) => {
                assert_eq!(
                    send.id,
                    message(send.number).id.to_bytes(),
                    "an id belongs to its number for ever"
                );
                written.push(send.number);
            }
        }
    }
    written
}

#[test]
fn a_new_lane_writes_everything_unanswered_again_in_order() {
    let now = Instant::now();
    let mut queue = queue(1..=3);
    assert_eq!(write(&mut queue, now), [1, 2, 3]);
    queue.decided(1).unwrap();
    queue.lane_opened();
    queue.push(4, message(4), ());
    let mut buffer = BytesMut::new();
    let (filled, next) = queue.fill(&mut buffer, ROOM, 0, now);
    assert_eq!((filled, next), (Filled { sends: 3, resent: 2 }, Next::Wait));
}

#[test]
fn no_more_than_the_window_is_unanswered() {
    let now = Instant::now();
    let mut queue = queue(1..=300);
    assert_eq!(write(&mut queue, now).len(), SENDS_UNANSWERED_MAX);
    assert!(write(&mut queue, now).is_empty());
    queue.decided(1).unwrap();
    assert_eq!(write(&mut queue, now), [SENDS_UNANSWERED_MAX as u64 + 1]);
    queue.lane_opened();
    queue.limit_window(10);
    assert_eq!(write(&mut queue, now).len(), 10);
}

#[test]
fn a_buffer_is_filled_in_pieces() {
    let mut queue = queue(1..=10);
    let mut buffer = BytesMut::new();
    let (filled, next) = queue.fill(&mut buffer, 100, 0, Instant::now());
    assert!(filled.sends > 0 && filled.sends < 10);
    assert_eq!(next, Next::Write);
}

#[test]
fn after_a_refusal_all_goes_on_from_the_refused_one_after_the_pause() {
    let now = Instant::now();
    let mut queue = queue(1..=3);
    write(&mut queue, now);
    queue.decided(1).unwrap();
    let advice = Duration::from_millis(40);
    queue.refused_for_now(2, Some(advice), now, 0.0).unwrap();
    queue.push(4, message(4), ());
    assert_eq!(write(&mut queue, now + advice), [0_u64; 0], "an answer is still to come");
    queue.refused_for_now(3, None, now, 1.0).unwrap();
    let mut buffer = BytesMut::new();
    assert_eq!(queue.fill(&mut buffer, ROOM, 0, now).1, Next::Pause(now + advice));
    assert_eq!(write(&mut queue, now + advice), [0, 2, 3, 4]);
    queue.decided(2).unwrap();
}

#[test]
fn a_send_decided_while_others_are_refused_is_not_sent_again() {
    let now = Instant::now();
    let mut queue = queue(1..=3);
    write(&mut queue, now);
    queue.refused_for_now(1, Some(Duration::from_millis(1)), now, 0.0).unwrap();
    queue.decided(2).unwrap();
    queue.refused_for_now(3, None, now, 0.0).unwrap();
    assert_eq!(write(&mut queue, now + Duration::from_secs(1)), [0, 1, 3]);
}

#[test]
fn a_reconnect_is_no_way_around_a_pause() {
    let now = Instant::now();
    let mut queue = queue(1..=1);
    write(&mut queue, now);
    queue.refused_for_now(1, Some(Duration::from_secs(9)), now, 0.0).unwrap();
    queue.lane_opened();
    assert_eq!(write(&mut queue, now), [0_u64; 0]);
    assert_eq!(write(&mut queue, now + Duration::from_secs(9)), [1], "a new lane needs no restart");
}

#[test]
fn refusals_without_advice_back_off() {
    let mut now = Instant::now();
    let mut queue = queue(1..=1);
    let mut pauses = Vec::new();
    for _ in 0..3 {
        write(&mut queue, now);
        queue.refused_for_now(1, None, now, 1.0).unwrap();
        let mut buffer = BytesMut::new();
        let (_, Next::Pause(until)) = queue.fill(&mut buffer, ROOM, 0, now) else { panic!("no pause") };
        pauses.push(until - now);
        now = until;
    }
    assert_eq!(pauses, [100, 200, 400].map(Duration::from_millis));
}

#[test]
fn answers_out_of_order_or_to_nothing_are_the_servers_fault() {
    let mut queue = queue(1..=3);
    assert_eq!(
        queue.decided(1).unwrap_err(),
        OutOfOrder { expected: None, got: 1 },
        "it was not written yet"
    );
    write(&mut queue, Instant::now());
    assert_eq!(queue.decided(2).unwrap_err(), OutOfOrder { expected: Some(1), got: 2 });
    assert!(queue.refused_for_now(3, None, Instant::now(), 0.0).is_err());
}

#[test]
fn nothing_is_written_before_it_is_committed_as_tried() {
    let now = Instant::now();
    let mut queue = Queue::new();
    (1..=600).for_each(|number| queue.push(number, message(number), ()));
    assert_eq!(write(&mut queue, now), [0_u64; 0]);
    assert_eq!(queue.try_more(), Some(2 * SENDS_UNANSWERED_MAX as u64));
    assert_eq!(write(&mut queue, now), [0_u64; 0], "it is only about to be committed");
    assert_eq!(queue.try_more(), None);
    queue.tried(3);
    assert_eq!(write(&mut queue, now), [1, 2, 3]);
}

#[test]
fn answers_that_are_not_committed_count_as_unanswered() {
    let now = Instant::now();
    let mut queue = queue(1..=300);
    write(&mut queue, now);
    queue.decided(1).unwrap();
    queue.settling(1);
    assert_eq!(write(&mut queue, now), [0_u64; 0]);
    queue.settled(1);
    assert_eq!(write(&mut queue, now), [SENDS_UNANSWERED_MAX as u64 + 1]);
}

#[test]
fn only_what_was_not_tried_can_be_changed() {
    let mut queue = Queue::new();
    (1..=3).for_each(|number| queue.push(number, message(number), ()));
    queue.tried(2);
    assert_eq!(queue.unwritten(message(2).id).unwrap_err(), Fixed::OnItsWay);
    assert_eq!(queue.unwritten(message(9).id).unwrap_err(), Fixed::Unknown);
    assert_eq!(queue.cancel(message(3).id).unwrap().number, 3);
    queue.push(4, message(4), ());
    queue.tried(4);
    assert_eq!(write(&mut queue, Instant::now()), [1, 2, 4], "a cancelled number is a hole");
}

#[test]
fn a_send_with_a_new_number_is_the_last_and_still_the_oldest() {
    let now = Instant::now();
    let mut queue = queue(1..=2);
    write(&mut queue, now);
    let passed = queue.decided(1).unwrap();
    queue.push_again(3, passed);
    assert_eq!(queue.first_number(), Some(1));
    let mut buffer = BytesMut::new();
    queue.fill(&mut buffer, ROOM, 0, now);
    queue.decided(2).unwrap();
    assert_eq!((queue.first_number(), queue.decided(3).unwrap().renumbered), (Some(1), 1));
    assert_eq!(queue.first_number(), None);
}

/// What happens next in the model.
#[derive(Clone, Debug)]
enum Step {
    Push,
    Write,
    /// The server reads and answers so many frames, possibly refusing the first for now.
    Serve {
        frames: usize,
        refuse: bool,
    },
    /// The client reads so many answers.
    Read(usize),
    Cut,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Push),
        3 => Just(Step::Write),
        3 => (1..6_usize, any::<bool>()).prop_map(|(frames, refuse)| Step::Serve { frames, refuse }),
        3 => (1..6_usize).prop_map(Step::Read),
        1 => Just(Step::Cut),
        1 => (1..200_u64).prop_map(Step::Pass),
    ]
}

#[derive(Debug, PartialEq)]
enum Answer {
    Decided(u64),
    ForNow(u64),
}

/// A server: what it decided, for ever; what is on the wire and whether it refuses, per connection.
#[derive(Default)]
struct Server {
    decided: Vec<u64>,
    inbound: VecDeque<u64>,
    answers: VecDeque<Answer>,
    after_refused: bool,
}

impl Server {
    fn serve(&mut self, refuse: bool) {
        let Some(number) = self.inbound.pop_front() else {
            return;
        };
        if number == 0 {
            assert!(self.after_refused, "a restart comes only after a refusal");
            self.after_refused = false;
        } else if self.after_refused || refuse {
            self.after_refused = true;
            self.answers.push_back(Answer::ForNow(number));
        } else {
            if !self.decided.contains(&number) {
                let last = self.decided.last().copied().unwrap_or(0);
                assert_eq!(number, last + 1, "sends are decided in order and none is passed over");
                self.decided.push(number);
            }
            self.answers.push_back(Answer::Decided(number));
        }
    }
}

proptest! {
    #[test]
    fn every_send_is_decided_once_and_in_order_whatever_happens(steps in prop::collection::vec(step(), 1..200)) {
        let mut now = Instant::now();
        let mut queue = Queue::new();
        queue.tried(u64::MAX);
        let mut server = Server::default();
        let (mut pushed, mut resolved) = (0, Vec::new());
        let finish = [Step::Cut, Step::Pass(400_000), Step::Write];
        let wind_up = (0..=steps.len()).flat_map(|_| {
            [Step::Serve { frames: 999, refuse: false }, Step::Read(999), Step::Pass(400_000), Step::Write]
        });
        for step in steps.iter().cloned().chain(finish).chain(wind_up) {
            match step {
                Step::Push => {
                    pushed += 1;
                    queue.push(pushed, message(pushed), ());
                }
                Step::Write => server.inbound.extend(write(&mut queue, now)),
                Step::Serve { frames, refuse } => {
                    (0..frames).for_each(|index| server.serve(refuse && index == 0));
                }
                Step::Read(count) => {
                    for answer in server.answers.drain(..count.min(server.answers.len())) {
                        match answer {
                            Answer::Decided(number) => resolved.push(queue.decided(number).unwrap().number),
                            Answer::ForNow(number) => queue.refused_for_now(number, None, now, 1.0).unwrap(),
                        }
                    }
                }
                Step::Cut => {
                    server = Server { decided: std::mem::take(&mut server.decided), ..Server::default() };
                    queue.lane_opened();
                }
                Step::Pass(ms) => now += Duration::from_millis(ms),
            }
            prop_assert!(server.inbound.len() + server.answers.len() <= SENDS_UNANSWERED_MAX + 1);
        }
        let all: Vec<_> = (1..=pushed).collect();
        prop_assert_eq!(&server.decided, &all);
        prop_assert_eq!(&resolved, &all);
        prop_assert_eq!(queue.len(), 0);
    }
}
