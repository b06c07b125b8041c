//! What a batch leaves behind in conversations: their seqs, their newest messages, how far they reach.
//!
//! All of it is gathered in memory and written once per batch, in the order of ids, so that two writers of one database never wait
//! for each other crosswise.

use std::collections::{BTreeMap, BTreeSet};

use quail_core::ports::archive::{NewMessage, Place};
use quail_protocol::id::{AccountId, ConversationId, Origin, Position};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::fault::Fault;
use super::rows::{id, int, number, pieces, place};

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
    /// Reads where conversations stand.
    pub(super) async fn load(
        &mut self,
        connection: &mut SqliteConnection,
        conversations: BTreeSet<ConversationId>,
    ) -> Result<(), Fault> {
        let new = conversations.into_iter().filter(|one| !self.counters.contains_key(one));
        let new: Vec<_> = new.collect();
        for piece in pieces(&new) {
            let mut query = QueryBuilder::<Sqlite>::new(
                "SELECT conversation, seq, floor FROM conversations WHERE conversation IN (",
            );
            let mut list = query.separated(", ");
            for conversation in piece {
                list.push_bind(conversation.as_bytes().as_slice());
                self.counters.insert(*conversation, Counter::default());
            }
            query.push(")");
            for row in query.build().fetch_all(&mut *connection).await? {
                let counter =
                    Counter { seq: number(&row, "seq")?, floor: number(&row, "floor")?, is_changed: false };
                self.counters.insert(id(&row, "conversation")?, counter);
            }
        }
        Ok(())
    }

    /// Returns the next seq of a conversation, which was loaded.
    pub(super) fn next(&mut self, conversation: ConversationId) -> u64 {
        let counter = self.counters.entry(conversation).or_default();
        counter.seq += 1;
        counter.is_changed = true;
        counter.seq
    }

    /// Takes note that a message came into a conversation.
    pub(super) fn arrived(&mut self, new: &NewMessage, conversation: ConversationId) {
        let both = [(new.message.sender, new.recipient), (new.recipient, new.message.sender)];
        for (account, peer) in both {
            let newest = self.members.entry((account, conversation)).or_insert((peer, place(new)));
            newest.1 = newest.1.max(place(new));
        }
        let reach = self.reach.entry((conversation, new.origin)).or_default();
        *reach = new.position.max(*reach);
    }

    /// Takes note that a message of a conversation moved back.
    pub(super) fn sank(&mut self, conversation: ConversationId, both: [AccountId; 2]) {
        self.sunk.insert(conversation, both);
    }

    /// Takes note that a message has left a conversation, which was loaded; no row can tell.
    pub(super) fn left(&mut self, conversation: ConversationId, both: [AccountId; 2]) {
        let seq = self.next(conversation);
        if let Some(counter) = self.counters.get_mut(&conversation) {
            counter.floor = seq;
        }
        self.sank(conversation, both);
    }

    /// Writes it all.
    pub(super) async fn write(self, connection: &mut SqliteConnection) -> Result<(), Fault> {
        let counters = self.counters.into_iter().filter(|(_, counter)| counter.is_changed);
        let counters: Vec<_> = counters.collect();
        for piece in pieces(&counters) {
            let mut query =
                QueryBuilder::<Sqlite>::new("INSERT INTO conversations (conversation, seq, floor) ");
            query.push_values(piece, |mut row, (conversation, counter)| {
                row.push_bind(conversation.as_bytes().as_slice());
                row.push_bind(counter.seq.cast_signed()).push_bind(counter.floor.cast_signed());
            });
            query
                .push(" ON CONFLICT (conversation) DO UPDATE SET seq = excluded.seq, floor = excluded.floor");
            query.build().execute(&mut *connection).await?;
        }
        write_members(connection, &self.members.into_iter().collect::<Vec<_>>()).await?;
        write_reach(connection, &self.reach.into_iter().collect::<Vec<_>>()).await?;
        for (conversation, both) in self.sunk {
            sink(connection, conversation, both).await?;
        }
        Ok(())
    }
}

/// Whose conversation it is; and with whom, and where it stands in the list.
type Member = ((AccountId, ConversationId), (AccountId, Place));

async fn write_members(connection: &mut SqliteConnection, members: &[Member]) -> Result<(), Fault> {
    for piece in pieces(members) {
        let mut query =
            QueryBuilder::<Sqlite>::new("INSERT INTO members (account, conversation, peer, stamp, origin) ");
        query.push_values(piece, |mut row, ((account, conversation), (peer, place))| {
            row.push_bind(account.as_bytes().as_slice()).push_bind(conversation.as_bytes().as_slice());
            row.push_bind(peer.as_bytes().as_slice());
            row.push_bind(place.stamp.0.cast_signed()).push_bind(i64::from(place.origin.0));
        });
        query.push(
            " ON CONFLICT (account, conversation) DO UPDATE SET stamp = excluded.stamp, origin = excluded.origin
             WHERE (excluded.stamp, excluded.origin) > (stamp, origin)",
        );
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

async fn write_reach(
    connection: &mut SqliteConnection,
    reach: &[((ConversationId, Origin), Position)],
) -> Result<(), Fault> {
    for piece in pieces(reach) {
        let mut query = QueryBuilder::<Sqlite>::new("INSERT INTO reach (conversation, origin, position) ");
        query.push_values(piece, |mut row, ((conversation, origin), position)| {
            row.push_bind(conversation.as_bytes().as_slice());
            row.push_bind(i64::from(origin.0)).push_bind(position.0.cast_signed());
        });
        query.push(
            " ON CONFLICT (conversation, origin) DO UPDATE SET position = max(position, excluded.position)",
        );
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Looks for the newest message of a conversation anew. One that nothing is left of goes to the end of the lists, from where
/// whatever comes next takes it.
async fn sink(
    connection: &mut SqliteConnection,
    conversation: ConversationId,
    both: [AccountId; 2],
) -> Result<(), Fault> {
    let newest = sqlx::query(
        "SELECT stamp, origin FROM messages WHERE conversation = ?1 AND state > 0
         ORDER BY stamp DESC, origin DESC LIMIT 1",
    );
    let newest = newest.bind(conversation.as_bytes().as_slice()).fetch_optional(&mut *connection).await?;
    let (stamp, origin) = match newest {
        Some(newest) => (number(&newest, "stamp")?, number(&newest, "origin")?),
        None => (0, 0),
    };
    for account in both {
        sqlx::query("UPDATE members SET stamp = ?3, origin = ?4 WHERE account = ?1 AND conversation = ?2")
            .bind(account.as_bytes().as_slice())
            .bind(conversation.as_bytes().as_slice())
            .bind(int(stamp)?)
            .bind(int(origin)?)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
