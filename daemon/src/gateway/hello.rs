//! The hello: version, session, limits.

use quail_core::Command;
use quail_core::ports::directory::SessionFacts;
use quail_protocol::v1::{self, Reason};
use quail_protocol::{VERSION_MAX, VERSION_MIN, limits};

use super::Gateway;

impl Gateway {
    /// Decides a hello.
    ///
    /// # Errors
    /// What the client is told before its connection is closed.
    pub async fn hello(&self, hello: &v1::Hello) -> Result<(v1::Welcome, Option<SessionFacts>), v1::Error> {
        let decided = self.decide_hello(hello).await;
        let result = decided.as_ref().map_or_else(|error| error.reason().meta().name, |_| "OK");
        self.count("hello", result, 1);
        decided
    }

    async fn decide_hello(
        &self,
        hello: &v1::Hello,
    ) -> Result<(v1::Welcome, Option<SessionFacts>), v1::Error> {
        let version = hello.version_max.min(VERSION_MAX);
        if version < hello.version_min.max(VERSION_MIN) {
            let text = format!(
                "this server speaks protocol versions {VERSION_MIN} to {VERSION_MAX}, the client {} to {}",
                hello.version_min, hello.version_max
            );
            return Err(Reason::Version.with_text(text));
        }
        let session = if hello.session_token.is_empty() {
            None
        } else {
            Some(self.resume(&hello.session_token).await?)
        };
        Ok((self.welcome(version, session.as_ref()), session))
    }

    async fn resume(&self, token: &[u8]) -> Result<SessionFacts, v1::Error> {
        let resumed = self.directory.resume(token).await;
        let session = resumed.map_err(|refusal| refusal.to_error())?;
        if !self.known.contains(session.account) {
            let facts = self.directory.facts(session.account).await.map_err(|refusal| refusal.to_error())?;
            let facts = facts.ok_or_else(|| Reason::Unauthenticated.error())?;
            // No need to wait: whatever this connection asks for goes through the same queue, behind it.
            let told = self.submit(vec![Command::Facts { facts, ticket: None }]).await;
            told.map_err(|_| Reason::Draining.error())?;
            self.known.insert(session.account);
        }
        Ok(session)
    }

    fn welcome(&self, version: u32, session: Option<&SessionFacts>) -> v1::Welcome {
        let limits = v1::Limits {
            frame_bytes_max: limits::FRAME_BYTES_MAX as u32,
            body_bytes_max: limits::BODY_BYTES_MAX as u32,
            sends_unanswered_max: limits::SENDS_UNANSWERED_MAX as u32,
            feed_window_events: limits::FEED_WINDOW_EVENTS as u32,
            requests_max: limits::REQUESTS_MAX as u32,
        };
        v1::Welcome {
            version,
            limits: Some(limits),
            server_time_ms: self.now_ms(),
            server_name: concat!("quaild ", env!("CARGO_PKG_VERSION")).to_owned(),
            account: session.map(|session| session.account.to_bytes()).unwrap_or_default(),
            device: session.map(|session| session.device.to_bytes()).unwrap_or_default(),
            handle: session.map(|session| session.handle.clone()).unwrap_or_default(),
        }
    }
}
