//! Checks of searches.

use quail_protocol::id::Stamp;

use super::{Archive, account, apply, batch, change, changed, edit, message};
use crate::ports::archive::{ChangeKind, Found, Search, SearchText, Term, direct};

async fn found(archive: &dyn Archive, asking: u8, search: Search) -> Vec<Found> {
    archive.search(account(asking), Search { limit: 100, ..search }).await.unwrap().rows
}

async fn numbers(archive: &dyn Archive, asking: u8, text: &str) -> Vec<u64> {
    let SearchText { terms, since, until, .. } = SearchText::parse(text);
    let found = found(archive, asking, Search { terms, since, until, ..Search::default() }).await;
    found.iter().map(|found| found.message.stamp.0).collect()
}

/// All terms must be there; the newest comes first; where they stand is told.
pub async fn words_prefixes_and_phrases_are_found(archive: &dyn Archive) {
    let texts = ["See you at eight", "Bring the maps, ada!", "eight maps at the MAP shop", "you see"];
    let messages = (1..).zip(texts).map(|(number, text)| message(1, 2, number, text)).collect();
    apply(archive, batch(4, messages)).await;
    for asking in [1, 2] {
        assert_eq!(numbers(archive, asking, "maps").await, [3, 2]);
        assert_eq!(numbers(archive, asking, "map").await, [3]);
        assert_eq!(numbers(archive, asking, "map*").await, [3, 2]);
        assert_eq!(numbers(archive, asking, "you see").await, [4, 1]);
        assert_eq!(numbers(archive, asking, "\"you see\"").await, [4]);
        assert_eq!(numbers(archive, asking, "\"at eig\"*").await, [1]);
        // A beginning of fewer than three characters is a whole word.
        assert_eq!(numbers(archive, asking, "ma*").await, []);
        assert_eq!(numbers(archive, asking, "\"at ei\"*").await, []);
        assert_eq!(numbers(archive, asking, "at*").await, [3, 1]);
        assert_eq!(numbers(archive, asking, "eight nowhere").await, []);
    }
    let terms = vec![Term::Prefix("map".to_owned()), Term::Phrase("eight".to_owned())];
    let found = found(archive, 2, Search { terms, ..Search::default() }).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].highlights, [0..5, 6..10, 18..21]);
}

/// An upper case letter is the lower case one; one with an accent is another.
pub async fn case_does_not_count_and_accents_do(archive: &dyn Archive) {
    let texts = ["The CAF\u{c9} is open", "cafe without", "\u{fc}ber", "UBER"];
    let messages = (1..).zip(texts).map(|(number, text)| message(1, 2, number, text)).collect();
    apply(archive, batch(4, messages)).await;
    assert_eq!(numbers(archive, 2, "caf\u{e9}").await, [1]);
    assert_eq!(numbers(archive, 2, "Cafe").await, [2]);
    assert_eq!(numbers(archive, 2, "\u{dc}BER").await, [3]);
    assert_eq!(numbers(archive, 2, "uber").await, [4]);
    assert_eq!(numbers(archive, 2, "caf*").await, [2, 1]);
    assert_eq!(numbers(archive, 2, "cafe*").await, [2]);
}

/// By sender, time, conversation and page.
pub async fn only_what_is_meant_is_found(archive: &dyn Archive) {
    let messages = vec![
        message(1, 2, 10, "word"),
        message(2, 1, 20, "word"),
        message(3, 2, 30, "word"),
        message(2, 2, 40, "word"),
        message(1, 3, 50, "word"),
    ];
    apply(archive, batch(50, messages)).await;
    let word = || Search { terms: vec![Term::Phrase("word".to_owned())], ..Search::default() };
    let stamps = |found: Vec<Found>| found.iter().map(|found| found.message.stamp.0).collect::<Vec<_>>();
    let all = found(archive, 2, word()).await;
    assert_eq!(stamps(all.clone()), [40, 30, 20, 10]);
    let from = found(archive, 2, Search { from: Some(account(2)), ..word() }).await;
    assert_eq!(stamps(from), [40, 20]);
    let (since, until) = (Some(Stamp(20)), Some(Stamp(40)));
    assert_eq!(stamps(found(archive, 2, Search { since, until, ..word() }).await), [30, 20]);
    let conversation = Some(direct(account(1), account(2)));
    assert_eq!(stamps(found(archive, 2, Search { conversation, ..word() }).await), [20, 10]);
    let before = Some(all[1].message.place());
    assert_eq!(stamps(found(archive, 2, Search { before, ..word() }).await), [20, 10]);
    let few = archive.search(account(2), Search { limit: 1, ..word() }).await.unwrap();
    assert!(few.more);
    assert_eq!(stamps(few.rows), [40]);
    assert_eq!(found(archive, 2, Search::default()).await, [], "no term, nothing found");
}

/// The index follows edits and deletions.
pub async fn an_edit_is_found_and_what_was_before_is_not(archive: &dyn Archive) {
    let messages = (1..=4).map(|number| message(1, 2, number, "before")).collect();
    apply(archive, batch(4, messages)).await;
    let hide = ChangeKind::DeleteForMe { account: account(2) };
    let changes = vec![
        change(1, 2, 1, 10, edit("after")),
        change(1, 2, 2, 11, ChangeKind::DeleteForAll),
        change(1, 2, 3, 12, hide),
        change(1, 2, 9, 13, edit("after, too")),
    ];
    changed(archive, 5, changes).await;
    assert_eq!(numbers(archive, 2, "before").await, [4]);
    assert_eq!(numbers(archive, 1, "before").await, [4, 3]);
    assert_eq!(numbers(archive, 2, "after").await, [1]);
    apply(archive, batch(9, vec![message(1, 2, 9, "before")])).await;
    assert_eq!(numbers(archive, 2, "after").await, [9, 1]);
    assert_eq!(numbers(archive, 2, "before").await, [4]);
}

/// Whatever somebody types is a question.
pub async fn no_search_text_is_an_error(archive: &dyn Archive) {
    apply(archive, batch(1, vec![message(1, 2, 1, "AND OR NOT a \"b\" c*")])).await;
    let hostile = [
        "AND",
        "OR NOT",
        "NEAR(a b)",
        "a AND",
        "\"a",
        "a\"",
        "*",
        "a*b",
        "^a",
        "-a",
        "body:a",
        "{body}:a",
        "(a",
        "a)",
        "who: a",
        "'; DROP TABLE messages; --",
        "\u{0}a",
        "a\u{0}b",
        "+",
        "\u{301}",
        "a:b:c",
        "\\\"",
        "a\"\"b",
        "\u{fdd0}a\u{fdd1}",
        "ﬁ",
        "ǅ*",
        "\"\"*",
        "1.5e10",
        "日本語*",
        "\u{10ffff}x",
    ];
    for text in hostile {
        numbers(archive, 2, text).await;
        // Also what no parser would have made.
        let terms = vec![Term::Phrase(text.to_owned()), Term::Prefix(text.to_owned())];
        found(archive, 2, Search { terms, ..Search::default() }).await;
    }
    assert_eq!(numbers(archive, 2, "AND").await, [1]);
    assert_eq!(numbers(archive, 2, "OR NOT").await, [1]);
}
