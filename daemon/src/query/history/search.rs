//! Search: messages of the account that asks, by what stands in them.

use quail_core::ports::archive::{Found, Search, SearchText, direct};
use quail_core::ports::directory::SessionFacts;
use quail_protocol::v1;

use super::page::Room;
use super::{History, QueryError, in_time, page_limit, peer, unless_behind, wire};

/// Most stretches of one message that are marked.
const HIGHLIGHTS_MAX: usize = 64;

impl History {
    /// Searches the account's conversations, or one of them.
    ///
    /// # Errors
    /// `MALFORMED` for a peer that is none, `UNKNOWN_CONVERSATION`, `UNAUTHENTICATED`, `ARCHIVE_UNAVAILABLE`,
    /// `DIRECTORY_UNAVAILABLE`, `INTERNAL`. No text is an error.
    pub async fn search(
        &self,
        session: &SessionFacts,
        asked: v1::SearchHistory,
    ) -> Result<v1::SearchResults, QueryError> {
        let account = session.account;
        let conversation = match &asked.peer[..] {
            [] => None,
            bytes => Some(direct(account, peer(bytes)?)),
        };
        let SearchText { terms, from, since, until } = SearchText::parse(&asked.text);
        let limit = page_limit(asked.limit);
        let archived = self.begin(session, asked.accepted).await?;
        let nothing = v1::SearchResults { found: Vec::new(), more: false, archived: Some(archived) };
        let from = match from {
            None => None,
            // Whether there is nobody of that name, or nothing from somebody, is one answer.
            Some(handle) => match self.directory.look_up(handle).await? {
                Some(facts) => Some(facts.account),
                None => return Ok(nothing),
            },
        };
        let before = asked.before.map(wire::to_place);
        let search = Search { conversation, terms, from, since, until, before, limit };
        let page = unless_behind(&archived, in_time(self.archive.search(account, search)).await)?;
        let (found, is_cut) = Room::new().fill(page.rows.into_iter().map(found));
        Ok(v1::SearchResults { found, more: page.more || is_cut, ..nothing })
    }
}

fn found(found: Found) -> v1::FoundMessage {
    let ends = found.highlights.into_iter().take(HIGHLIGHTS_MAX).flat_map(|range| [range.start, range.end]);
    // A body is far below 4 GiB.
    let highlights = ends.map(|end| u32::try_from(end).unwrap_or(u32::MAX)).collect();
    v1::FoundMessage { message: Some(wire::message(found.message)), highlights }
}
