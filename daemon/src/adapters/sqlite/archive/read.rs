//! Lists, browsing and syncs.
//!
//! Invariants: every statement names the account that asks; every one finds its rows by an index, which a test looks at.

use std::collections::BTreeMap;

use quail_core::ports::archive::{
    ArchiveError, ArchivedMessage, Browse, CONVERSATIONS_PAGE, ConversationKey, ConversationPage,
    ConversationSummary, MESSAGES_PAGE_MAX, Marker, Page, PageRoom, Place, Reached, Synced, UNREAD_MAX,
};
use quail_protocol::id::{AccountId, ConversationId, Position, Stamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::fault::Fault;
use super::rows::{self, SEEN, SEEN_BY, archived, id, number, origin};

/// Conversations of an account with what a list shows of each, up to [`UNREAD`].
const CONVERSATIONS: &str = "SELECT m.conversation, m.peer, m.stamp, m.origin, c.seq,
    (SELECT x.n FROM messages AS x WHERE x.conversation = m.conversation AND x.state > 0
        AND NOT EXISTS (SELECT 1 FROM hidden AS h WHERE h.account = m.account AND h.n = x.n)
        ORDER BY x.stamp DESC, x.origin DESC LIMIT 1) AS last, ";

/// How many messages are unread in a conversation of `members AS m`, up to the most that are counted. Only those of the peer are looked
/// at: somebody may have written nearly everything there.
const UNREAD: &str = "
    (SELECT count(*) FROM (SELECT 1 FROM reach AS r CROSS JOIN messages AS x
        ON x.conversation = r.conversation AND x.origin = r.origin AND x.sender = m.peer AND x.state = 1
        AND x.position > coalesce((SELECT k.position FROM markers AS k WHERE k.conversation = r.conversation
            AND k.account = m.account AND k.kind = 2 AND k.origin = r.origin), 0)
        WHERE r.conversation = m.conversation AND m.peer <> m.account
        AND NOT EXISTS (SELECT 1 FROM hidden AS h WHERE h.account = m.account AND h.n = x.n)
        LIMIT ";

/// The rest of the list, behind the most unread that are counted; the account follows.
const CONVERSATIONS_OF: &str = ")) AS unread
    FROM members AS m CROSS JOIN conversations AS c ON c.conversation = m.conversation WHERE m.account = ";

const NEWEST_FIRST: &str = " ORDER BY m.stamp DESC, m.origin DESC, m.conversation DESC LIMIT ";

/// Refuses a conversation that is not one of the account.
pub(super) async fn check_own(
    connection: &mut SqliteConnection,
    account: AccountId,
    conversation: ConversationId,
) -> Result<(), Fault> {
    let own = sqlx::query("SELECT 1 FROM members WHERE account = ?1 AND conversation = ?2")
        .bind(account.as_bytes().as_slice())
        .bind(conversation.as_bytes().as_slice())
        .fetch_optional(connection)
        .await?;
    Ok(own.map(|_| ()).ok_or(ArchiveError::UnknownConversation)?)
}

/// Lists conversations.
pub(super) async fn conversations(
    connection: &mut SqliteConnection,
    account: AccountId,
    after: Option<ConversationKey>,
) -> Result<ConversationPage, Fault> {
    let rows = list_query(account, after).build().fetch_all(&mut *connection).await?;
    let ns: Vec<i64> = rows.iter().filter_map(|row| row.try_get("last").ok()).collect();
    let mut last = by_n(connection, account, &ns).await?;
    let mut page = ConversationPage::default();
    for row in rows.iter().take(CONVERSATIONS_PAGE) {
        let n: Option<i64> = row.try_get("last")?;
        let unread: i64 = row.try_get("unread")?;
        page.conversations.push(ConversationSummary {
            conversation: id(row, "conversation")?,
            peer: id(row, "peer")?,
            seq: number(row, "seq")?,
            last: n.and_then(|n| last.remove(&n)),
            unread: u32::try_from(unread).unwrap_or(UNREAD_MAX),
            markers: Vec::new(),
        });
    }
    if rows.len() > CONVERSATIONS_PAGE
        && let Some(row) = rows.get(CONVERSATIONS_PAGE - 1)
    {
        let place = Place { stamp: Stamp(number(row, "stamp")?), origin: origin(row, "origin")? };
        page.next = Some(ConversationKey { place, conversation: id(row, "conversation")? });
    }
    let ids: Vec<_> = page.conversations.iter().map(|one| one.conversation).collect();
    let mut markers = markers(connection, account, &ids).await?;
    for summary in &mut page.conversations {
        summary.markers = markers.remove(&summary.conversation).unwrap_or_default();
        summary.markers.sort_unstable();
    }
    Ok(page)
}

pub(super) fn list_query(account: AccountId, after: Option<ConversationKey>) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::<Sqlite>::new(CONVERSATIONS);
    query.push(UNREAD).push_bind(i64::from(UNREAD_MAX)).push(CONVERSATIONS_OF);
    query.push_bind(account.as_bytes().as_slice());
    if let Some(ConversationKey { place, conversation }) = after {
        query.push(" AND (m.stamp, m.origin, m.conversation) < (");
        query.push_bind(place.stamp.0.cast_signed()).push(", ");
        query.push_bind(i64::from(place.origin.0)).push(", ");
        query.push_bind(conversation.as_bytes().as_slice()).push(")");
    }
    query.push(NEWEST_FIRST);
    query.push_bind(CONVERSATIONS_PAGE as i64 + 1);
    query
}

/// Counts what is unread in one conversation.
pub(super) async fn unread(
    connection: &mut SqliteConnection,
    account: AccountId,
    conversation: ConversationId,
) -> Result<u32, Fault> {
    let found = unread_query(account, conversation).build().fetch_optional(connection).await?;
    let row = found.ok_or(ArchiveError::UnknownConversation)?;
    Ok(u32::try_from(row.try_get::<i64, _>("unread")?).unwrap_or(UNREAD_MAX))
}

pub(super) fn unread_query(account: AccountId, conversation: ConversationId) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::<Sqlite>::new("SELECT ");
    query
        .push(UNREAD)
        .push_bind(i64::from(UNREAD_MAX))
        .push(")) AS unread FROM members AS m WHERE m.account = ");
    query.push_bind(account.as_bytes().as_slice()).push(" AND m.conversation = ");
    query.push_bind(conversation.as_bytes().as_slice());
    query
}

/// What of a page is looked at before its bodies: which rows, and how long each body is. SQLite knows the length of a blob without
/// reading it.
pub(super) const SIZES: &str = "SELECT x.n, coalesce(length(x.body), 0) AS size ";

/// Runs a query of [`SIZES`] that asks for one row more than the page may have, and returns the numbers of the rows that have room,
/// and whether there are more.
pub(super) async fn fitting(
    connection: &mut SqliteConnection,
    mut query: QueryBuilder<Sqlite>,
    limit: usize,
    room: &mut PageRoom,
) -> Result<(Vec<i64>, bool), Fault> {
    let rows = query.build().fetch_all(&mut *connection).await?;
    let mut ns = Vec::with_capacity(rows.len());
    for row in rows.iter().take(limit.min(MESSAGES_PAGE_MAX)) {
        let size: i64 = row.try_get("size")?;
        if !room.take(usize::try_from(size).unwrap_or(usize::MAX)) {
            break;
        }
        ns.push(row.try_get("n")?);
    }
    let more = ns.len() < rows.len();
    Ok((ns, more))
}

/// Returns messages in the order of these numbers of their rows.
pub(super) async fn in_order(
    connection: &mut SqliteConnection,
    account: AccountId,
    ns: &[i64],
) -> Result<Vec<(i64, ArchivedMessage)>, Fault> {
    let mut messages = by_n(connection, account, ns).await?;
    Ok(ns.iter().filter_map(|n| messages.remove_entry(n)).collect())
}

/// Returns messages by the numbers of their rows.
async fn by_n(
    connection: &mut SqliteConnection,
    account: AccountId,
    ns: &[i64],
) -> Result<BTreeMap<i64, ArchivedMessage>, Fault> {
    if ns.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = by_n_query(account, ns).build().fetch_all(&mut *connection).await?;
    Ok(read(connection, &rows).await?.into_iter().collect())
}

pub(super) fn by_n_query(account: AccountId, ns: &[i64]) -> QueryBuilder<Sqlite> {
    let mut query = select(account);
    query.push("FROM messages AS x WHERE x.n IN (");
    list_of(&mut query, ns);
    query
}

async fn markers(
    connection: &mut SqliteConnection,
    asking: AccountId,
    conversations: &[ConversationId],
) -> Result<BTreeMap<ConversationId, Vec<Marker>>, Fault> {
    let mut markers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for piece in rows::pieces(conversations) {
        let mut query = QueryBuilder::<Sqlite>::new(
            "SELECT conversation, account, kind, origin, position FROM markers WHERE conversation IN (",
        );
        let mut list = query.separated(", ");
        for conversation in piece {
            list.push_bind(conversation.as_bytes().as_slice());
        }
        query.push(")");
        for row in query.build().fetch_all(&mut *connection).await? {
            let account: AccountId = id(&row, "account")?;
            let reached = match row.try_get::<i64, _>("kind")? {
                1 => Reached::Delivered,
                2 if account == asking => Reached::Read,
                3 if account != asking => Reached::Read,
                _ => continue,
            };
            let position = Position(number(&row, "position")?);
            let marker = Marker { account, reached, origin: origin(&row, "origin")?, position };
            markers.entry(id(&row, "conversation")?).or_default().push(marker);
        }
    }
    Ok(markers)
}

/// Shows a part of a conversation.
pub(super) async fn browse(
    connection: &mut SqliteConnection,
    account: AccountId,
    conversation: ConversationId,
    which: Browse,
    limit: usize,
) -> Result<Page<ArchivedMessage>, Fault> {
    let query = browse_query(account, conversation, which, limit);
    let (ns, more) = fitting(connection, query, limit, &mut PageRoom::default()).await?;
    let rows = in_order(connection, account, &ns).await?.into_iter().map(|(_, message)| message).collect();
    Ok(Page { rows, more })
}

pub(super) fn browse_query(
    account: AccountId,
    conversation: ConversationId,
    which: Browse,
    limit: usize,
) -> QueryBuilder<Sqlite> {
    let (place, compared, order) = match which {
        Browse::Before(place) => (place, "<", "x.stamp DESC, x.origin DESC"),
        Browse::After(place) => (place, ">", "x.stamp, x.origin"),
    };
    let mut query = QueryBuilder::new(SIZES);
    query.push("FROM messages AS x WHERE x.state > 0 AND x.conversation = ");
    query.push_bind(conversation.as_bytes().as_slice());
    not_hidden(&mut query, account);
    if let Some(place) = place {
        query.push(" AND (x.stamp, x.origin) ").push(compared).push(" (");
        push_place(&mut query, place);
    }
    query.push(" ORDER BY ").push(order).push(" LIMIT ");
    query.push_bind(limit.min(MESSAGES_PAGE_MAX) as i64 + 1);
    query
}

/// Says what changed in a conversation since a seq, at most so many rows.
pub(super) async fn sync(
    connection: &mut SqliteConnection,
    account: AccountId,
    (conversation, behind, limit): (ConversationId, u64, usize),
    room: &mut PageRoom,
) -> Result<Synced, Fault> {
    let found = sqlx::query(
        "SELECT c.seq, c.floor FROM members AS m CROSS JOIN conversations AS c ON c.conversation = m.conversation
         WHERE m.account = ?1 AND m.conversation = ?2",
    )
    .bind(account.as_bytes().as_slice())
    .bind(conversation.as_bytes().as_slice())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(found) = found else { return Ok(Synced::Unknown) };
    let (seq, floor) = (number(&found, "seq")?, number(&found, "floor")?);
    if behind < floor || behind > seq {
        return Ok(Synced::Reload { seq });
    }
    let query = sync_query(conversation, behind, limit);
    let (ns, more) = fitting(connection, query, limit, room).await?;
    let rows: Vec<_> =
        in_order(connection, account, &ns).await?.into_iter().map(|(_, message)| message).collect();
    let seq = match rows.last() {
        _ if !more => seq,
        Some(last) => last.seq,
        None => behind,
    };
    Ok(Synced::Changed { rows, seq, more })
}

pub(super) fn sync_query(conversation: ConversationId, behind: u64, limit: usize) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(SIZES);
    query.push("FROM messages AS x WHERE x.conversation = ");
    query.push_bind(conversation.as_bytes().as_slice()).push(" AND x.state > 0 AND x.seq > ");
    query.push_bind(behind.cast_signed()).push(" ORDER BY x.seq LIMIT ");
    query.push_bind(limit.min(MESSAGES_PAGE_MAX) as i64 + 1);
    query
}

/// Begins a statement that reads messages as an account sees them.
fn select(account: AccountId) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(SEEN_BY);
    query.push_bind(account.as_bytes().as_slice()).push(SEEN);
    query
}

/// Leaves out what the account has deleted for itself.
pub(super) fn not_hidden(query: &mut QueryBuilder<Sqlite>, account: AccountId) {
    query.push(" AND NOT EXISTS (SELECT 1 FROM hidden AS h WHERE h.n = x.n AND h.account = ");
    query.push_bind(account.as_bytes().as_slice()).push(")");
}

/// Binds a place and closes its bracket.
pub(super) fn push_place(query: &mut QueryBuilder<Sqlite>, place: Place) {
    query.push_bind(place.stamp.0.cast_signed()).push(", ");
    query.push_bind(i64::from(place.origin.0)).push(")");
}

/// Binds numbers and closes their bracket. The last is bound again up to a power of two, so that there are few different statements.
pub(super) fn list_of(query: &mut QueryBuilder<Sqlite>, ns: &[i64]) {
    let mut list = query.separated(", ");
    let again = ns.last().into_iter().cycle().take(ns.len().next_power_of_two() - ns.len());
    for n in ns.iter().chain(again) {
        list.push_bind(*n);
    }
    query.push(")");
}

/// Reads messages, with their reactions.
async fn read(
    connection: &mut SqliteConnection,
    rows: &[SqliteRow],
) -> Result<Vec<(i64, ArchivedMessage)>, Fault> {
    let mut messages = rows.iter().map(archived).collect::<Result<Vec<_>, _>>()?;
    let ns: Vec<_> = messages.iter().map(|(n, _)| *n).collect();
    if ns.is_empty() {
        return Ok(messages);
    }
    let mut query = QueryBuilder::<Sqlite>::new(
        "SELECT n, account, reaction FROM reactions WHERE reaction IS NOT NULL AND n IN (",
    );
    list_of(&mut query, &ns);
    query.push(" ORDER BY n, account");
    let mut reactions: BTreeMap<i64, Vec<(AccountId, String)>> = BTreeMap::new();
    for row in query.build().fetch_all(connection).await? {
        let one = (id(&row, "account")?, row.try_get("reaction")?);
        reactions.entry(row.try_get("n")?).or_default().push(one);
    }
    for (n, message) in &mut messages {
        let is_there = matches!(message.content, quail_core::ports::archive::Content::There { .. });
        message.reactions = reactions.remove(n).filter(|_| is_there).unwrap_or_default();
    }
    Ok(messages)
}
