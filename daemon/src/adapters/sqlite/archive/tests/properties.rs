//! Random histories: SQLite and the twin against each other, and what is unread against counting it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use quail_core::ports::archive::{Advance, ConversationPage, Term, TwinArchive, UNREAD_MAX, direct};

use super::*;

const PEOPLE: u8 = 3;

/// What happens in a history. Numbers name messages, and are positions and stamps.
#[derive(Clone, Debug)]
enum Step {
    Message { sender: u8, recipient: u8, id: u64, stamp: u64, origin: u32 },
    Change { sender: u8, recipient: u8, id: u64, stamp: u64, kind: ChangeKind },
    Advance { sender: u8, account: u8, origin: u32, read: u64, is_told: bool },
}

fn person() -> impl Strategy<Value = u8> {
    1..=PEOPLE
}

fn kind() -> impl Strategy<Value = ChangeKind> {
    let account = || person().prop_map(|seed| AccountId([seed; 16]));
    prop_oneof![
        (0..5_u64).prop_map(|word| ChangeKind::Edit { kind: 1, body: format!("edit {word}").into() }),
        Just(ChangeKind::DeleteForAll),
        account().prop_map(|account| ChangeKind::DeleteForMe { account }),
        (account(), prop::option::of(Just("+".to_owned())))
            .prop_map(|(account, reaction)| ChangeKind::React { account, reaction }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let message = (person(), person(), 1..25_u64, 1..60_u64, 1..3_u32).prop_map(
        |(sender, recipient, id, stamp, origin)| Step::Message { sender, recipient, id, stamp, origin },
    );
    let change = (person(), person(), 1..25_u64, 1..60_u64, kind())
        .prop_map(|(sender, recipient, id, stamp, kind)| Step::Change { sender, recipient, id, stamp, kind });
    let advance = (person(), person(), 1..3_u32, 1..60_u64, any::<bool>()).prop_map(
        |(sender, account, origin, read, is_told)| Step::Advance { sender, account, origin, read, is_told },
    );
    prop_oneof![4 => message, 2 => change, 2 => advance]
}

/// Positions are unique at an origin: they follow from who sent what.
fn position(sender: u8, id: u64) -> u64 {
    id * 4 + u64::from(sender)
}

fn batch_of(steps: &[Step], upto: u64) -> ArchiveBatch {
    let mut batch = batch(upto, Vec::new());
    for step in steps.iter().cloned() {
        match step {
            Step::Message { sender, recipient, id, stamp, origin } => {
                let stamp = Stamp(stamp * 1_000 + position(sender, id));
                let (position, origin) = (Position(position(sender, id)), Origin(origin));
                let new = message(sender, recipient, id);
                batch.messages.push(NewMessage { stamp, position, origin, ..new });
            }
            Step::Change { sender, recipient, id, stamp, kind } => batch.changes.push(Change {
                message: message(sender, recipient, id).message,
                recipient: AccountId([recipient; 16]),
                origin: Origin(1),
                stamp: Stamp(stamp),
                kind,
            }),
            Step::Advance { sender, account, origin, read, is_told } => batch.advances.push(Advance {
                sender: AccountId([sender; 16]),
                account: AccountId([account; 16]),
                origin: Origin(origin),
                delivered: Some(Position(read)),
                read: Some(Position(read)),
                read_told: is_told.then_some(Position(read)),
            }),
        }
    }
    batch
}

/// Without seqs: what goes in together may be numbered in any order.
fn without_seqs(mut page: ConversationPage) -> ConversationPage {
    for summary in &mut page.conversations {
        summary.seq = 0;
        if let Some(last) = &mut summary.last {
            last.seq = 0;
        }
    }
    page
}

/// Counts what is unread by looking at everything.
async fn counted(
    archive: &dyn Archive,
    account: AccountId,
    summary: &quail_core::ports::archive::ConversationSummary,
) -> u32 {
    use quail_core::ports::archive::{Content, Reached};
    let read: BTreeMap<_, _> = summary
        .markers
        .iter()
        .filter(|marker| marker.account == account && marker.reached == Reached::Read)
        .map(|marker| (marker.origin, marker.position))
        .collect();
    let rows = archive.browse(account, summary.conversation, Browse::After(None), 100).await.unwrap().rows;
    let unread = rows.iter().filter(|row| {
        row.message.sender != account
            && matches!(row.content, Content::There { .. })
            && read.get(&row.origin).is_none_or(|read| row.position > *read)
    });
    (unread.count() as u32).min(UNREAD_MAX)
}

async fn compare(steps: &[Step], cuts: &[usize]) {
    let Temporary { archive, _directory } = temporary().await;
    let twin = TwinArchive::new();
    let (mut rest, mut upto) = (steps, 0);
    for cut in cuts.iter().copied().chain([usize::MAX]) {
        let (piece, left) = rest.split_at(cut.min(rest.len()));
        (rest, upto) = (left, upto + 1_000);
        let batch = batch_of(piece, upto);
        let (one, other) = (archive.apply(&batch).await.unwrap(), twin.apply(&batch).await.unwrap());
        assert_eq!(one.inserted, other.inserted);
        assert_eq!(one.losers.len(), other.losers.len());
    }
    for asking in 1..=PEOPLE {
        let asking = AccountId([asking; 16]);
        let page = archive.conversations(asking, None).await.unwrap();
        assert_eq!(
            without_seqs(page.clone())
                .conversations
                .iter()
                .filter(|one| one.last.is_some())
                .collect::<Vec<_>>(),
            without_seqs(twin.conversations(asking, None).await.unwrap())
                .conversations
                .iter()
                .filter(|one| one.last.is_some())
                .collect::<Vec<_>>()
        );
        for summary in &page.conversations {
            assert_eq!(counted(&archive, asking, summary).await, summary.unread);
            assert_eq!(counted(&twin, asking, summary).await, summary.unread);
        }
        for peer in 1..=PEOPLE {
            let conversation = direct(asking, AccountId([peer; 16]));
            let rows = archive.browse(asking, conversation, Browse::After(None), 100).await;
            let others = twin.browse(asking, conversation, Browse::After(None), 100).await;
            if let (Ok(mut rows), Ok(mut others)) = (rows, others) {
                rows.rows.iter_mut().chain(&mut others.rows).for_each(|row| row.seq = 0);
                assert_eq!(rows, others);
            }
        }
        for term in [Term::Phrase("message".to_owned()), Term::Prefix("ed".to_owned())] {
            let search = Search { terms: vec![term], limit: 100, ..Search::default() };
            let mut found = archive.search(asking, search.clone()).await.unwrap();
            let mut others = twin.search(asking, search).await.unwrap();
            found.rows.iter_mut().chain(&mut others.rows).for_each(|found| found.message.seq = 0);
            assert_eq!(found, others);
        }
    }
    let check = sqlx::query("INSERT INTO found (found, rank) VALUES ('integrity-check', 1)");
    check.execute(&archive.writer).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_end_as_in_the_twin_and_unread_is_what_is_counted(
        steps in prop::collection::vec(step(), 1..60),
        cuts in prop::collection::vec(0..20_usize, 0..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(compare(&steps, &cuts));
    }
}
