//! What comes up the publish and feed lanes, as commands for the core.

use quail_core::ports::directory::SessionFacts;
use quail_core::{Command, ConnectionId, FeedId, ReadCommand, SendCommand, ValidRead};
use quail_protocol::id::{AccountId, Origin, Position};
use quail_protocol::limits;
use quail_protocol::v1::publish_up::Frame;
use quail_protocol::v1::{self, Reason};

use super::sends::valid_send;
use super::{Gateway, Limited};
use crate::config::Class;

impl Gateway {
    /// Turns frames of a publish lane into commands, in order, with facts on recipients the core does not know in front.
    ///
    /// # Errors
    /// The lane cannot go on: a frame is none that belongs there.
    pub async fn publish(
        &self,
        connection: ConnectionId,
        session: &SessionFacts,
        frames: Vec<v1::PublishUp>,
    ) -> Result<Vec<Command>, v1::Error> {
        let mut commands = Vec::with_capacity(frames.len());
        let sends = frames.iter().filter(|frame| matches!(frame.frame, Some(Frame::Send(_)))).count();
        let (mut room, wait) = self.rates.sends(session.device, sends);
        for frame in frames {
            match frame.frame {
                Some(Frame::Send(send)) => {
                    let number = send.number;
                    if number == 0 {
                        return Err(Reason::Malformed.with_text("send numbers start at 1"));
                    }
                    // Refused sends go through the core too: it refuses what is behind them, so that order is kept.
                    let send = if room == 0 {
                        Err(Limited { class: Class::Send, wait }.refuse(&self.metrics))
                    } else {
                        match valid_send(send) {
                            Ok(send) => self.make_known(send.recipient).await.map(|()| send),
                            Err(error) => Err(error),
                        }
                    };
                    room = room.saturating_sub(1);
                    let (account, device) = (session.account, session.device);
                    commands.push(Command::Send(SendCommand { connection, account, device, number, send }));
                }
                Some(Frame::Restart(v1::Restart {})) => {
                    self.count("restart", "OK", 1);
                    commands.push(Command::Restart { connection });
                }
                None => return Err(Reason::WrongFrame.error()),
            }
        }
        Ok(commands)
    }

    /// Makes sure that the core knows an account that a command names.
    async fn make_known(&self, account: AccountId) -> Result<(), v1::Error> {
        if self.known.contains(account) {
            return Ok(());
        }
        // Once per account, and every connection would keep room for it in its task.
        Box::pin(self.introduce(account)).await
    }

    async fn introduce(&self, account: AccountId) -> Result<(), v1::Error> {
        let facts = self.directory.facts(account).await.map_err(|refusal| refusal.to_error())?;
        let facts = facts.ok_or_else(|| Reason::UnknownAccount.error())?;
        // Handed over at once: another connection may rely on the account being known before this batch is on its way.
        let told = self.submit(vec![Command::Facts { facts, ticket: None }]).await;
        told.map_err(|_| Reason::Draining.error())?;
        self.known.insert(account);
        Ok(())
    }

    /// Turns an attach into a command.
    ///
    /// # Errors
    /// The attach has impossible values.
    pub fn attach(
        &self,
        connection: ConnectionId,
        session: &SessionFacts,
        attach: &v1::Attach,
    ) -> Result<Command, v1::Error> {
        if attach.number == 0 {
            return Err(Reason::Malformed.with_text("attach numbers start at 1"));
        }
        let feed = FeedId { connection, number: attach.number };
        let (account, device) = (session.account, session.device);
        let (cursors, set_aside) = (cursors(&attach.cursors)?, cursors(&attach.set_aside)?);
        self.count("attach", "OK", 1);
        Ok(Command::Attach { feed, account, device, cursors, set_aside })
    }

    /// Turns frames of a feed lane into commands, in order, with facts on senders the core does not know in front.
    ///
    /// # Errors
    /// The lane cannot go on: a frame is none that belongs there.
    pub async fn feed(
        &self,
        feed: FeedId,
        session: &SessionFacts,
        frames: Vec<v1::FeedUp>,
    ) -> Result<Vec<Command>, v1::Error> {
        let (account, device) = (session.account, session.device);
        let mut commands = Vec::with_capacity(frames.len());
        let mut acks = 0;
        for frame in frames {
            commands.push(match frame.frame {
                Some(v1::feed_up::Frame::Ack(ack)) => {
                    acks += 1;
                    let (upto, set_aside) = (cursors(&ack.upto)?, cursors(&ack.set_aside)?);
                    Command::Ack { feed, account, device, upto, set_aside }
                }
                Some(v1::feed_up::Frame::Read(read)) => {
                    // Refused ones go through the core too, so that answers keep their order.
                    let read = self.valid_read(session, read).await;
                    Command::Read(ReadCommand { feed, account, device, read })
                }
                // Signals were taken out before: they go another way.
                Some(v1::feed_up::Frame::Signal(_)) | None => return Err(Reason::WrongFrame.error()),
            });
        }
        self.count("ack", "OK", acks);
        Ok(commands)
    }

    /// Checks the form of a mark and its rate, and makes sure that the core knows whose messages were read.
    async fn valid_read(&self, session: &SessionFacts, read: v1::Read) -> Result<ValidRead, v1::Error> {
        let read = valid_read(&read)?;
        let passes = self.rates.read(session.device, read.stretches.len());
        passes.map_err(|limited| limited.refuse(&self.metrics))?;
        self.make_known(read.sender).await?;
        Ok(read)
    }
}

fn cursors(cursors: &[v1::Cursor]) -> Result<Vec<(Origin, Position)>, v1::Error> {
    if cursors.len() > limits::CURSORS_MAX {
        return Err(Reason::Malformed.with_text(format!("more than {} cursors", limits::CURSORS_MAX)));
    }
    Ok(cursors.iter().map(|cursor| (Origin(cursor.origin), Position(cursor.position))).collect())
}

fn valid_read(read: &v1::Read) -> Result<ValidRead, v1::Error> {
    let sender = AccountId::try_from(&*read.sender);
    let sender = sender.map_err(|error| Reason::Malformed.with_text(error.to_string()))?;
    if read.stretches.len() > limits::READ_STRETCHES_MAX {
        let text = format!("more than {} stretches", limits::READ_STRETCHES_MAX);
        return Err(Reason::Malformed.with_text(text));
    }
    if read.stretches.iter().any(|stretch| stretch.upto <= stretch.after) {
        return Err(Reason::Malformed.with_text("a stretch that ends before it begins"));
    }
    let stretch = |of: &v1::ReadStretch| (Origin(of.origin), Position(of.after), Position(of.upto));
    Ok(ValidRead { sender, stretches: read.stretches.iter().map(stretch).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_a_sender_and_stretches_that_are_not_empty() {
        let read = |sender: usize, stretches: &[(u64, u64)]| {
            let stretch =
                |(after, upto): &(u64, u64)| v1::ReadStretch { origin: 1, after: *after, upto: *upto };
            let stretches = stretches.iter().map(stretch).collect();
            valid_read(&v1::Read { sender: vec![2; sender].into(), stretches })
                .map(|read| read.stretches.len())
                .map_err(|error| error.reason())
        };
        assert_eq!(read(16, &[(0, 3), (7, u64::MAX)]), Ok(2));
        assert_eq!(read(16, &[]), Ok(0));
        assert_eq!(read(15, &[(0, 3)]), Err(Reason::Malformed));
        assert_eq!(read(16, &[(0, 3), (3, 3)]), Err(Reason::Malformed));
        assert_eq!(read(16, &[(3, 2)]), Err(Reason::Malformed));
        assert_eq!(read(16, &[(0, 1); limits::READ_STRETCHES_MAX]), Ok(limits::READ_STRETCHES_MAX));
        assert_eq!(read(16, &[(0, 1); limits::READ_STRETCHES_MAX + 1]), Err(Reason::Malformed));
    }
}
