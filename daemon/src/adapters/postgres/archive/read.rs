//! Lists, browsing and syncs.
//!
//! Invariants: every statement names the account that asks; every one finds its rows by an index, which a test looks at.

use std::collections::BTreeMap;

use quail_core::ports::archive::{
    ArchiveError, ArchivedMessage, Browse, CONVERSATIONS_PAGE, Content, ConversationKey, ConversationPage,
    ConversationSummary, MESSAGES_PAGE_MAX, Marker, MessageRef, Page, PageRoom, Place, Reached, Synced,
    UNREAD_MAX,
};
use quail_protocol::id::{AccountId, ConversationId, Position, Stamp};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Postgres, QueryBuilder, Row};

use super::fault::Fault;
use super::months::{self, Stretch, Stretches};
use super::rows::{self, archived, bound, id, number, origin};

/// Columns of `messages AS x` that [`archived`] reads; `$1` is the account that asks.
macro_rules! seen {
    () => {
        "SELECT EXISTS (SELECT 1 FROM hidden AS h WHERE h.account = $1 AND h.sender = x.sender AND h.id = x.id) AS is_hidden, \
         x.sender, x.id, x.device, x.recipient, x.conversation, x.origin, x.position, x.stamp, x.seq, x.state, x.kind, x.body, \
         x.edit_stamp, x.reply_sender, x.reply_id "
    };
}

/// Leaves out what the account that asks has deleted for itself.
macro_rules! not_hidden {
    () => {
        " AND NOT EXISTS (SELECT 1 FROM hidden AS h WHERE h.account = $1 AND h.sender = x.sender AND h.id = x.id) "
    };
}

/// What of a page is looked at before its bodies: which rows, and how long each body is.
macro_rules! sizes {
    () => {
        "SELECT x.month, x.sender, x.id, coalesce(octet_length(x.body), 0) AS size "
    };
}

/// How many messages are unread in a conversation of `members AS m`, up to this parameter; `$1` is the account that asks. Only those
/// of the peer are looked at: somebody may have written nearly everything there.
macro_rules! unread {
    ($max:literal) => {
        concat!(
            "(SELECT count(*) AS count FROM (SELECT 1 FROM reach AS r CROSS JOIN LATERAL (SELECT 1 FROM messages AS x
             WHERE x.conversation = r.conversation AND x.origin = r.origin AND x.state = 1 AND x.sender = m.peer
             AND x.position > coalesce((SELECT k.position FROM markers AS k WHERE k.conversation = r.conversation
                 AND k.account = $1 AND k.kind = 2 AND k.origin = r.origin), 0)",
            not_hidden!(),
            "LIMIT ",
            $max,
            ") AS x WHERE r.conversation = m.conversation AND m.peer <> $1 LIMIT ",
            $max,
            ") AS counted)"
        )
    };
}

/// The same for statements that are put together.
pub(super) const SIZES: &str = sizes!();
pub(super) const NOT_HIDDEN: &str = not_hidden!();

/// Conversations of an account with what a list shows of each, in whatever order.
const CONVERSATIONS: &str = concat!(
    "SELECT m.conversation, m.peer, m.stamp, m.origin, c.seq, last.month, last.sender, last.id, unread.count
     FROM (SELECT * FROM members WHERE account = $1 AND ($2::bigint IS NULL OR (stamp, origin, conversation) < ($2, $3, $4))
         ORDER BY stamp DESC, origin DESC, conversation DESC LIMIT $5) AS m
     JOIN conversations AS c ON c.conversation = m.conversation
     LEFT JOIN LATERAL (SELECT x.month, x.sender, x.id FROM messages AS x
         WHERE x.conversation = m.conversation AND x.state > 0",
    not_hidden!(),
    "    ORDER BY x.stamp DESC, x.origin DESC LIMIT 1) AS last ON TRUE
     CROSS JOIN LATERAL ",
    unread!("$6"),
    " AS unread
     ORDER BY m.stamp DESC, m.origin DESC, m.conversation DESC"
);

/// Refuses a conversation that is not one of the account.
pub(super) async fn check_own(
    connection: &mut PgConnection,
    account: AccountId,
    conversation: ConversationId,
) -> Result<(), Fault> {
    let own = sqlx::query("SELECT 1 FROM members WHERE account = $1 AND conversation = $2")
        .bind(account.as_bytes().as_slice())
        .bind(conversation.as_bytes().as_slice())
        .fetch_optional(connection)
        .await?;
    Ok(own.map(|_| ()).ok_or(ArchiveError::UnknownConversation)?)
}

/// Lists conversations.
pub(super) async fn conversations(
    connection: &mut PgConnection,
    account: AccountId,
    after: Option<ConversationKey>,
) -> Result<ConversationPage, Fault> {
    let rows = sqlx::query(CONVERSATIONS)
        .bind(account.as_bytes().as_slice())
        .bind(after.map(|after| bound(after.place.stamp.0)))
        .bind(after.map_or(0, |after| i64::from(after.place.origin.0)))
        .bind(after.map_or(Vec::new(), |after| after.conversation.as_bytes().to_vec()))
        .bind(CONVERSATIONS_PAGE as i64 + 1)
        .bind(i64::from(UNREAD_MAX))
        .fetch_all(&mut *connection)
        .await?;
    let shown = rows.get(..CONVERSATIONS_PAGE).unwrap_or(&rows);
    let mut last = by_key(connection, account, shown).await?;
    let mut page = ConversationPage::default();
    for row in shown {
        let newest = row.try_get::<Option<i32>, _>("month")?.map(|_| rows::reference(row)).transpose()?;
        let unread: i64 = row.try_get("count")?;
        page.conversations.push(ConversationSummary {
            conversation: id(row, "conversation")?,
            peer: id(row, "peer")?,
            seq: number(row, "seq")?,
            last: newest.and_then(|newest| last.remove(&newest)),
            unread: u32::try_from(unread).unwrap_or(UNREAD_MAX).min(UNREAD_MAX),
            markers: Vec::new(),
        });
    }
    if let (true, Some(row)) = (rows.len() > CONVERSATIONS_PAGE, shown.last()) {
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

const UNREAD: &str = concat!(
    "SELECT ",
    unread!("$3"),
    " AS unread FROM members AS m WHERE m.account = $1 AND m.conversation = $2"
);

/// Counts what is unread in one conversation.
pub(super) async fn unread(
    connection: &mut PgConnection,
    account: AccountId,
    conversation: ConversationId,
) -> Result<u32, Fault> {
    let found = sqlx::query(UNREAD)
        .bind(account.as_bytes().as_slice())
        .bind(conversation.as_bytes().as_slice())
        .bind(i64::from(UNREAD_MAX))
        .fetch_optional(connection)
        .await?;
    let unread: i64 = found.ok_or(ArchiveError::UnknownConversation)?.try_get("unread")?;
    Ok(u32::try_from(unread).unwrap_or(UNREAD_MAX).min(UNREAD_MAX))
}

/// Returns of rows of [`SIZES`], one more than the page may have, those that have room, and whether there are more.
pub(super) fn fitting<'a>(
    rows: &'a [PgRow],
    limit: usize,
    room: &mut PageRoom,
) -> Result<(&'a [PgRow], bool), Fault> {
    let mut count = 0;
    for row in rows.iter().take(limit.min(MESSAGES_PAGE_MAX)) {
        let size: i32 = row.try_get("size")?;
        if !room.take(usize::try_from(size).unwrap_or(usize::MAX)) {
            break;
        }
        count += 1;
    }
    Ok((rows.get(..count).unwrap_or(rows), count < rows.len()))
}

/// Returns the messages of rows of [`SIZES`], in their order.
pub(super) async fn in_order(
    connection: &mut PgConnection,
    account: AccountId,
    rows: &[PgRow],
) -> Result<Vec<ArchivedMessage>, Fault> {
    let mut messages = by_key(connection, account, rows).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        found.extend(messages.remove(&rows::reference(row)?));
    }
    Ok(found)
}

/// Returns the messages that rows name by month, sender and id.
async fn by_key(
    connection: &mut PgConnection,
    account: AccountId,
    rows: &[PgRow],
) -> Result<BTreeMap<MessageRef, ArchivedMessage>, Fault> {
    let (mut months, mut senders, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        if let Some(month) = row.try_get::<Option<i32>, _>("month")? {
            months.push(month);
            senders.push(row.try_get::<&[u8], _>("sender")?);
            ids.push(row.try_get::<&[u8], _>("id")?);
        }
    }
    let rows = sqlx::query(concat!(
        seen!(),
        "FROM unnest($2::integer[], $3::bytea[], $4::bytea[]) AS k (month, sender, id)
         JOIN messages AS x ON x.month = k.month AND x.sender = k.sender AND x.id = k.id"
    ))
    .bind(account.as_bytes().as_slice())
    .bind(months)
    .bind(senders)
    .bind(ids)
    .fetch_all(&mut *connection)
    .await?;
    let messages = read(connection, &rows).await?;
    Ok(messages.into_iter().map(|message| (message.message, message)).collect())
}

async fn markers(
    connection: &mut PgConnection,
    asking: AccountId,
    conversations: &[ConversationId],
) -> Result<BTreeMap<ConversationId, Vec<Marker>>, Fault> {
    let mut markers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let rows = sqlx::query(
        "SELECT conversation, account, kind, origin, position FROM markers WHERE conversation = ANY($1)",
    )
    .bind(conversations.iter().map(|one| one.as_bytes().as_slice()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    for row in rows {
        let account: AccountId = id(&row, "account")?;
        let reached = match row.try_get::<i16, _>("kind")? {
            1 => Reached::Delivered,
            2 if account == asking => Reached::Read,
            3 if account != asking => Reached::Read,
            _ => continue,
        };
        let position = Position(number(&row, "position")?);
        let marker = Marker { account, reached, origin: origin(&row, "origin")?, position };
        markers.entry(id(&row, "conversation")?).or_default().push(marker);
    }
    Ok(markers)
}

const BEFORE: &str = concat!(
    sizes!(),
    "FROM messages AS x WHERE x.conversation = $2 AND x.state > 0 AND x.month BETWEEN $3 AND $4 AND x.stamp BETWEEN $5 AND $6
     AND (x.stamp, x.origin) < ($7, $8)",
    not_hidden!(),
    "ORDER BY x.stamp DESC, x.origin DESC LIMIT $9"
);

const AFTER: &str = concat!(
    sizes!(),
    "FROM messages AS x WHERE x.conversation = $2 AND x.state > 0 AND x.month BETWEEN $3 AND $4 AND x.stamp BETWEEN $5 AND $6
     AND (x.stamp, x.origin) > ($7, $8)",
    not_hidden!(),
    "ORDER BY x.stamp, x.origin LIMIT $9"
);

/// Shows a part of a conversation.
pub(super) async fn browse(
    connection: &mut PgConnection,
    account: AccountId,
    conversation: ConversationId,
    which: Browse,
    limit: usize,
) -> Result<Page<ArchivedMessage>, Fault> {
    let wanted = limit.min(MESSAGES_PAGE_MAX) + 1;
    let spans = months::spans(connection).await?;
    let place = |place: Place| (bound(place.stamp.0), i64::from(place.origin.0));
    let (statement, stretches, (stamp, origin)) = match which {
        Browse::Before(before) => {
            let before = before.map_or((i64::MAX, i64::MAX), place);
            (BEFORE, Stretches::down(spans, 0, before.0), before)
        }
        Browse::After(after) => {
            let after = after.map_or((-1, -1), place);
            (AFTER, Stretches::up(spans, after.0.max(0), i64::MAX), after)
        }
    };
    let mut found = Vec::new();
    for Stretch { low, high, months } in stretches {
        let rows = sqlx::query(statement)
            .bind(account.as_bytes().as_slice())
            .bind(conversation.as_bytes().as_slice())
            .bind(months.0)
            .bind(months.1)
            .bind(low)
            .bind(high)
            .bind(stamp)
            .bind(origin)
            .bind((wanted - found.len()) as i64)
            .fetch_all(&mut *connection)
            .await?;
        found.extend(rows);
        if found.len() >= wanted {
            break;
        }
    }
    let (shown, more) = fitting(&found, limit, &mut PageRoom::default())?;
    Ok(Page { rows: in_order(connection, account, shown).await?, more })
}

const SYNC: &str = concat!(
    sizes!(),
    "FROM messages AS x WHERE x.conversation = $1 AND x.state > 0 AND x.seq > $2 ORDER BY x.seq LIMIT $3"
);

/// Says what changed in a conversation.
pub(super) async fn sync(
    connection: &mut PgConnection,
    account: AccountId,
    (conversation, behind, limit): (ConversationId, u64, usize),
    room: &mut PageRoom,
) -> Result<Synced, Fault> {
    let found = sqlx::query(
        "SELECT c.seq, c.floor FROM members AS m JOIN conversations AS c ON c.conversation = m.conversation
         WHERE m.account = $1 AND m.conversation = $2",
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
    let found = sqlx::query(SYNC)
        .bind(conversation.as_bytes().as_slice())
        .bind(bound(behind))
        .bind(limit.min(MESSAGES_PAGE_MAX) as i64 + 1)
        .fetch_all(&mut *connection)
        .await?;
    let (shown, more) = fitting(&found, limit, room)?;
    let rows = in_order(connection, account, shown).await?;
    let seq = match rows.last() {
        _ if !more => seq,
        Some(last) => last.seq,
        None => behind,
    };
    Ok(Synced::Changed { rows, seq, more })
}

/// Begins a statement that looks at messages as an account sees them; the account is its first value.
pub(super) fn select(account: AccountId) -> QueryBuilder<Postgres> {
    // The first value that is bound is `$1`, wherever it stands.
    let mut query = QueryBuilder::new("WITH asking AS (SELECT ");
    query.push_bind(account.as_bytes().to_vec()).push("::bytea) ").push(SIZES);
    query
}

/// Reads messages, with their reactions.
async fn read(connection: &mut PgConnection, rows: &[PgRow]) -> Result<Vec<ArchivedMessage>, Fault> {
    let mut messages = rows.iter().map(archived).collect::<Result<Vec<_>, _>>()?;
    if messages.is_empty() {
        return Ok(messages);
    }
    let found = sqlx::query(
        "SELECT r.sender, r.id, r.account, r.reaction FROM unnest($1::bytea[], $2::bytea[]) AS k (sender, id)
         JOIN reactions AS r ON r.sender = k.sender AND r.id = k.id WHERE r.reaction IS NOT NULL ORDER BY r.account",
    )
    .bind(messages.iter().map(|one| one.message.sender.as_bytes().to_vec()).collect::<Vec<_>>())
    .bind(messages.iter().map(|one| one.message.id.as_bytes().to_vec()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let mut reactions: BTreeMap<MessageRef, Vec<(AccountId, String)>> = BTreeMap::new();
    for row in found {
        let one = (id(&row, "account")?, rows::reaction(&row)?);
        reactions.entry(rows::reference(&row)?).or_default().push(one);
    }
    for message in &mut messages {
        let is_there = matches!(message.content, Content::There { .. });
        message.reactions = reactions.remove(&message.message).filter(|_| is_there).unwrap_or_default();
    }
    Ok(messages)
}
