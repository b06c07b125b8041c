//! Every rule has a log that breaks it and nothing else; and a log that breaks none is found good.

use quail_protocol::id::{AccountId, DeviceId, MessageId, Origin, Position, Stamp};

use super::{Entry, Judge, Key, Place, ReceiptKind, Terms, Violation, What, judge};

const ADA: AccountId = AccountId([0xa; 16]);
const BOB: AccountId = AccountId([0xb; 16]);
const CYD: AccountId = AccountId([0xc; 16]);
const ADA_PHONE: DeviceId = DeviceId([0xa1; 16]);
const ADA_TABLET: DeviceId = DeviceId([0xa2; 16]);
const BOB_PHONE: DeviceId = DeviceId([0xb1; 16]);
const BOB_TABLET: DeviceId = DeviceId([0xb2; 16]);
const CYD_PHONE: DeviceId = DeviceId([0xc1; 16]);

const STRICT: Terms = Terms { gaps: false, receipts: true };

/// A log being written. Messages have numbers, and stand at ten times their number unless told otherwise.
#[derive(Default)]
struct Log(Vec<Entry>);

fn id(number: u8) -> MessageId {
    MessageId([number; 16])
}

fn place(position: u64) -> Place {
    Place { origin: Origin(1), position: Position(position), stamp: Stamp(100 + position) }
}

fn ada(number: u8) -> Key {
    Key { sender: ADA, id: id(number) }
}

fn at(number: u8) -> Place {
    place(10 * u64::from(number))
}

impl Log {
    fn note(mut self, device: DeviceId, what: What) -> Self {
        self.0.push(Entry { device, what });
        self
    }

    /// Ada has two devices and Bob has two.
    fn begin() -> Self {
        Self::default()
            .note(ADA_PHONE, What::Joined { account: ADA })
            .note(ADA_TABLET, What::Joined { account: ADA })
            .note(BOB_PHONE, What::Joined { account: BOB })
            .note(BOB_TABLET, What::Joined { account: BOB })
    }

    fn sent(self, number: u8) -> Self {
        self.note(ADA_PHONE, What::Sent { id: id(number), to: vec![BOB], body: number.into() })
    }

    fn accepted(self, number: u8) -> Self {
        self.accepted_at(number, at(number))
    }

    fn accepted_at(self, number: u8, place: Place) -> Self {
        self.note(ADA_PHONE, What::Accepted { id: id(number), place })
    }

    fn shown(self, device: DeviceId, number: u8) -> Self {
        self.shown_at(device, number, at(number))
    }

    fn shown_at(self, device: DeviceId, number: u8, place: Place) -> Self {
        self.note(device, What::Shown { message: ada(number), body: number.into(), place })
    }

    fn acknowledged(self, device: DeviceId, number: u8) -> Self {
        self.note(device, What::Acknowledged { message: ada(number) })
    }

    fn read(self, device: DeviceId, number: u8) -> Self {
        self.note(device, What::Read { message: ada(number) })
    }

    fn receipt(self, number: u8, kind: ReceiptKind) -> Self {
        self.note(ADA_PHONE, What::Receipt { id: id(number), reader: BOB, kind })
    }

    /// A message that goes its whole way.
    fn whole(self, number: u8) -> Self {
        self.whole_at(number, at(number))
    }

    fn whole_at(self, number: u8, place: Place) -> Self {
        let devices = [BOB_PHONE, BOB_TABLET, ADA_TABLET];
        let sent = self.sent(number).accepted_at(number, place);
        let arrives = |log: Self, device| log.shown_at(device, number, place).acknowledged(device, number);
        devices.into_iter().fold(sent, arrives).receipt(number, ReceiptKind::Delivered)
    }

    /// All but what Bob's tablet does.
    fn but_for_the_tablet(self, number: u8) -> Self {
        self.sent(number)
            .accepted(number)
            .shown(ADA_TABLET, number)
            .shown(BOB_PHONE, number)
            .acknowledged(BOB_PHONE, number)
            .receipt(number, ReceiptKind::Delivered)
    }

    #[track_caller]
    fn breaks(self, violations: &[Violation]) {
        self.breaks_under(STRICT, violations);
    }

    #[track_caller]
    fn breaks_under(self, terms: Terms, violations: &[Violation]) {
        assert_eq!(judge(&self.0, terms), violations);
        self.breaks_when_forgetting(terms, violations);
    }

    /// Who forgets finds the same, but for what it would need to know of the message: where it stood and who was to get it.
    #[track_caller]
    fn breaks_when_forgetting(&self, terms: Terms, violations: &[Violation]) {
        let is_of_reading = |entry: &Entry| {
            matches!(
                entry.what,
                What::Read { .. }
                    | What::ReadInSecret { .. }
                    | What::ReadTaken { .. }
                    | What::ReadElsewhere { .. }
                    | What::OriginEnded { .. }
            )
        };
        if self.0.iter().any(is_of_reading) {
            return;
        }
        let mut judge = Judge::new(terms);
        for entry in &self.0 {
            judge.read(entry);
            judge.forget_settled();
        }
        let found = judge.finish();
        let needs_more = |broken: &Violation| {
            matches!(
                broken,
                Violation::TwoPlaces { .. } | Violation::SharedPlace { .. } | Violation::Stranger { .. }
            )
        };
        if !violations.iter().any(needs_more) {
            assert_eq!(found, violations);
        }
    }
}

#[test]
fn a_run_that_keeps_every_promise_is_found_good() {
    Log::begin().whole(1).whole(2).read(BOB_TABLET, 2).receipt(2, ReceiptKind::Read).breaks(&[]);
}

#[test]
fn what_was_accepted_and_not_shown_is_lost() {
    Log::begin().but_for_the_tablet(1).breaks(&[Violation::Lost { message: ada(1), device: BOB_TABLET }]);
}

#[test]
fn what_one_device_showed_is_lost_for_the_others_even_if_its_sender_never_learnt() {
    Log::begin().sent(1).shown(BOB_PHONE, 1).breaks(&[
        Violation::Unanswered { message: ada(1) },
        Violation::Lost { message: ada(1), device: ADA_TABLET },
        Violation::Lost { message: ada(1), device: BOB_TABLET },
    ]);
}

#[test]
fn nothing_is_owed_to_who_left_or_came_later_or_was_told_of_a_gap() {
    Log::begin().but_for_the_tablet(1).note(BOB_TABLET, What::Left).breaks(&[]);
    let late = What::Joined { account: BOB };
    Log::begin().whole(1).note(DeviceId([0xb3; 16]), late).breaks(&[]);
    let gap = What::Gap { origin: Origin(1), from: Position(1), upto: Position(10) };
    let terms = Terms { gaps: true, ..STRICT };
    Log::begin().but_for_the_tablet(1).note(BOB_TABLET, gap).breaks_under(terms, &[]);
}

#[test]
fn what_was_sent_before_the_server_knew_a_device_is_owed_to_it_if_stored_after() {
    let (late, account) = (DeviceId([0xb3; 16]), BOB);
    for (above, is_owed) in [(9, true), (10, false)] {
        let known = What::Known { origin: Origin(1), above: Position(above) };
        let log = Log::begin().sent(1).note(late, What::Joined { account }).note(late, known).whole(1);
        let lost = Violation::Lost { message: ada(1), device: late };
        log.breaks(if is_owed { std::slice::from_ref(&lost) } else { &[] });
    }
}

#[test]
fn the_next_device_of_an_account_without_devices_inherits_what_nobody_took() {
    let (heir, account) = (DeviceId([0xb3; 16]), BOB);
    let left = |log: Log| log.note(BOB_PHONE, What::Left).note(BOB_TABLET, What::Left);
    let lost = |number| Violation::Lost { message: ada(number), device: heir };
    let alone = |number: u8| {
        move |log: Log| {
            log.sent(number).accepted(number).shown(ADA_TABLET, number).acknowledged(ADA_TABLET, number)
        }
    };
    let joins = |log: Log| log.note(heir, What::Joined { account });
    // What came while there was no device, and what the last one had not acknowledged.
    joins(alone(1)(left(Log::begin()))).breaks(&[lost(1)]);
    let untaken = Log::begin().but_for_the_tablet(1);
    joins(left(untaken)).breaks(&[lost(1)]);
    // Not what the last one took, nor what is there for another device.
    joins(left(Log::begin().whole(1))).breaks(&[]);
    joins(Log::begin().but_for_the_tablet(1).note(BOB_TABLET, What::Left)).breaks(&[]);
    let gap = What::Gap { origin: Origin(1), from: Position(1), upto: Position(10) };
    let told = joins(left(Log::begin().but_for_the_tablet(1).note(BOB_TABLET, gap)));
    told.breaks_under(Terms { gaps: true, ..STRICT }, &[]);
    // The first device of an account has all of its mail.
    let first = What::Joined { account: CYD };
    let to_cyd = What::Sent { id: id(1), to: vec![CYD], body: 1 };
    let log = Log::begin().note(ADA_PHONE, to_cyd).accepted(1).shown(ADA_TABLET, 1).note(CYD_PHONE, first);
    log.breaks(&[Violation::Lost { message: ada(1), device: CYD_PHONE }]);
}

#[test]
fn a_gap_covers_only_its_stretch_of_its_origin() {
    for (origin, from) in [(1, 1), (1, 11), (2, 10)] {
        let (origin, from, upto) = (Origin(origin), Position(from), Position(from + 8));
        let log = Log::begin().but_for_the_tablet(1).note(BOB_TABLET, What::Gap { origin, from, upto });
        let lost = Violation::Lost { message: ada(1), device: BOB_TABLET };
        log.breaks_under(Terms { gaps: true, ..STRICT }, &[lost]);
    }
}

#[test]
fn a_gap_where_none_may_be_is_named() {
    let (device, origin, from, upto) = (BOB_PHONE, Origin(1), Position(1), Position(2));
    let log = Log::begin().note(device, What::Gap { origin, from, upto });
    log.breaks(&[Violation::NeedlessGap { device, origin, from, upto }]);
}

#[test]
fn a_send_without_an_answer_is_named_unless_its_device_left() {
    Log::begin().sent(1).breaks(&[Violation::Unanswered { message: ada(1) }]);
    Log::begin().sent(1).note(ADA_PHONE, What::Left).breaks(&[]);
    Log::begin().sent(1).note(ADA_PHONE, What::Refused { id: id(1) }).breaks(&[]);
}

#[test]
fn what_was_refused_for_good_is_not_stored() {
    let log = Log::begin().but_for_the_tablet(1).shown(BOB_TABLET, 1);
    let log = log.note(ADA_PHONE, What::Refused { id: id(1) });
    log.breaks(&[Violation::StoredThoughRefused { message: ada(1) }]);
}

#[test]
fn nobody_sees_what_nobody_sent() {
    let unsent = |device| Violation::Unsent { message: ada(1), device };
    Log::begin().shown(BOB_PHONE, 1).breaks(&[unsent(BOB_PHONE)]);
    Log::begin().accepted(1).breaks(&[unsent(ADA_PHONE)]);
    Log::begin().receipt(1, ReceiptKind::Delivered).breaks(&[unsent(ADA_PHONE)]);
}

#[test]
fn what_is_shown_is_what_was_sent() {
    let other = What::Shown { message: ada(1), body: 99, place: at(1) };
    let log = Log::begin().but_for_the_tablet(1).note(BOB_TABLET, other);
    log.breaks(&[Violation::Altered { message: ada(1), device: BOB_TABLET }]);
}

#[test]
fn a_stranger_is_shown_nothing() {
    let log = Log::begin().whole(1).note(CYD_PHONE, What::Joined { account: CYD }).shown(CYD_PHONE, 1);
    log.breaks(&[Violation::Stranger { message: ada(1), device: CYD_PHONE }]);
}

#[test]
fn a_message_is_shown_once_at_each_device() {
    let twice = Violation::ShownTwice { message: ada(1), device: BOB_PHONE };
    Log::begin().whole(1).shown(BOB_PHONE, 1).breaks(&[twice]);
    Log::begin().whole(1).note(BOB_PHONE, What::Opened).shown(BOB_PHONE, 1).breaks(&[twice]);
}

#[test]
fn what_was_not_acknowledged_comes_again_to_a_new_client() {
    Log::begin()
        .but_for_the_tablet(1)
        .shown(BOB_TABLET, 1)
        .but_for_the_tablet(2)
        .shown(BOB_TABLET, 2)
        .note(BOB_TABLET, What::Opened)
        .shown(BOB_TABLET, 1)
        .shown(BOB_TABLET, 2)
        .breaks(&[]);
}

#[test]
fn what_a_device_forgot_may_come_again_unless_somebody_has_the_receipt() {
    let taken = |log: Log| log.sent(1).accepted(1).shown(BOB_PHONE, 1).acknowledged(BOB_PHONE, 1);
    let rest = |log: Log| log.shown(ADA_TABLET, 1).shown(BOB_TABLET, 1);
    let log = rest(taken(Log::begin())).note(BOB_PHONE, What::Forgot).shown(BOB_PHONE, 1);
    log.receipt(1, ReceiptKind::Delivered).breaks(&[]);
    let log = rest(taken(Log::begin())).receipt(1, ReceiptKind::Delivered);
    let log = log.note(BOB_PHONE, What::Forgot).shown(BOB_PHONE, 1);
    log.breaks(&[Violation::ShownTwice { message: ada(1), device: BOB_PHONE }]);
}

#[test]
fn a_message_has_one_place_wherever_it_is_seen() {
    let (message, first, second) = (ada(1), at(1), place(11));
    let log = Log::begin().but_for_the_tablet(1).shown_at(BOB_TABLET, 1, second);
    log.breaks(&[Violation::TwoPlaces { message, first, second }]);
    Log::begin().whole(1).accepted_at(1, second).breaks(&[Violation::TwoPlaces { message, first, second }]);
}

#[test]
fn no_two_messages_share_a_position_or_sort_alike() {
    let shared = Violation::SharedPlace { first: ada(1), second: ada(2) };
    let position = Place { stamp: Stamp(200), ..at(1) };
    let log = Log::begin().whole(1).sent(2).note(BOB_TABLET, What::Left);
    let [log, other] = [log.0.clone(), log.0].map(Log);
    let rest = |log: Log, place| {
        log.accepted_at(2, place).shown_at(BOB_PHONE, 2, place).shown_at(ADA_TABLET, 2, place)
    };
    // Each device shows it; the first sight of it is named, and the others agree with that.
    rest(log, position).breaks(&[shared]);
    let stamp = Place { stamp: at(1).stamp, ..place(11) };
    let order = Violation::SenderOrder { earlier: ada(1), later: ada(2) };
    rest(other, stamp).breaks(&[shared, order]);
}

#[test]
fn what_one_device_sent_arrives_in_its_order() {
    let log = Log::begin().but_for_the_tablet(1).but_for_the_tablet(2);
    let (earlier, later, device) = (ada(1), ada(2), BOB_TABLET);
    log.shown(device, 2).shown(device, 1).breaks(&[Violation::ArrivalOrder { earlier, later, device }]);
}

#[test]
fn what_one_device_sent_sorts_in_its_order() {
    let log = Log::begin().whole_at(1, place(20)).whole_at(2, place(10));
    log.breaks(&[Violation::SenderOrder { earlier: ada(1), later: ada(2) }]);
}

#[test]
fn what_two_devices_sent_has_no_order_of_its_own() {
    let from_tablet = What::Sent { id: id(2), to: vec![BOB], body: 2 };
    let answer = What::Accepted { id: id(2), place: place(5) };
    let mut log = Log::begin()
        .whole(1)
        .note(ADA_TABLET, What::Left)
        .note(DeviceId([0xa3; 16]), What::Joined { account: ADA });
    log = log.note(DeviceId([0xa3; 16]), from_tablet).note(DeviceId([0xa3; 16]), answer);
    for device in [ADA_PHONE, BOB_PHONE, BOB_TABLET] {
        log = log.shown_at(device, 2, place(5));
    }
    log.breaks(&[]);
}

#[test]
fn an_answer_sorts_behind_what_its_sender_had_shown() {
    let sent = What::Sent { id: id(9), to: vec![ADA], body: 9 };
    let message = Key { sender: BOB, id: id(9) };
    for (position, is_good) in [(11, true), (5, false)] {
        let place = place(position);
        let shown = What::Shown { message, body: 9, place };
        let mut log = Log::begin().whole(1).note(BOB_PHONE, sent.clone());
        log = log.note(BOB_PHONE, What::Accepted { id: id(9), place });
        for device in [ADA_PHONE, ADA_TABLET, BOB_TABLET] {
            log = log.note(device, shown.clone());
        }
        let broken = Violation::CausalOrder { message, cause: at(1).sorts_by() };
        log.breaks(if is_good { &[] } else { std::slice::from_ref(&broken) });
    }
}

#[test]
fn what_was_on_its_way_before_its_sender_was_shown_anything_sorts_anywhere() {
    let message = Key { sender: BOB, id: id(9) };
    let mut log = Log::begin().note(BOB_PHONE, What::Sent { id: id(9), to: vec![ADA], body: 9 }).whole(1);
    log = log.note(BOB_PHONE, What::Accepted { id: id(9), place: place(5) });
    for device in [ADA_PHONE, ADA_TABLET, BOB_TABLET] {
        log = log.note(device, What::Shown { message, body: 9, place: place(5) });
    }
    log.breaks(&[]);
}

#[test]
fn delivered_is_told_only_after_a_device_of_the_reader_acknowledged() {
    let untrue = Violation::UntrueReceipt { message: ada(1), reader: BOB, kind: ReceiptKind::Delivered };
    // The sender's own tablet is no device of the reader.
    let log = Log::begin().sent(1).accepted(1).shown(ADA_TABLET, 1).acknowledged(ADA_TABLET, 1);
    let log = log.shown(BOB_PHONE, 1).shown(BOB_TABLET, 1).receipt(1, ReceiptKind::Delivered);
    log.acknowledged(BOB_PHONE, 1).breaks(&[untrue]);
}

#[test]
fn read_is_told_only_after_the_reader_read() {
    let untrue = Violation::UntrueReceipt { message: ada(1), reader: BOB, kind: ReceiptKind::Read };
    Log::begin().whole(1).receipt(1, ReceiptKind::Read).breaks(&[untrue]);
}

#[test]
fn read_is_told_only_of_what_was_acknowledged() {
    let log = Log::begin().sent(1).accepted(1).shown(ADA_TABLET, 1).shown(BOB_PHONE, 1).shown(BOB_TABLET, 1);
    let log = log.read(BOB_PHONE, 1).receipt(1, ReceiptKind::Read);
    log.breaks(&[Violation::ReadBeforeDelivered { message: ada(1), reader: BOB }]);
}

#[test]
fn what_was_read_in_secret_is_told_to_the_own_devices_alone() {
    let secret = |message| What::ReadInSecret { message };
    let elsewhere = |message| What::ReadElsewhere { message };
    let log = Log::begin().whole(1).note(BOB_PHONE, secret(ada(1))).note(BOB_TABLET, elsewhere(ada(1)));
    let both = Log(log.0.clone()).read(BOB_PHONE, 1).receipt(1, ReceiptKind::Read);
    both.breaks(&[]);
    let told = Violation::UntrueReceipt { message: ada(1), reader: BOB, kind: ReceiptKind::Read };
    log.receipt(1, ReceiptKind::Read).breaks(&[told]);
}

#[test]
fn the_own_devices_are_told_only_what_was_read_and_acknowledged() {
    let elsewhere = What::ReadElsewhere { message: ada(1) };
    let untrue = Violation::UntrueReceipt { message: ada(1), reader: BOB, kind: ReceiptKind::Read };
    Log::begin().whole(1).note(BOB_TABLET, elsewhere.clone()).breaks(&[untrue]);
    let log = Log::begin().sent(1).accepted(1).read(BOB_PHONE, 1).note(BOB_TABLET, elsewhere);
    let log = [BOB_PHONE, BOB_TABLET, ADA_TABLET].into_iter().fold(log, |log, device| log.shown(device, 1));
    log.breaks(&[Violation::ReadBeforeDelivered { message: ada(1), reader: BOB }]);
}

#[test]
fn what_a_device_gave_up_is_not_lost_for_it_and_not_delivered_by_it() {
    let aside = What::SetAside { message: ada(1) };
    let log = Log::begin().sent(1).accepted(1).shown(ADA_TABLET, 1).note(BOB_PHONE, aside.clone());
    let untrue = Violation::UntrueReceipt { message: ada(1), reader: BOB, kind: ReceiptKind::Delivered };
    Log(log.0.clone()).note(BOB_TABLET, aside.clone()).receipt(1, ReceiptKind::Delivered).breaks(&[untrue]);
    Log(log.0.clone()).breaks(&[Violation::Lost { message: ada(1), device: BOB_TABLET }]);
    // What the last device gave up, its account's next one does not inherit.
    let log = log.note(BOB_TABLET, aside).note(BOB_PHONE, What::Left).note(BOB_TABLET, What::Left);
    log.note(DeviceId([0xb3; 16]), What::Joined { account: BOB }).breaks(&[]);
}

#[test]
fn a_receipt_never_goes_back() {
    let log = Log::begin().whole(1).read(BOB_PHONE, 1).receipt(1, ReceiptKind::Read);
    let (message, reader, device) = (ada(1), BOB, ADA_PHONE);
    let log = log.receipt(1, ReceiptKind::Delivered);
    log.breaks(&[Violation::ReceiptWentBack { message, reader, device }]);
}

#[test]
fn what_was_acknowledged_has_its_receipt_in_the_end() {
    let log = Log::begin().sent(1).accepted(1).shown(ADA_TABLET, 1).shown(BOB_TABLET, 1).shown(BOB_PHONE, 1);
    let log = log.acknowledged(BOB_PHONE, 1);
    let [log, unwatched] = [log.0.clone(), log.0].map(Log);
    log.breaks(&[Violation::MissingReceipt { message: ada(1), reader: BOB }]);
    unwatched.breaks_under(Terms { receipts: false, ..STRICT }, &[]);
}

#[test]
fn a_receipt_may_go_with_the_device_that_acknowledged_or_what_was_dropped_or_into_a_gap_of_the_sender() {
    let log = Log::begin().sent(1).accepted(1).shown(ADA_TABLET, 1).shown(BOB_TABLET, 1).shown(BOB_PHONE, 1);
    let log = log.acknowledged(BOB_PHONE, 1);
    let [log, other] = [log.0.clone(), log.0].map(Log);
    log.note(BOB_PHONE, What::Left).breaks(&[]);
    let terms = Terms { gaps: true, ..STRICT };
    let missing = Violation::MissingReceipt { message: ada(1), reader: BOB };
    for (upto, is_missing) in [(9, true), (10, false)] {
        let dropped = What::Dropped { origin: Origin(1), upto: Position(upto) };
        let log = Log(other.0.clone()).note(BOB_PHONE, dropped);
        log.breaks_under(terms, if is_missing { std::slice::from_ref(&missing) } else { &[] });
    }
    for (upto, is_missing) in [(10, true), (11, false)] {
        let gap = What::Gap { origin: Origin(1), from: Position(1), upto: Position(upto) };
        let log = Log(other.0.clone()).note(ADA_PHONE, gap);
        log.breaks_under(terms, if is_missing { std::slice::from_ref(&missing) } else { &[] });
    }
}

#[test]
fn what_was_read_has_its_receipt_in_the_end_once_the_server_took_the_word() {
    let taken = What::ReadTaken { message: ada(1) };
    let missing = Violation::MissingRead { message: ada(1), reader: BOB };
    let log = Log::begin().whole(1).read(BOB_PHONE, 1);
    let untaken = Log(log.0.clone());
    let log = log.note(BOB_PHONE, taken.clone());
    let [told, gone, gap, unwatched] = [(); 4].map(|()| Log(log.0.clone()));
    untaken.breaks(&[]);
    log.breaks(&[missing]);
    told.receipt(1, ReceiptKind::Read).breaks(&[]);
    gone.note(ADA_PHONE, What::Left).breaks(&[]);
    let behind = What::Gap { origin: Origin(1), from: Position(11), upto: Position(11) };
    gap.note(ADA_PHONE, behind).breaks_under(Terms { gaps: true, ..STRICT }, &[]);
    unwatched.breaks_under(Terms { receipts: false, ..STRICT }, &[]);
    // What was said in secret once stays untold.
    let secret = What::ReadInSecret { message: ada(1) };
    Log::begin().whole(1).note(BOB_TABLET, secret).read(BOB_PHONE, 1).note(BOB_PHONE, taken).breaks(&[]);
}

#[test]
fn a_receipt_that_its_sender_lost_sight_of_is_not_missing() {
    let log = Log::begin().sent(1).accepted(1).shown(ADA_TABLET, 1).shown(BOB_TABLET, 1).shown(BOB_PHONE, 1);
    log.acknowledged(BOB_PHONE, 1).note(ADA_PHONE, What::Unwatched { id: id(1) }).breaks(&[]);
}

#[test]
fn a_device_joins_before_it_does_anything() {
    Log::begin().note(CYD_PHONE, What::Opened).breaks(&[Violation::NotJoined { device: CYD_PHONE }]);
}

#[test]
fn where_nobody_keeps_places_no_rule_is_asked_of_them() {
    let place = Place::UNSEEN;
    Log::begin().whole_at(1, place).whole_at(2, place).whole_at(3, place).breaks(&[]);
    let log = Log::begin().sent(1).accepted_at(1, place).shown_at(BOB_PHONE, 1, place);
    log.breaks(&[
        Violation::Lost { message: ada(1), device: ADA_TABLET },
        Violation::Lost { message: ada(1), device: BOB_TABLET },
    ]);
}

#[test]
fn what_is_settled_is_forgotten_and_known_again_when_it_comes_again() {
    let log = (1..=200).fold(Log::begin(), Log::whole);
    let mut judge = Judge::new(STRICT);
    for entry in &log.0 {
        judge.read(entry);
        judge.forget_settled();
        assert!(judge.remembered() <= 1);
    }
    let again = Log::default().shown(BOB_PHONE, 7).sent(7).acknowledged(BOB_PHONE, 7).shown(BOB_PHONE, 250);
    again.0.iter().for_each(|entry| judge.read(entry));
    judge.read(&Log::default().receipt(7, ReceiptKind::Read).0[0]);
    assert_eq!(
        judge.finish(),
        [
            Violation::ShownTwice { message: ada(7), device: BOB_PHONE },
            Violation::Unsent { message: ada(250), device: BOB_PHONE },
            Violation::UntrueReceipt { message: ada(7), reader: BOB, kind: ReceiptKind::Read },
        ]
    );
}

/// Positions up to 20 are carried over to another origin.
fn origin_ends(log: Log) -> Log {
    let ended = What::OriginEnded { origin: Origin(1), by: Origin(2), upto: Position(20) };
    log.note(ADA_PHONE, ended)
}

/// Who took part is told that the first origin has ended.
fn told_of_the_end(log: Log) -> Log {
    let gap = What::Gap { origin: Origin(1), from: Position(21), upto: Position::END };
    [ADA_PHONE, ADA_TABLET, BOB_PHONE, BOB_TABLET]
        .into_iter()
        .fold(log, |log, device| log.note(device, gap.clone()))
}

const RESTORED: Terms = Terms { gaps: true, receipts: true };

fn later(place: Place) -> Place {
    Place { origin: Origin(2), ..place }
}

#[test]
fn what_an_origin_carries_over_is_one_message_under_both_names() {
    let log = origin_ends(Log::begin().but_for_the_tablet(1));
    let [lost, twice, moved] = [(); 3].map(|()| Log(log.0.clone()));
    log.shown_at(BOB_TABLET, 1, later(at(1))).breaks_under(RESTORED, &[]);
    // It is owed as before.
    lost.breaks_under(RESTORED, &[Violation::Lost { message: ada(1), device: BOB_TABLET }]);
    // Whoever had it is not shown it again.
    let shown = twice.shown(BOB_TABLET, 1).shown_at(BOB_PHONE, 1, later(at(1)));
    shown.breaks_under(RESTORED, &[Violation::ShownTwice { message: ada(1), device: BOB_PHONE }]);
    let second = later(place(11));
    let moved = moved.shown_at(BOB_TABLET, 1, second);
    moved.breaks_under(RESTORED, &[Violation::TwoPlaces { message: ada(1), first: at(1), second }]);
}

#[test]
fn what_an_origin_did_not_carry_over_may_be_stored_anew_and_is_shown_once() {
    let sent = |log: Log| log.sent(3).shown(BOB_PHONE, 3).acknowledged(BOB_PHONE, 3);
    let log = told_of_the_end(origin_ends(sent(Log::begin())));
    let place = later(place(21));
    let anew =
        |log: Log| log.accepted_at(3, place).shown_at(ADA_TABLET, 3, place).shown_at(BOB_TABLET, 3, place);
    let [again, unanswered] = [(); 2].map(|()| Log(log.0.clone()));
    let receipt = anew(log).receipt(3, ReceiptKind::Delivered);
    receipt.breaks_under(RESTORED, &[]);
    let again = anew(again).shown_at(BOB_PHONE, 3, place);
    again.breaks_under(RESTORED, &[Violation::ShownTwice { message: ada(3), device: BOB_PHONE }]);
    unanswered.breaks_under(RESTORED, &[Violation::Unanswered { message: ada(3) }]);
}

#[test]
fn what_a_device_took_that_the_copy_does_not_know_need_not_have_its_receipt() {
    let log = Log::begin().sent(3).accepted(3).shown(ADA_TABLET, 3).shown(BOB_PHONE, 3).shown(BOB_TABLET, 3);
    let log = log.acknowledged(BOB_PHONE, 3);
    let ends = |upto| What::OriginEnded { origin: Origin(1), by: Origin(2), upto: Position(upto) };
    let log = log.note(ADA_PHONE, ends(30));
    let unproven = |upto| What::Unproven { origin: Origin(2), upto: Position(upto) };
    let [known, other] = [(); 2].map(|()| Log(log.0.clone()));
    log.note(BOB_PHONE, unproven(30)).breaks_under(RESTORED, &[]);
    let missing = Violation::MissingReceipt { message: ada(3), reader: BOB };
    known.breaks_under(RESTORED, &[missing]);
    // What lies above was told to the one that carries on.
    other.note(BOB_PHONE, unproven(2)).breaks_under(RESTORED, &[missing]);
}

#[test]
fn what_was_given_up_may_come_late_from_the_origin_that_stores_it_anew() {
    let log =
        Log::begin().sent(3).sent(4).note(BOB_PHONE, What::SetAside { message: ada(3) }).shown(BOB_PHONE, 4);
    let log = told_of_the_end(origin_ends(log.acknowledged(BOB_PHONE, 4)));
    let (third, fourth) = (later(place(21)), later(place(22)));
    let log = log.accepted_at(3, third).accepted_at(4, fourth).shown_at(BOB_PHONE, 3, third);
    let others = [ADA_TABLET, BOB_TABLET].into_iter();
    let log = others.fold(log, |log, device| log.shown_at(device, 3, third).shown_at(device, 4, fourth));
    log.receipt(4, ReceiptKind::Delivered).breaks_under(RESTORED, &[]);
}

#[test]
fn what_was_set_aside_with_an_origin_is_owed_to_nobody() {
    let log = told_of_the_end(origin_ends(Log::begin().sent(3).accepted(3)));
    log.breaks_under(RESTORED, &[]);
}

#[test]
fn without_an_end_two_origins_are_two_places() {
    let second = later(at(1));
    let log = Log::begin().but_for_the_tablet(1).shown_at(BOB_TABLET, 1, second);
    log.breaks(&[Violation::TwoPlaces { message: ada(1), first: at(1), second }]);
}

#[test]
fn who_took_part_in_both_origins_is_told_that_the_first_has_ended() {
    let log = origin_ends(Log::begin().whole(1));
    let both = log.sent(3);
    let place = later(place(21));
    let mut both = both.accepted_at(3, place).shown_at(ADA_TABLET, 3, place).shown_at(BOB_PHONE, 3, place);
    both = both.shown_at(BOB_TABLET, 3, place).acknowledged(BOB_PHONE, 3).receipt(3, ReceiptKind::Delivered);
    let told = told_of_the_end(Log(both.0.clone()));
    told.breaks_under(RESTORED, &[]);
    both.breaks_under(RESTORED, &[Violation::EndUntold { device: BOB_PHONE, origin: Origin(1) }]);
}
