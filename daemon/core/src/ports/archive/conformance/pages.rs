//! Checks of lists, of browsing and of syncs.

use super::{Archive, account, apply, batch, change, changed, edit, message, shown, text};
use crate::ports::archive::{
    ArchiveError, ArchivedMessage, Browse, CONVERSATIONS_PAGE, ChangeKind, Content, MESSAGES_PAGE_MAX,
    PAGE_BYTES_MAX, Page, Search, SyncPage, Synced, Term, direct,
};

/// From either end, in pages, without a hole and without a repetition.
pub async fn a_conversation_is_browsed_both_ways(archive: &dyn Archive) {
    let count = MESSAGES_PAGE_MAX as u64 + 50;
    let messages = (1..=count).map(|number| message(1, 2, number, &number.to_string())).collect();
    apply(archive, batch(count, messages)).await;
    let (ada, conversation) = (account(1), direct(account(1), account(2)));
    for is_forward in [true, false] {
        let (mut all, mut place) = (Vec::new(), None);
        loop {
            let which = if is_forward { Browse::After(place) } else { Browse::Before(place) };
            let page = archive.browse(ada, conversation, which, 1_000).await.unwrap();
            assert!(page.rows.len() <= MESSAGES_PAGE_MAX);
            place = page.rows.last().map(ArchivedMessage::place);
            all.extend(page.rows.iter().map(|message| message.stamp.0));
            assert_eq!(page.more, (all.len() as u64) < count, "it says whether there is more");
            if !page.more {
                break;
            }
        }
        if !is_forward {
            all.reverse();
        }
        assert_eq!(all, (1..=count).collect::<Vec<_>>());
    }
    let few = archive.browse(ada, conversation, Browse::Before(None), 3).await.unwrap();
    let stamps: Vec<_> = few.rows.iter().map(|message| message.stamp.0).collect();
    assert_eq!(stamps, [count, count - 1, count - 2]);
}

/// A client that applies the pages has what the archive has.
pub async fn a_sync_has_every_change_once_in_pages(archive: &dyn Archive) {
    let messages = (1..=9).map(|number| message(1, 2, number, "x")).collect();
    apply(archive, batch(9, messages)).await;
    changed(archive, 10, vec![change(1, 2, 2, 20, edit("y"))]).await;
    changed(archive, 11, vec![change(1, 2, 3, 21, ChangeKind::DeleteForAll)]).await;
    let (bob, conversation) = (account(2), direct(account(1), account(2)));
    let (mut seq, mut rows, mut pages) = (0, Vec::new(), 0);
    loop {
        let page = archive.sync(bob, vec![(conversation, seq)], 4).await.unwrap();
        let Synced::Changed { rows: some, seq: next, more } = &page[0].synced else {
            unreachable!("{page:?}")
        };
        assert!(some.len() <= 4 && some.iter().all(|row| row.seq > seq && row.seq <= *next));
        rows.extend(some.clone());
        (seq, pages) = (*next, pages + 1);
        if !more {
            break;
        }
    }
    assert!(pages > 1 && rows.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    let mut there = shown(archive, 2, 1).await;
    there.sort_by_key(|row| row.seq);
    assert_eq!(rows, there, "each row once, as it is now");
    let again = archive.sync(bob, vec![(conversation, seq)], 4).await.unwrap();
    let nothing = Synced::Changed { rows: Vec::new(), seq, more: false };
    assert_eq!(again, [SyncPage { conversation, synced: nothing }]);
}

/// A seq that this archive never gave is of another archive.
pub async fn a_sync_from_elsewhere_reloads(archive: &dyn Archive) {
    apply(archive, batch(2, vec![message(1, 2, 1, "x"), message(1, 2, 2, "x")])).await;
    let conversation = direct(account(1), account(2));
    let synced = archive.sync(account(1), vec![(conversation, 3)], 10).await.unwrap();
    assert_eq!(synced, [SyncPage { conversation, synced: Synced::Reload { seq: 2 } }]);
}

/// No page brings more bodies than a frame could carry, nor fewer than one, and pages of both kinds get to the end.
pub async fn a_page_ends_early_where_its_bytes_end(archive: &dyn Archive) {
    // A third of a page each; the fifth alone is more than one.
    let size = |number: u64| if number == 5 { 2 * PAGE_BYTES_MAX } else { PAGE_BYTES_MAX / 3 };
    let body = |number: u64| format!("word {}", "x".repeat(size(number)));
    let messages = (1..=9).map(|number| message(1, 2 + (number % 2) as u8, number, &body(number))).collect();
    apply(archive, batch(9, messages)).await;
    let ada = account(1);
    let check = |rows: &[ArchivedMessage]| {
        let bytes = rows.iter().map(|row| match &row.content {
            Content::There { body, .. } => body.len(),
            _ => 0,
        });
        assert!(bytes.sum::<usize>() <= PAGE_BYTES_MAX || rows.len() == 1, "{} rows", rows.len());
    };
    let (mut browsed, mut found, mut place, mut before) = (Vec::new(), Vec::new(), None, None);
    for _ in 0..9 {
        let page = archive.browse(ada, direct(ada, account(3)), Browse::After(place), 100).await.unwrap();
        check(&page.rows);
        place = page.rows.last().map(ArchivedMessage::place);
        browsed.extend(page.rows.iter().map(|row| row.stamp.0));
        if !page.more {
            break;
        }
    }
    assert_eq!(browsed, [1, 3, 5, 7, 9]);
    for _ in 0..9 {
        let terms = vec![Term::Phrase("word".to_owned())];
        let page =
            archive.search(ada, Search { terms, before, limit: 100, ..Search::default() }).await.unwrap();
        let rows: Vec<_> = page.rows.into_iter().map(|found| found.message).collect();
        check(&rows);
        before = rows.last().map(ArchivedMessage::place);
        found.extend(rows.iter().map(|row| row.stamp.0));
        if !page.more {
            break;
        }
    }
    assert_eq!(found, (1..=9).rev().collect::<Vec<_>>());
    let mut left = vec![(direct(ada, account(2)), 0), (direct(ada, account(3)), 0)];
    let (mut synced, mut calls) = (Vec::new(), 0);
    while !left.is_empty() {
        calls += 1;
        assert!(calls <= 9, "it gets on");
        let pages = archive.sync(ada, left.clone(), 100).await.unwrap();
        let rows = pages.iter().flat_map(|page| match &page.synced {
            Synced::Changed { rows, .. } => rows.clone(),
            _ => Vec::new(),
        });
        let rows: Vec<_> = rows.collect();
        check(&rows);
        synced.extend(rows.iter().map(|row| row.stamp.0));
        let rest = left.split_off(pages.len());
        left = pages
            .iter()
            .filter_map(|page| match page.synced {
                Synced::Changed { seq, more: true, .. } => Some((page.conversation, seq)),
                _ => None,
            })
            .chain(rest)
            .collect();
    }
    assert_eq!(synced, [2, 4, 6, 8, 1, 3, 5, 7, 9], "each once");
}

/// One call has what a list shows; pages neither repeat nor leave out.
pub async fn conversations_come_newest_first_in_pages(archive: &dyn Archive) {
    let count = CONVERSATIONS_PAGE as u8 + 20;
    // Later peers wrote earlier.
    let first = |peer: u8| message(peer, 1, 1_000 - u64::from(peer), &format!("from {peer}"));
    apply(archive, batch(1_000, (2..2 + count).map(first).collect())).await;
    apply(archive, batch(1_001, vec![message(1, 2 + count - 1, 1_001, "newest")])).await;
    let (mut peers, mut after) = (Vec::new(), None);
    loop {
        let page = archive.conversations(account(1), after).await.unwrap();
        assert!(page.conversations.len() <= CONVERSATIONS_PAGE);
        for summary in &page.conversations {
            let last = summary.last.as_ref().unwrap();
            assert_eq!(last.conversation, summary.conversation);
            peers.push((summary.peer.0[0], text(last).to_owned(), summary.unread));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut expected = vec![(1 + count, "newest".to_owned(), 1)];
    expected.extend((2..=count).map(|peer| (peer, format!("from {peer}"), 1)));
    assert_eq!(peers, expected);
}

/// Not yours and not there are one answer, in every call.
pub async fn nobody_sees_conversations_of_others(archive: &dyn Archive) {
    apply(archive, batch(2, vec![message(1, 2, 1, "secret"), message(3, 3, 2, "own")])).await;
    let (theirs, nobodys) = (direct(account(1), account(2)), direct(account(8), account(9)));
    let eve = account(3);
    for conversation in [theirs, nobodys] {
        assert_eq!(archive.unread(eve, conversation).await, Err(ArchiveError::UnknownConversation));
        let browsed = archive.browse(eve, conversation, Browse::After(None), 10).await;
        assert_eq!(browsed, Err(ArchiveError::UnknownConversation));
        let synced = archive.sync(eve, vec![(conversation, 0)], 10).await.unwrap();
        assert_eq!(synced, [SyncPage { conversation, synced: Synced::Unknown }]);
        let terms = vec![Term::Phrase("secret".to_owned())];
        let search = Search { conversation: Some(conversation), terms, limit: 10, ..Search::default() };
        let found = archive.search(eve, search.clone()).await;
        assert_eq!(found, Err(ArchiveError::UnknownConversation));
        let everywhere = Search { conversation: None, ..search };
        assert_eq!(archive.search(eve, everywhere).await, Ok(Page::default()));
    }
    let listed = archive.conversations(eve, None).await.unwrap().conversations;
    assert_eq!(listed.iter().map(|one| one.peer).collect::<Vec<_>>(), [eve]);
    assert!(archive.conversations(account(9), None).await.unwrap().conversations.is_empty());
}
