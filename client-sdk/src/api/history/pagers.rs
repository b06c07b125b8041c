//! Page by page: each pager asks the server when it is asked, and goes on where the page before ended.
//!
//! Invariant: a page that failed, or whose future was dropped, changes nothing, so it can be asked for again.

use std::collections::VecDeque;
use std::fmt::Debug;

use futures_core::Stream;
use quail_protocol::id::AccountId;
use quail_protocol::limits::SYNC_CONVERSATIONS_MAX;
use quail_protocol::v1::{self, Reason, request, response};

use super::super::{Repeat, wrong_answer};
use super::stream::Pages;
use super::{Conversation, Direction, Found, HistoryMessage, HistoryPlace, Page, SyncedConversation, wire};
use crate::shared::Shared;
use crate::{Client, Error};

/// Conversations, page by page.
#[derive(Debug)]
pub struct ConversationPager {
    client: Client,
    after: Option<v1::ConversationKey>,
    is_over: bool,
}

impl ConversationPager {
    pub(super) fn new(client: &Client) -> Self {
        Self { client: client.clone(), after: None, is_over: false }
    }

    /// Returns the next page; `None` behind the last.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NO_HISTORY`, or temporarily with `ARCHIVE_UNAVAILABLE`, `RATE_LIMITED`, `DIRECTORY_UNAVAILABLE`;
    /// [`Error::TimedOut`] if the server cannot be reached; the reason if the client has ended. The same page can be asked for again.
    pub async fn next_page(&mut self) -> Result<Option<Page<Conversation>>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let shared = self.client.shared();
        let asked = v1::ListConversations { after: self.after.clone(), accepted: shared.recent.accepted() };
        let answer = ask(shared, "conversations", request::Command::Conversations(asked)).await?;
        let response::Result::Conversations(page) = answer else { return Err(wrong_answer("conversations")) };
        let archived = wire::archived(page.archived);
        let items = page.conversations.into_iter().map(wire::conversation).collect::<Result<_, _>>()?;
        self.is_over = page.next.is_none();
        self.after = page.next;
        Ok(Some(Page { items, archived }))
    }

    /// Returns the pages as a stream. It asks while it is polled and not ahead. After an error it asks for the same page again, so a
    /// program that does not want that stops there.
    pub fn into_stream(self) -> impl Stream<Item = Result<Page<Conversation>, Error>> + Send + Unpin + Debug {
        Pages::new(self, |mut pager| {
            Box::pin(async move {
                let page = pager.next_page().await;
                (pager, page)
            })
        })
    }
}

/// Messages of a conversation, page by page.
#[derive(Debug)]
pub struct HistoryPager {
    client: Client,
    peer: AccountId,
    direction: Direction,
    from: Option<HistoryPlace>,
    limit: u32,
    is_first: bool,
    is_over: bool,
}

impl HistoryPager {
    pub(super) fn new(
        client: &Client,
        peer: AccountId,
        (direction, from): (Direction, Option<HistoryPlace>),
        limit: u32,
    ) -> Self {
        let (client, is_first) = (client.clone(), from.is_none());
        Self { client, peer, direction, from, limit, is_first, is_over: false }
    }

    /// Returns the next page; `None` behind the last.
    ///
    /// # Errors
    /// As [`ConversationPager::next_page`], and [`Error::Refused`] with `UNKNOWN_CONVERSATION` if the account has none with this peer.
    pub async fn next_page(&mut self) -> Result<Option<Page<HistoryMessage>>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let shared = self.client.shared();
        let direction = match self.direction {
            Direction::Older => v1::Direction::Older,
            Direction::Newer => v1::Direction::Newer,
        };
        let asked = v1::BrowseHistory {
            peer: self.peer.to_bytes(),
            direction: direction.into(),
            place: self.from.map(wire::place),
            limit: self.limit,
            accepted: shared.recent.accepted(),
        };
        let own = self.client.account();
        let page = match ask(shared, "history", request::Command::History(asked)).await {
            Ok(response::Result::History(page)) => page,
            Ok(_) => return Err(wrong_answer("history")),
            // A first message is known here before it is archived.
            Err(Error::Refused(refusal))
                if refusal.reason == Reason::UnknownConversation && shared.recent.holds(own, self.peer) =>
            {
                let archived = v1::Archived { behind: true, ..Default::default() };
                v1::History { archived: Some(archived), ..Default::default() }
            }
            Err(error) => return Err(error),
        };
        let archived = wire::archived(page.archived);
        let mut items = page.messages.into_iter().map(wire::message).collect::<Result<Vec<_>, _>>()?;
        // Without a message there is no place to go on from.
        self.is_over = !page.more || items.is_empty();
        let last = items.last().map(HistoryMessage::place);
        let held = shared.recent.beside((own, self.peer), &archived, &items);
        match self.direction {
            Direction::Older if self.is_first => {
                // What is older than this page belongs to one that is archived by then.
                let is_here =
                    |held: &HistoryMessage| self.is_over || last.is_none_or(|last| held.place() > last);
                items.extend(held.into_iter().filter(is_here));
                items.sort_by_key(|message| std::cmp::Reverse(message.place()));
            }
            Direction::Newer if self.is_over => {
                let behind = last.max(self.from);
                items.extend(
                    held.into_iter().filter(|held| behind.is_none_or(|behind| held.place() > behind)),
                );
                items.sort_by_key(HistoryMessage::place);
            }
            Direction::Older | Direction::Newer => {}
        }
        shared.recent.amend(own, &archived, &mut items);
        self.is_first = false;
        self.from = last.or(self.from);
        Ok(Some(Page { items, archived }))
    }

    /// Returns the pages as a stream, as [`ConversationPager::into_stream`].
    pub fn into_stream(
        self,
    ) -> impl Stream<Item = Result<Page<HistoryMessage>, Error>> + Send + Unpin + Debug {
        Pages::new(self, |mut pager| {
            Box::pin(async move {
                let page = pager.next_page().await;
                (pager, page)
            })
        })
    }
}

/// Messages that were found, page by page.
#[derive(Debug)]
pub struct SearchPager {
    client: Client,
    text: String,
    peer: Option<AccountId>,
    before: Option<HistoryPlace>,
    limit: u32,
    is_over: bool,
}

impl SearchPager {
    pub(super) fn new(client: &Client, text: &str, peer: Option<AccountId>, limit: u32) -> Self {
        Self { client: client.clone(), text: text.to_owned(), peer, before: None, limit, is_over: false }
    }

    /// Returns the next page; `None` behind the last.
    ///
    /// # Errors
    /// As [`HistoryPager::next_page`].
    pub async fn next_page(&mut self) -> Result<Option<Page<Found>>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let shared = self.client.shared();
        let asked = v1::SearchHistory {
            text: self.text.clone(),
            peer: self.peer.map(AccountId::to_bytes).unwrap_or_default(),
            before: self.before.map(wire::place),
            limit: self.limit,
            accepted: shared.recent.accepted(),
        };
        let answer = ask(shared, "search", request::Command::Search(asked)).await?;
        let response::Result::Found(page) = answer else { return Err(wrong_answer("search")) };
        let archived = wire::archived(page.archived);
        let items = page.found.into_iter().map(wire::found).collect::<Result<Vec<_>, _>>()?;
        self.is_over = !page.more || items.is_empty();
        self.before = items.last().map(|found| found.message.place());
        Ok(Some(Page { items, archived }))
    }

    /// Returns the pages as a stream, as [`ConversationPager::into_stream`].
    pub fn into_stream(self) -> impl Stream<Item = Result<Page<Found>, Error>> + Send + Unpin + Debug {
        Pages::new(self, |mut pager| {
            Box::pin(async move {
                let page = pager.next_page().await;
                (pager, page)
            })
        })
    }
}

/// What changed, page by page.
#[derive(Debug)]
pub struct SyncPager {
    client: Client,
    left: VecDeque<(AccountId, u64)>,
}

impl SyncPager {
    pub(super) fn new(client: &Client, left: VecDeque<(AccountId, u64)>) -> Self {
        Self { client: client.clone(), left }
    }

    /// Returns the next page; `None` behind the last. A conversation in which much changed is on several pages.
    ///
    /// # Errors
    /// As [`ConversationPager::next_page`].
    pub async fn next_page(&mut self) -> Result<Option<Page<SyncedConversation>>, Error> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let shared = self.client.shared();
        let asked = self.left.iter().take(SYNC_CONVERSATIONS_MAX);
        let (peers, seqs): (Vec<_>, Vec<_>) = asked.map(|(peer, seq)| (*peer.as_bytes(), *seq)).unzip();
        let accepted = shared.recent.accepted();
        let asked = v1::SyncHistory { peers: peers.concat().into(), seqs, limit: 0, accepted };
        let answer = ask(shared, "sync", request::Command::Sync(asked)).await?;
        let response::Result::Synced(page) = answer else { return Err(wrong_answer("sync")) };
        let archived = wire::archived(page.archived);
        let mut items = Vec::new();
        let mut rest = Vec::new();
        if page.conversations.is_empty() {
            return Err(Error::protocol("a sync that does not get on"));
        }
        for (one, asked) in page.conversations.into_iter().zip(self.left.iter()) {
            let is_more = one.more;
            let synced = wire::synced(one)?;
            if synced.peer != asked.0 {
                return Err(Error::protocol("a sync answers what was not asked"));
            }
            if is_more && synced.seq <= asked.1 {
                return Err(Error::protocol("a sync that does not get on"));
            }
            rest.extend(is_more.then_some((synced.peer, synced.seq)));
            items.push(synced);
        }
        self.left.drain(..items.len());
        rest.into_iter().rev().for_each(|again| self.left.push_front(again));
        Ok(Some(Page { items, archived }))
    }

    /// Returns the pages as a stream, as [`ConversationPager::into_stream`].
    pub fn into_stream(
        self,
    ) -> impl Stream<Item = Result<Page<SyncedConversation>, Error>> + Send + Unpin + Debug {
        Pages::new(self, |mut pager| {
            Box::pin(async move {
                let page = pager.next_page().await;
                (pager, page)
            })
        })
    }
}

async fn ask(
    shared: &Shared,
    what: &'static str,
    command: request::Command,
) -> Result<response::Result, Error> {
    shared.ask(what, command, Repeat::Yes).await
}
