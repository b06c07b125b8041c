//! Requests: one command, one response.

use quail_core::ConnectionId;
use quail_core::ports::directory::{DeviceSummary, SessionFacts};
use quail_protocol::commands::RateClass;
use quail_protocol::v1::request::Command as Asked;
use quail_protocol::v1::response::Result as Answer;
use quail_protocol::v1::{self, Reason};

use super::{Gateway, Limited, Prefix};
use crate::directory::Granted;
use crate::query;

/// The answer to a request, and what it means for the connection it came on.
#[derive(Debug)]
pub struct Requested {
    /// What the client gets.
    pub response: v1::Response,
    /// What changes for the connection once the response is written.
    pub change: SessionChange,
}

/// What a request means for the session of its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionChange {
    /// Nothing.
    None,
    /// The connection has a session from here on.
    Opened(SessionFacts),
}

impl Requested {
    /// Returns why the request was refused, if it was.
    pub fn refused(&self) -> Option<Reason> {
        match &self.response.result {
            Some(Answer::Error(error)) => Some(error.reason()),
            _ => None,
        }
    }
}

impl Gateway {
    /// Carries out a request. To be run on [`requests`](Self::requests): a command that was begun is carried through, even if
    /// its connection goes away meanwhile.
    pub async fn request(
        &self,
        connection: ConnectionId,
        asked: Asked,
        session: Option<SessionFacts>,
        prefix: Prefix,
    ) -> Requested {
        let meta = asked.meta();
        if let (Asked::Conversations(_), Some(session)) = (&asked, &session) {
            // Before it is read, so that no change falls between.
            self.delivery().watch(connection, session.account);
        }
        let answer = match (self.admit(&asked, session.as_ref(), prefix), session) {
            (Err(limited), _) => Err(limited.refuse(&self.metrics)),
            (Ok(()), None) if meta.needs_session => Err(Reason::Unauthenticated.error()),
            (Ok(()), session) => self.answer(asked, session).await,
        };
        let (result, change) = match answer {
            Ok((answer, change)) => {
                self.count(meta.name, "OK", 1);
                (answer, change)
            }
            Err(error) => {
                self.count(meta.name, error.reason().meta().name, 1);
                self.refusals().count(error.reason());
                tracing::debug!(
                    command = meta.name,
                    reason = error.reason().as_str_name(),
                    "request refused"
                );
                (Answer::Error(error), SessionChange::None)
            }
        };
        if let SessionChange::Opened(session) = &change {
            self.bind(connection, session).await;
        }
        Requested { response: v1::Response { result: Some(result) }, change }
    }

    /// Counts a request in the rate classes it belongs to, before it costs anything.
    fn admit(&self, asked: &Asked, session: Option<&SessionFacts>, prefix: Prefix) -> Result<(), Limited> {
        self.rates.request(session.map(|session| session.device), prefix)?;
        match (asked.meta().rate, asked, session) {
            (RateClass::SignUp, ..) => self.rates.sign_up(prefix),
            (RateClass::Password, Asked::LogIn(asked), _) => self.rates.password(&asked.handle, prefix),
            (RateClass::Password, _, Some(session)) => self.rates.password(&session.handle, prefix),
            (RateClass::LookUp, _, Some(session)) => self.rates.look_up(session.account),
            (RateClass::History, _, Some(session)) => self.rates.history(session.account),
            // What needs a session and has none is refused right after.
            _ => Ok(()),
        }
    }

    async fn answer(
        &self,
        asked: Asked,
        session: Option<SessionFacts>,
    ) -> Result<(Answer, SessionChange), v1::Error> {
        let now_ms = self.now_ms();
        let refused = |refusal: crate::directory::Refusal| refusal.to_error();
        let answer = match (asked, session) {
            (Asked::SignUp(_) | Asked::LogIn(_), Some(_)) => {
                return Err(Reason::WrongFrame.with_text("this connection has a session already"));
            }
            (Asked::SignUp(asked), None) => {
                return self.grant(self.directory.sign_up(asked, now_ms).await.map_err(refused)?).await;
            }
            (Asked::LogIn(asked), None) => {
                return self.grant(self.directory.log_in(asked, now_ms).await.map_err(refused)?).await;
            }
            (Asked::LogOut(v1::LogOut {}), Some(session)) => {
                let facts =
                    self.directory.log_out(session.account, session.device, now_ms).await.map_err(refused)?;
                self.apply(vec![facts]).await.map_err(Reason::error)?;
                Answer::Done(v1::Done {})
            }
            (Asked::UnlinkDevice(asked), Some(session)) => {
                let unlinked = self.directory.unlink_device(&session, &asked.device).await;
                self.apply(vec![unlinked.map_err(refused)?]).await.map_err(Reason::error)?;
                Answer::Done(v1::Done {})
            }
            (Asked::ChangePassword(asked), Some(session)) => {
                let (account, device) = (session.account, session.device);
                let changed = self.directory.change_password(account, device, asked, now_ms).await;
                self.apply(vec![changed.map_err(refused)?]).await.map_err(Reason::error)?;
                Answer::Done(v1::Done {})
            }
            (Asked::SetPrivacy(asked), Some(session)) => {
                // Once this is applied, no receipt leaves that the account does not want.
                let changed = self.directory.set_privacy(&session, asked).await.map_err(refused)?;
                self.apply(vec![changed]).await.map_err(Reason::error)?;
                Answer::Done(v1::Done {})
            }
            (Asked::SetConversation(asked), Some(session)) => self.set_conversation(asked, &session).await?,
            (Asked::GetPrivacy(v1::GetPrivacy {}), Some(session)) => {
                let found = query::get_privacy(&*self.reads, &session).await;
                Answer::Privacy(found.map_err(|error| error.to_error())?)
            }
            (Asked::LookUp(asked), Some(session)) => {
                let found = query::look_up(&*self.reads, asked).await;
                if matches!(found, Err(query::QueryError::UnknownAccount)) {
                    self.rates.found_nobody(session.account);
                }
                Answer::Profile(found.map_err(|error| error.to_error())?)
            }
            (Asked::Ping(v1::Ping {}), _) => Answer::Pong(v1::Pong { server_time_ms: now_ms }),
            (Asked::ListDevices(v1::ListDevices {}), Some(session)) => {
                let last_seen_ms =
                    |listed: &DeviceSummary| self.last_seen_ms(listed.device, listed.last_seen_ms);
                let listed = query::list_devices(&*self.reads, &session, last_seen_ms).await;
                Answer::Devices(listed.map_err(|error| error.to_error())?)
            }
            (
                asked @ (Asked::Conversations(_) | Asked::History(_) | Asked::Sync(_) | Asked::Search(_)),
                Some(session),
            ) => self.history(asked, &session).await?,
            // All others need a session.
            (_, None) => return Err(Reason::Unauthenticated.error()),
        };
        Ok((answer, SessionChange::None))
    }

    /// A session counts once the core knows its device: from then on the device misses nothing.
    async fn grant(&self, granted: Granted) -> Result<(Answer, SessionChange), v1::Error> {
        let Granted { token, session, facts } = granted;
        self.apply(vec![facts]).await.map_err(Reason::error)?;
        let answer = v1::Session {
            token: token.to_vec().into(),
            account: session.account.to_bytes(),
            device: session.device.to_bytes(),
            handle: session.handle.clone(),
        };
        Ok((Answer::Session(answer), SessionChange::Opened(session)))
    }
}
