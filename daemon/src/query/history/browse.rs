//! Browse: messages of one conversation, in either direction.

use quail_core::ports::archive::{Browse, direct};
use quail_core::ports::directory::SessionFacts;
use quail_protocol::v1::{self, Direction};

use super::page::Room;
use super::{History, QueryError, in_time, page_limit, peer, unless_behind, wire};

impl History {
    /// Shows a part of a conversation.
    ///
    /// # Errors
    /// `MALFORMED` for a peer or a direction that is none, `UNKNOWN_CONVERSATION`, `UNAUTHENTICATED`, `ARCHIVE_UNAVAILABLE`,
    /// `DIRECTORY_UNAVAILABLE`, `INTERNAL`.
    pub async fn browse(
        &self,
        session: &SessionFacts,
        asked: v1::BrowseHistory,
    ) -> Result<v1::History, QueryError> {
        let conversation = direct(session.account, peer(&asked.peer)?);
        let place = asked.place.map(wire::to_place);
        let which = match Direction::try_from(asked.direction) {
            Ok(Direction::Unspecified | Direction::Older) => Browse::Before(place),
            Ok(Direction::Newer) => Browse::After(place),
            Err(_) => return Err(QueryError::Malformed("no such direction".to_owned())),
        };
        let limit = page_limit(asked.limit);
        let archived = self.begin(session, asked.accepted).await?;
        let reading = self.archive.browse(session.account, conversation, which, limit);
        let page = unless_behind(&archived, in_time(reading).await)?;
        let (messages, is_cut) = Room::new().fill(page.rows.into_iter().map(wire::message));
        Ok(v1::History { messages, more: page.more || is_cut, archived: Some(archived) })
    }
}
