//! Searching plain text by an index of words.
//!
//! The words are those of the port (`words`), so that every archive finds the same, whatever the language of the database is; the
//! text search of Postgres only keeps them. The accounts of a message are words of it, too, so the index itself leaves out what is
//! not the asker's; the accounts of the row are compared again. Newest first means: one stretch of months after the other, until
//! the page is full.

use quail_core::ports::archive::{
    ArchivedMessage, Content, Found, MESSAGES_PAGE_MAX, Page, PageRoom, Search, Term, hits, words,
};
use quail_protocol::id::AccountId;
use sqlx::{PgConnection, Postgres, QueryBuilder};

use super::fault::Fault;
use super::months::{self, Stretch, Stretches};
use super::read::{NOT_HIDDEN, fitting, in_order, select};
use super::rows::{bound, cut, who};

/// Searches for an account.
pub(super) async fn search(
    connection: &mut PgConnection,
    account: AccountId,
    search: &Search,
) -> Result<Page<Found>, Fault> {
    let Some(expression) = expression(account, &search.terms) else { return Ok(Page::default()) };
    let wanted = search.limit.min(MESSAGES_PAGE_MAX) + 1;
    let spans = months::spans(connection).await?;
    let low = search.since.map_or(0, |since| bound(since.0));
    let until = search.until.map_or(i64::MAX, |until| bound(until.0).saturating_sub(1));
    let high = search.before.map_or(until, |before| bound(before.stamp.0).min(until));
    let mut found = Vec::new();
    for stretch in Stretches::down(spans, low, high) {
        let mut query = search_query(account, &expression, search, stretch, wanted - found.len());
        found.extend(query.build().fetch_all(&mut *connection).await?);
        if found.len() >= wanted {
            break;
        }
    }
    let (shown, more) = fitting(&found, search.limit, &mut PageRoom::default())?;
    let messages = in_order(connection, account, shown).await?;
    let rows = messages.into_iter().map(|message| highlighted(message, &search.terms)).collect();
    Ok(Page { rows, more })
}

fn search_query(
    account: AccountId,
    expression: &str,
    search: &Search,
    stretch: Stretch,
    limit: usize,
) -> QueryBuilder<Postgres> {
    let mut query = select(account);
    query.push("FROM messages AS x WHERE x.words @@ ").push_bind(expression.to_owned()).push("::tsquery");
    query.push(" AND x.state = 1 AND (x.sender = $1 OR x.recipient = $1) AND x.month BETWEEN ");
    query.push_bind(stretch.months.0).push(" AND ").push_bind(stretch.months.1);
    query.push(" AND x.stamp BETWEEN ").push_bind(stretch.low).push(" AND ").push_bind(stretch.high);
    query.push(NOT_HIDDEN);
    if let Some(conversation) = search.conversation {
        query.push(" AND x.conversation = ").push_bind(conversation.as_bytes().to_vec());
    }
    if let Some(from) = search.from {
        query.push(" AND x.sender = ").push_bind(from.as_bytes().to_vec());
    }
    if let Some(before) = search.before {
        query.push(" AND (x.stamp, x.origin) < (").push_bind(bound(before.stamp.0));
        query.push(", ").push_bind(i64::from(before.origin.0)).push(")");
    }
    query.push(" ORDER BY x.stamp DESC, x.origin DESC LIMIT ").push_bind(limit as i64);
    query
}

/// Says where a message matches.
fn highlighted(message: ArchivedMessage, terms: &[Term]) -> Found {
    let text = match &message.content {
        Content::There { body, .. } => std::str::from_utf8(body).unwrap_or_default(),
        _ => "",
    };
    let words = words(text);
    let mut highlights: Vec<_> = terms.iter().flat_map(|term| hits(&words, term)).collect();
    highlights.sort_by_key(|range| (range.start, range.end));
    let mut merged: Vec<std::ops::Range<usize>> = Vec::with_capacity(highlights.len());
    for range in highlights {
        match merged.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    Found { message, highlights: merged }
}

/// Returns the expression for terms that must all stand in what an account may see; `None` if there is none.
fn expression(account: AccountId, terms: &[Term]) -> Option<String> {
    let terms: Vec<_> = terms.iter().filter_map(quoted).collect();
    (!terms.is_empty()).then(|| format!("{} & {}", who(account), terms.join(" & ")))
}

fn quoted(term: &Term) -> Option<String> {
    let words = words(term.text());
    let (last, before) = words.split_last()?;
    let mut quoted: Vec<_> = before.iter().map(|(_, word)| format!("'{}'", cut(word))).collect();
    let star = if matches!(term, Term::Prefix(_)) { ":*" } else { "" };
    quoted.push(format!("'{}'{star}", cut(&last.1)));
    Some(format!("({})", quoted.join(" <-> ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_typed_is_an_operator() {
        let terms = [
            Term::Phrase("a' | 'b".to_owned()),
            Term::Prefix("See! C:*".to_owned()),
            Term::Phrase("--".to_owned()),
        ];
        let expression = expression(AccountId([0xab; 16]), &terms).unwrap();
        assert_eq!(expression, format!("'@{}' & ('a' <-> 'b') & ('see' <-> 'c':*)", "ab".repeat(16)));
        assert_eq!(super::expression(AccountId([1; 16]), &[Term::Phrase("--".to_owned())]), None);
    }
}
