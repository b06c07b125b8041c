//! What the daemon does when it is asked on its admin socket.
//!
//! A command is one transaction of the directory; what it changed is told to the core before it is answered, as for the
//! commands of clients. Everything that was asked is logged, with who asked.
//!
//! Invariant: the log gets names, counts and outcomes, never a password, a token or a code.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use quail_core::ports::directory::{AccountFacts, InviteSummary, SecretHash};
use quail_protocol::id::Origin;

use crate::app::reload::CurrentPin;
use crate::archive::dead::{DeadError, DeadLetters};
use crate::directory::{AdminError, AdminService, CreatedAccount, INVITE_ID_BYTES};
use crate::gateway::Gateway;
use crate::ops::admin::wire::{Account, Created, Dead, Device, Failed, Invite, Retried, Status};
use crate::ops::admin::{Answer, Answers, Handler, Peer, PeerGone, Request, Secret};
use crate::ops::clock::unix_ms;
use crate::ops::version;

/// Carries out what the operator asks for.
pub(in crate::app) struct Administrator {
    pub(in crate::app) admin: AdminService,
    pub(in crate::app) gateway: Arc<Gateway>,
    pub(in crate::app) standing: Standing,
    /// None where there is no archive.
    pub(in crate::app) dead: Option<DeadLetters>,
}

/// What the daemon knows of itself.
pub(in crate::app) struct Standing {
    pub(in crate::app) origin: Origin,
    pub(in crate::app) listen: SocketAddr,
    pub(in crate::app) ops_address: Option<SocketAddr>,
    pub(in crate::app) data: PathBuf,
    pub(in crate::app) pin: CurrentPin,
    pub(in crate::app) since: Instant,
}

impl Handler for Administrator {
    async fn handle(&self, peer: Peer, request: Request, answers: &mut Answers) -> Result<(), Failed> {
        let (command, subject) = (request.name(), subject(&request));
        let result = self.carry_out(request, answers).await;
        let Peer { uid, pid } = peer;
        match &result {
            Ok(()) => tracing::info!(uid, pid, command, subject, "administered"),
            Err(error) => {
                tracing::warn!(uid, pid, command, subject, %error, "an admin command was not carried out");
            }
        }
        result.map_err(Failed::from)
    }
}

/// Why a request was not carried out to its end.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("the daemon is stopping")]
    Draining,
    #[error("the archive is off")]
    NoArchive,
    #[error(transparent)]
    Dead(#[from] DeadError),
    #[error(transparent)]
    Gone(#[from] PeerGone),
}

impl Administrator {
    async fn carry_out(&self, request: Request, answers: &mut Answers) -> Result<(), Stopped> {
        let now_ms = unix_ms();
        match request {
            Request::ListAccounts { after, limit } => self.list_accounts(after, limit, answers).await,
            Request::CreateAccounts { handles, sessions } => {
                self.create_accounts(handles, sessions, now_ms, answers).await
            }
            Request::DisableAccount { handle } => {
                self.tell(self.admin.set_disabled(handle, true, now_ms).await?).await
            }
            Request::EnableAccount { handle } => {
                self.tell(self.admin.set_disabled(handle, false, now_ms).await?).await
            }
            Request::ResetPassword { handle, password, keep_sessions } => {
                let password = password.map(|Secret(password)| password);
                let (facts, drawn) = self.admin.reset_password(handle, password, keep_sessions).await?;
                self.tell(facts).await?;
                match drawn {
                    Some(drawn) => Ok(answers.send(&Answer::Password(Secret(drawn))).await?),
                    None => Ok(()),
                }
            }
            Request::ListDevices { handle } => self.list_devices(handle, answers).await,
            Request::UnlinkDevice { handle, device } => {
                self.tell(self.admin.unlink_device(handle, &device, now_ms).await?).await
            }
            Request::CreateInvites { count } => {
                for _ in 0..count {
                    let code = self.admin.create_invite(now_ms).await?;
                    answers.send(&Answer::InviteCode(Secret(code))).await?;
                }
                Ok(())
            }
            Request::ListInvites => self.list_invites(answers).await,
            Request::RevokeInvite { invite } => Ok(self.admin.revoke_invite(&invite.0).await?),
            Request::ListDead => self.list_dead(answers).await,
            Request::RetryDead { number } => self.retry_dead(number, answers).await,
            Request::DropDead { number } => Ok(self.dead()?.drop(number).await?),
            Request::Status => Ok(answers.send(&Answer::Status(Box::new(self.status()))).await?),
        }
    }

    /// What the core does not know of is not done yet.
    async fn tell(&self, facts: AccountFacts) -> Result<(), Stopped> {
        self.gateway.apply(vec![facts]).await.map_err(|_| Stopped::Draining)
    }

    async fn create_accounts(
        &self,
        handles: Vec<String>,
        sessions: bool,
        now_ms: u64,
        answers: &mut Answers,
    ) -> Result<(), Stopped> {
        let created = self.admin.create_accounts(handles, sessions, now_ms).await?;
        let facts = created.iter().map(|created| created.facts.clone()).collect();
        self.gateway.apply(facts).await.map_err(|_| Stopped::Draining)?;
        for CreatedAccount { facts, session } in created {
            let created = Created {
                account: facts.account.to_string(),
                device: session.as_ref().map(|granted| granted.session.device.to_string()),
                handle: facts.handle,
                token: session.map(|granted| Secret(hex(&granted.token))),
            };
            answers.send(&Answer::Created(created)).await?;
        }
        Ok(())
    }

    async fn list_accounts(
        &self,
        mut after: String,
        limit: Option<u64>,
        answers: &mut Answers,
    ) -> Result<(), Stopped> {
        let mut left = limit.unwrap_or(u64::MAX);
        while left > 0 {
            let page_max = u32::try_from(left).unwrap_or(u32::MAX);
            let page = self.admin.accounts(after, page_max).await?;
            let Some(last) = page.last() else { break };
            after = last.handle.clone();
            left -= page.len() as u64;
            for account in page {
                let account = Account {
                    account: account.account.to_string(),
                    handle: account.handle,
                    created_ms: account.created_ms,
                    disabled: account.is_disabled,
                    devices: account.devices,
                };
                answers.send(&Answer::Account(account)).await?;
            }
        }
        Ok(())
    }

    async fn list_devices(&self, handle: String, answers: &mut Answers) -> Result<(), Stopped> {
        for device in self.admin.devices(handle).await? {
            let device = Device {
                device: device.device.to_string(),
                name: device.name,
                created_ms: device.created_ms,
                platform: device.platform,
                last_seen_ms: self.gateway.last_seen_ms(device.device, device.last_seen_ms),
            };
            answers.send(&Answer::Device(device)).await?;
        }
        Ok(())
    }

    async fn list_invites(&self, answers: &mut Answers) -> Result<(), Stopped> {
        let mut first = Some([0; 32]);
        while let Some(from) = first {
            let page = self.admin.invites(from).await?;
            first = page.last().and_then(|last| next(last.invite_hash));
            for InviteSummary { invite_hash, created_ms, used_by } in page {
                let id = hex(&invite_hash[..INVITE_ID_BYTES]);
                answers.send(&Answer::Invite(Invite { id, created_ms, used_by })).await?;
            }
        }
        Ok(())
    }

    fn dead(&self) -> Result<&DeadLetters, Stopped> {
        self.dead.as_ref().ok_or(Stopped::NoArchive)
    }

    async fn list_dead(&self, answers: &mut Answers) -> Result<(), Stopped> {
        let mut after = 0;
        loop {
            let page = self.dead()?.list(after).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.number;
            for letter in page {
                let dead = Dead {
                    number: letter.number,
                    origin: letter.origin.0,
                    position: letter.position.0,
                    bytes: letter.frame.len() as u64,
                    error: letter.error,
                };
                answers.send(&Answer::Dead(dead)).await?;
            }
        }
    }

    /// One that is refused again does not keep the others from being tried.
    async fn retry_dead(&self, number: Option<u64>, answers: &mut Answers) -> Result<(), Stopped> {
        let dead = self.dead()?;
        if let Some(number) = number {
            dead.retry(number).await?;
            return Ok(answers.send(&Answer::Retried(Retried { number, error: None })).await?);
        }
        let mut after = 0;
        loop {
            let page = dead.list(after).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.number;
            for letter in page {
                let number = letter.number;
                let error = match dead.retry(number).await {
                    Ok(()) => None,
                    Err(DeadError::Refused { reason, .. }) => Some(reason),
                    Err(DeadError::Unknown { .. }) => continue,
                    Err(error) => return Err(error.into()),
                };
                answers.send(&Answer::Retried(Retried { number, error })).await?;
            }
        }
    }

    fn status(&self) -> Status {
        let Standing { origin, listen, ops_address, data, pin, since } = &self.standing;
        let metrics = self.gateway.metrics();
        Status {
            version: version::VERSION.to_owned(),
            origin: origin.0,
            pid: std::process::id(),
            uptime_s: since.elapsed().as_secs(),
            listen: listen.to_string(),
            ops_address: ops_address.map(|address| address.to_string()),
            connections: u64::try_from(metrics.connections.get()).unwrap_or_default(),
            data: data.display().to_string(),
            pin: pin.get().to_string(),
            certificate_expires_s: metrics.certificate_expiry.get(),
            unacknowledged_events: u64::try_from(metrics.unacknowledged.get()).unwrap_or_default(),
        }
    }
}

/// Returns whom or how many a request is about, for the log.
fn subject(request: &Request) -> Option<String> {
    match request {
        Request::CreateAccounts { handles, .. } => match &handles[..] {
            [one] => Some(one.clone()),
            many => Some(format!("{} accounts", many.len())),
        },
        Request::DisableAccount { handle }
        | Request::EnableAccount { handle }
        | Request::ResetPassword { handle, .. }
        | Request::ListDevices { handle } => Some(handle.clone()),
        Request::UnlinkDevice { handle, device } => Some(format!("{handle} {device}")),
        Request::CreateInvites { count } => Some(format!("{count} invites")),
        Request::ListAccounts { .. }
        | Request::ListInvites
        | Request::RevokeInvite { .. }
        | Request::ListDead
        | Request::Status => None,
        Request::RetryDead { number } => number.map(|number| number.to_string()),
        Request::DropDead { number } => Some(number.to_string()),
    }
}

/// Returns the hash behind another, or `None` behind the last.
fn next(hash: SecretHash) -> Option<SecretHash> {
    let mut next = hash;
    for byte in next.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(next);
        }
    }
    None
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl From<Stopped> for Failed {
    fn from(stopped: Stopped) -> Self {
        let (reason, hint) = match &stopped {
            Stopped::Admin(error) => (error.reason(), error.hint()),
            Stopped::NoArchive => {
                ("no_archive", Some("set archive = \"on\" in [storage] and restart quaild"))
            }
            Stopped::Dead(DeadError::Unknown { .. }) => {
                ("unknown_dead_letter", Some("see `quaild admin dead list`"))
            }
            Stopped::Dead(DeadError::Refused { .. }) => (
                "refused",
                Some("the reason says what is wrong with it; `quaild admin dead drop` forgets it"),
            ),
            Stopped::Dead(DeadError::Archive(_)) => ("archive_unavailable", Some("see the daemon's log")),
            Stopped::Draining => ("draining", Some("see what was done once the daemon is back")),
            Stopped::Gone(_) => ("gone", None),
        };
        Self { reason: reason.to_owned(), text: stopped.to_string(), hint: hint.map(str::to_owned) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_behind_another_carries() {
        let mut hash = [0; 32];
        hash[31] = u8::MAX;
        let mut expected = [0; 32];
        expected[30] = 1;
        assert_eq!(next(hash), Some(expected));
        assert_eq!(next([u8::MAX; 32]), None);
    }

    #[test]
    fn the_log_is_told_of_nothing_secret() {
        let canary = || Secret("canary".to_owned());
        let reset = Request::ResetPassword {
            handle: "ada".to_owned(),
            password: Some(canary()),
            keep_sessions: true,
        };
        assert_eq!(subject(&reset).as_deref(), Some("ada"));
        assert_eq!(subject(&Request::RevokeInvite { invite: canary() }), None);
    }
}
