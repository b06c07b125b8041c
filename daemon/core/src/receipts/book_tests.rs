//! Tests of the book: what it lets be told, compared with sets of positions.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const SENDER: AccountId = AccountId([1; 16]);

fn positions((after, upto): Stretch) -> impl Iterator<Item = u64> {
    after.0 + 1..=upto.0
}

fn stretch() -> impl Strategy<Value = Stretch> {
    (0..40_u64, 1..12_u64).prop_map(|(after, len)| (Position(after), Position(after + len)))
}

fn set(stretches: &[Stretch]) -> BTreeSet<u64> {
    stretches.iter().flat_map(|stretch| positions(*stretch)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Everything is told, nothing that was not said, and what was just told is not told again.
    #[test]
    fn what_is_told_is_what_was_said(said in prop::collection::vec(stretch(), 0..20)) {
        let (mut told, mut all) = (Told::default(), BTreeSet::new());
        for (at, one) in said.iter().enumerate() {
            if let Some(untold) = told.tell(SENDER, *one) {
                prop_assert!(set(&[untold]).is_subset(&set(&[*one])));
                all.extend(positions(untold));
            }
            prop_assert_eq!(told.tell(SENDER, *one), None);
            prop_assert!(set(&said[..=at]).is_subset(&all));
            prop_assert!(told.senders[&SENDER].0.len() <= STRETCHES_MAX);
        }
        prop_assert!(all.is_subset(&set(&said)));
    }

    /// What an account got of a stretch is of the stretch, was acknowledged, and is not below a gap unless that was seen.
    #[test]
    fn what_was_got_is_what_was_acknowledged(
        acknowledged in prop::collection::vec(stretch(), 0..STRETCHES_MAX),
        unseen in 0..50_u64,
        collapsed in 0..50_u64,
        claim in stretch(),
    ) {
        let mut book = ReceiptBook::default();
        for one in &acknowledged {
            book.delivered.tell(SENDER, *one);
        }
        book.acknowledged_unseen(Position(unseen));
        let got = book.got(SENDER, claim, Position(collapsed));
        let mut expected = set(&acknowledged);
        expected.extend(collapsed + 1..=unseen);
        let expected: BTreeSet<u64> = expected.intersection(&set(&[claim])).copied().collect();
        prop_assert_eq!(set(&got), expected);
        prop_assert!(got.windows(2).all(|pair| pair[0].1 < pair[1].0), "rising and apart: {:?}", got);
    }
}

#[test]
fn what_had_to_be_forgotten_is_at_the_word_of_the_device() {
    let mut book = ReceiptBook::default();
    for number in 0..=STRETCHES_MAX as u64 {
        book.delivered.tell(SENDER, (Position(10 * number), Position(10 * number + 5)));
    }
    let got = book.got(SENDER, (Position(0), Position(8)), Position::ZERO);
    assert_eq!(got, [(Position(0), Position(5))], "the first was forgotten, and ended at 5");
    for sender in 0..SENDERS_MAX as u128 {
        book.delivered.tell(AccountId((sender << 64).to_be_bytes()), (Position(0), Position(30)));
    }
    assert!(book.delivered.senders.len() <= SENDERS_MAX);
    let got = book.got(SENDER, (Position(0), Position(60)), Position(2));
    assert_eq!(got, [(Position(2), Position(45))]);
}

#[test]
fn a_receipt_that_was_shown_is_not_taken_back() {
    let mut book = ReceiptBook::default();
    let about = About::Read(SENDER);
    let receipt = |position, after, upto| Unwritten {
        position: Position(position),
        stretch: (Position(after), Position(upto)),
        by: None,
    };
    book.set_unwritten(about, receipt(7, 0, 3));
    let wider = (Position(3), Position(5));
    assert!(book.take_unwritten(About::Delivered(SENDER), wider).is_none(), "of another kind");
    assert_eq!(book.take_unwritten(about, wider).map(|earlier| earlier.position), Some(Position(7)));
    book.set_unwritten(about, receipt(9, 0, 5));
    book.written(Position(9));
    assert!(book.take_unwritten(about, (Position(5), Position(6))).is_none());
}
