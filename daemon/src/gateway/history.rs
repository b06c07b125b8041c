//! Questions of history, and how conversations are to be seen.

use quail_core::ports::directory::SessionFacts;
use quail_protocol::v1::request::Command as Asked;
use quail_protocol::v1::response::Result as Answer;
use quail_protocol::v1::{self, Reason};

use super::Gateway;
use crate::directory::DirectoryService;

impl Gateway {
    /// Answers a question of history.
    pub(super) async fn history(&self, asked: Asked, session: &SessionFacts) -> Result<Answer, v1::Error> {
        let history = self.history.as_ref().ok_or_else(|| Reason::NoHistory.error())?;
        let answer = match asked {
            Asked::Conversations(asked) => {
                history.conversations(session, asked).await.map(Answer::Conversations)
            }
            Asked::History(asked) => history.browse(session, asked).await.map(Answer::History),
            Asked::Sync(asked) => history.sync(session, asked).await.map(Answer::Synced),
            Asked::Search(asked) => history.search(session, asked).await.map(Answer::Found),
            _ => return Err(Reason::WrongFrame.error()),
        };
        answer.map_err(|error| error.to_error())
    }

    /// Says how the account of a session wants to see one of its conversations.
    pub(super) async fn set_conversation(
        &self,
        asked: v1::SetConversation,
        session: &SessionFacts,
    ) -> Result<Answer, v1::Error> {
        let history = self.history.as_ref().ok_or_else(|| Reason::NoHistory.error())?;
        DirectoryService::check_conversation(&asked).map_err(|refusal| refusal.to_error())?;
        let own = history.check_own(session, &asked.peer, asked.accepted).await;
        own.map_err(|error| error.to_error())?;
        let set = self.directory.set_conversation(session, asked).await;
        set.map(|()| Answer::Done(v1::Done {})).map_err(|refusal| refusal.to_error())
    }
}
