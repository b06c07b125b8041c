//! Searching plain text with FTS5.
//!
//! FTS5 has a language of its own; it gets quoted words only, so nothing that somebody types is an operator. The accounts of a message
//! are words of its row in a column of their own, so the index itself leaves out what is not the asker's; the accounts of the row are
//! compared again.

use std::ops::Range;

use quail_core::ports::archive::{
    ArchivedMessage, Content, Found, MESSAGES_PAGE_MAX, Page, PageRoom, Search, Term,
};
use quail_protocol::id::AccountId;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::fault::Fault;
use super::read::{SIZES, fitting, in_order, list_of, not_hidden, push_place};
use super::rows::word;

/// What FTS5 writes before and behind what matched: noncharacters of Unicode, which no text is meant to have.
const MARKS: [char; 2] = ['\u{fdd0}', '\u{fdd1}'];

/// Searches for an account.
pub(super) async fn search(
    connection: &mut SqliteConnection,
    account: AccountId,
    search: &Search,
) -> Result<Page<Found>, Fault> {
    let Some(expression) = expression(account, &search.terms) else { return Ok(Page::default()) };
    let query = search_query(account, &expression, search);
    let (ns, more) = fitting(connection, query, search.limit, &mut PageRoom::default()).await?;
    let messages = in_order(connection, account, &ns).await?;
    Ok(Page { rows: highlight(connection, &expression, messages).await?, more })
}

pub(super) fn search_query(account: AccountId, expression: &str, search: &Search) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(SIZES);
    query.push("FROM found CROSS JOIN messages AS x ON x.n = found.rowid WHERE found MATCH ");
    query.push_bind(expression).push(" AND x.state = 1 AND (x.sender = ");
    query.push_bind(account.as_bytes().as_slice()).push(" OR x.recipient = ");
    query.push_bind(account.as_bytes().as_slice()).push(")");
    not_hidden(&mut query, account);
    if let Some(conversation) = search.conversation {
        query.push(" AND x.conversation = ").push_bind(conversation.as_bytes().to_vec());
    }
    if let Some(from) = search.from {
        query.push(" AND x.sender = ").push_bind(from.as_bytes().to_vec());
    }
    if let Some(since) = search.since {
        query.push(" AND x.stamp >= ").push_bind(i64::try_from(since.0).unwrap_or(i64::MAX));
    }
    if let Some(until) = search.until {
        query.push(" AND x.stamp < ").push_bind(i64::try_from(until.0).unwrap_or(i64::MAX));
    }
    if let Some(before) = search.before {
        query.push(" AND (x.stamp, x.origin) < (");
        push_place(&mut query, before);
    }
    query.push(" ORDER BY x.stamp DESC, x.origin DESC LIMIT ");
    query.push_bind(search.limit.min(MESSAGES_PAGE_MAX) as i64 + 1);
    query
}

pub(super) fn highlight_query(expression: &str, ns: &[i64]) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::<Sqlite>::new("SELECT rowid AS n, highlight(found, 0, ");
    query.push_bind(MARKS[0].to_string()).push(", ").push_bind(MARKS[1].to_string());
    query.push(") AS marked FROM found WHERE found MATCH ").push_bind(expression).push(" AND rowid IN (");
    list_of(&mut query, ns);
    query
}

/// Says where messages match. Apart from finding them: it has to read their texts again.
async fn highlight(
    connection: &mut SqliteConnection,
    expression: &str,
    messages: Vec<(i64, ArchivedMessage)>,
) -> Result<Vec<Found>, Fault> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let ns: Vec<_> = messages.iter().map(|(n, _)| *n).collect();
    let mut query = highlight_query(expression, &ns);
    let mut marked = std::collections::BTreeMap::new();
    for row in query.build().fetch_all(connection).await? {
        marked.insert(row.try_get::<i64, _>("n")?, row.try_get::<String, _>("marked")?);
    }
    let found = messages.into_iter().map(|(n, message)| {
        let highlights = match (&message.content, marked.get(&n)) {
            (Content::There { body, .. }, Some(marked)) => ranges(body, marked),
            _ => Vec::new(),
        };
        Found { message, highlights }
    });
    Ok(found.collect())
}

/// Returns which bytes of a text lie between marks; none if the text itself has such marks.
fn ranges(body: &[u8], marked: &str) -> Vec<Range<usize>> {
    if std::str::from_utf8(body).is_ok_and(|text| text.contains(MARKS)) {
        return Vec::new();
    }
    let (mut at, mut from, mut ranges) = (0, None, Vec::new());
    for char in marked.chars() {
        if char == MARKS[0] {
            from = Some(at);
        } else if char == MARKS[1] {
            ranges.extend(from.take().map(|from| from..at));
        } else {
            at += char.len_utf8();
        }
    }
    ranges
}

/// Returns the expression of FTS5 for terms that must all stand in what an account may see; `None` if there is none.
fn expression(account: AccountId, terms: &[Term]) -> Option<String> {
    let terms = terms.iter().filter(|term| term.text().chars().any(char::is_alphanumeric));
    let terms: Vec<_> = terms.map(quoted).collect();
    let all = terms.join(" AND ");
    (!terms.is_empty()).then(|| format!("who : \"{}\" AND body : ({all})", word(account)))
}

fn quoted(term: &Term) -> String {
    // SQLite ends a text at a NUL; within quotes a quote is written twice, and everything else is itself.
    let text = term.text().replace('\0', " ").replace('"', "\"\"");
    match term {
        Term::Phrase(_) => format!("\"{text}\""),
        Term::Prefix(_) => format!("\"{text}\" *"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_text_without_marks() {
        assert_eq!(ranges("über x".as_bytes(), "\u{fdd0}über\u{fdd1} \u{fdd0}x\u{fdd1}"), [0..5, 6..7]);
        let already = "\u{fdd0}x";
        assert!(ranges(already.as_bytes(), "\u{fdd0}\u{fdd0}x\u{fdd1}").is_empty());
    }

    #[test]
    fn nothing_within_quotes_is_an_operator() {
        let terms = [Term::Phrase("a\" OR \"b".to_owned()), Term::Prefix("c*".to_owned())];
        let expression = expression(AccountId([0xab; 16]), &terms).unwrap();
        let expected = format!("who : \"{}\" AND body : (\"a\"\" OR \"\"b\" AND \"c*\" *)", "AB".repeat(16));
        assert_eq!(expression, expected);
        assert_eq!(super::expression(AccountId([1; 16]), &[Term::Phrase("--".to_owned())]), None);
    }
}
