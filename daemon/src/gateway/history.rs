//! Questions of history.

use quail_core::ports::directory::SessionFacts;
use quail_protocol::v1::request::Command as Asked;
use quail_protocol::v1::response::Result as Answer;
use quail_protocol::v1::{self, Reason};

use super::Gateway;

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
}
