//! What a batch leaves behind in conversations: their seqs, their newest messages, how far they reach.
//!
//! Invariants: a conversation is locked before anything of it is read that a batch relies on, and seqs are given under that lock, so
//! a seq that is seen is never followed by a smaller one that comes later. Locks are taken in the order of ids: first all rows that
//! are missing are made, then all are locked, so two daemons never wait for each other crosswise.

use std::collections::{BTreeMap, BTreeSet};

use quail_core::ports::archive::{NewMessage, Place};
use quail_protocol::id::{AccountId, ConversationId, Origin, Position};
use sqlx::PgConnection;

use super::fault::Fault;
use super::rows::{id, int, number};

#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    seq: u64,
    floor: u64,
    is_changed: bool,
}

/// Everything of the conversations that a batch touches.
#[derive(Default)]
pub(super) struct Trail {
    counters: BTreeMap<ConversationId, Counter>,
    members: BTreeMap<(AccountId, ConversationId), (AccountId, Place)>,
    reach: BTreeMap<(ConversationId, Origin), Position>,
    /// Conversations whose newest message may have become an older one, and whose they are.
    sunk: BTreeMap<ConversationId, [AccountId; 2]>,
}

impl Trail {
    /// Locks conversations and reads where they stand.
    pub(super) async fn lock(
        &mut self,
        connection: &mut PgConnection,
        conversations: &BTreeSet<ConversationId>,
    ) -> Result<(), Fault> {
        let new = conversations.iter().filter(|one| !self.counters.contains_key(one));
        let new: Vec<_> = new.map(|one| one.as_bytes().as_slice()).collect();
        if new.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO conversations (conversation) SELECT c FROM unnest($1::bytea[]) AS c ORDER BY c
             ON CONFLICT DO NOTHING",
        )
        .bind(&new)
        .execute(&mut *connection)
        .await?;
        let rows = sqlx::query(
            "SELECT conversation, seq, floor FROM conversations WHERE conversation = ANY($1)
             ORDER BY conversation FOR NO KEY UPDATE",
        )
        .bind(&new)
        .fetch_all(connection)
        .await?;
        for row in rows {
            let counter =
                Counter { seq: number(&row, "seq")?, floor: number(&row, "floor")?, is_changed: false };
            self.counters.insert(id(&row, "conversation")?, counter);
        }
        Ok(())
    }

    /// Returns whether a conversation is locked.
    pub(super) fn has(&self, conversation: ConversationId) -> bool {
        self.counters.contains_key(&conversation)
    }

    /// Returns the next seq of a conversation, which is locked.
    pub(super) fn next(&mut self, conversation: ConversationId) -> u64 {
        let counter = self.counters.entry(conversation).or_default();
        counter.seq += 1;
        counter.is_changed = true;
        counter.seq
    }

    /// Takes note that a message came into a conversation.
    pub(super) fn arrived(&mut self, new: &NewMessage, conversation: ConversationId) {
        let place = Place { stamp: new.stamp, origin: new.origin };
        let both = [(new.message.sender, new.recipient), (new.recipient, new.message.sender)];
        for (account, peer) in both {
            let newest = self.members.entry((account, conversation)).or_insert((peer, place));
            newest.1 = newest.1.max(place);
        }
        let reach = self.reach.entry((conversation, new.origin)).or_default();
        *reach = new.position.max(*reach);
    }

    /// Takes note that a message of a conversation moved back.
    pub(super) fn sank(&mut self, conversation: ConversationId, both: [AccountId; 2]) {
        self.sunk.insert(conversation, both);
    }

    /// Takes note that a message has left a conversation, which is locked; no row can tell.
    pub(super) fn left(&mut self, conversation: ConversationId, both: [AccountId; 2]) {
        let seq = self.next(conversation);
        if let Some(counter) = self.counters.get_mut(&conversation) {
            counter.floor = seq;
        }
        self.sank(conversation, both);
    }

    /// Writes it all, behind the messages.
    pub(super) async fn write(self, connection: &mut PgConnection) -> Result<(), Fault> {
        let changed: Vec<_> = self.counters.iter().filter(|(_, counter)| counter.is_changed).collect();
        if !changed.is_empty() {
            sqlx::query(
                "UPDATE conversations AS c SET seq = k.seq, floor = k.floor
                 FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS k (conversation, seq, floor)
                 WHERE c.conversation = k.conversation",
            )
            .bind(
                changed
                    .iter()
                    .map(|(conversation, _)| conversation.as_bytes().as_slice())
                    .collect::<Vec<_>>(),
            )
            .bind(changed.iter().map(|(_, counter)| counter.seq.cast_signed()).collect::<Vec<_>>())
            .bind(changed.iter().map(|(_, counter)| counter.floor.cast_signed()).collect::<Vec<_>>())
            .execute(&mut *connection)
            .await?;
        }
        write_members(connection, &self.members).await?;
        write_reach(connection, &self.reach).await?;
        for (conversation, both) in self.sunk {
            sink(connection, conversation, both).await?;
        }
        Ok(())
    }
}

async fn write_members(
    connection: &mut PgConnection,
    members: &BTreeMap<(AccountId, ConversationId), (AccountId, Place)>,
) -> Result<(), Fault> {
    if members.is_empty() {
        return Ok(());
    }
    let stamps = members.values().map(|(_, place)| int(place.stamp.0)).collect::<Result<Vec<_>, _>>()?;
    sqlx::query(
        "INSERT INTO members AS m (account, conversation, peer, stamp, origin)
         SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[])
         ON CONFLICT (account, conversation) DO UPDATE SET stamp = excluded.stamp, origin = excluded.origin
         WHERE (excluded.stamp, excluded.origin) > (m.stamp, m.origin)",
    )
    .bind(members.keys().map(|(account, _)| account.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(members.keys().map(|(_, conversation)| conversation.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(members.values().map(|(peer, _)| peer.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(stamps)
    .bind(members.values().map(|(_, place)| i64::from(place.origin.0)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_reach(
    connection: &mut PgConnection,
    reach: &BTreeMap<(ConversationId, Origin), Position>,
) -> Result<(), Fault> {
    if reach.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO reach AS r (conversation, origin, position)
         SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[])
         ON CONFLICT (conversation, origin) DO UPDATE SET position = excluded.position
         WHERE excluded.position > r.position",
    )
    .bind(reach.keys().map(|(conversation, _)| conversation.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(reach.keys().map(|(_, origin)| i64::from(origin.0)).collect::<Vec<_>>())
    .bind(reach.values().map(|position| int(position.0)).collect::<Result<Vec<_>, _>>()?)
    .execute(connection)
    .await?;
    Ok(())
}

/// Looks for the newest message of a conversation anew. One that nothing is left of goes to the end of the lists, from where
/// whatever comes next takes it.
async fn sink(
    connection: &mut PgConnection,
    conversation: ConversationId,
    both: [AccountId; 2],
) -> Result<(), Fault> {
    let newest = sqlx::query(
        "SELECT stamp, origin FROM messages WHERE conversation = $1 AND state > 0
         ORDER BY stamp DESC, origin DESC LIMIT 1",
    );
    let newest = newest.bind(conversation.as_bytes().as_slice()).fetch_optional(&mut *connection).await?;
    let (stamp, origin) = match newest {
        Some(newest) => (number(&newest, "stamp")?, number(&newest, "origin")?),
        None => (0, 0),
    };
    sqlx::query("UPDATE members SET stamp = $3, origin = $4 WHERE account = ANY($1) AND conversation = $2")
        .bind(both.iter().map(|account| account.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(conversation.as_bytes().as_slice())
        .bind(int(stamp)?)
        .bind(int(origin)?)
        .execute(connection)
        .await?;
    Ok(())
}
