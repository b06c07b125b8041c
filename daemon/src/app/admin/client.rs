//! The operator's end of the admin socket: sends a command and prints what comes back.
//!
//! Invariant: standard output has results only; secrets that the daemon drew go there and nowhere else.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::cli::{self, Accounts, Admin, AdminCommand, Devices, Invites};
use super::input;
use super::table::{duration, minute, table};
use crate::directory::CREATE_ACCOUNTS_MAX;
use crate::ops::admin::path::connect;
use crate::ops::admin::wire::{Account, Created, Device, Failed, Invite, Status};
use crate::ops::admin::{AdminSocketError, Answer, Request, Secret};

/// How long the daemon may be silent: longer than a transaction may wait for its turn.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum AdminClientError {
    /// Nobody is there.
    #[error("no daemon answers on {}", path.display())]
    NoDaemon {
        /// The socket that was tried.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: AdminSocketError,
    },
    /// The daemon said no.
    #[error("{}", .0.text)]
    Failed(
        /// Its words.
        Failed,
    ),
    /// The answer ended early or cannot be understood.
    #[error("the answer on {} broke off: {reason}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl AdminClientError {
    /// Returns the operator's next step.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoDaemon { source: AdminSocketError::Io { source, .. }, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some("run the command as root or as the daemon's user".to_owned())
            }
            Self::NoDaemon { .. } => Some(
                "start quaild, or name its data directory with --data, as in --data /var/lib/quail, or its \
                 socket with QUAIL_ADMIN_SOCKET, as in /run/quail/admin.sock"
                    .to_owned(),
            ),
            Self::Failed(failed) => failed.hint.clone(),
            Self::Broken { .. } => Some("see the daemon's log; `quaild admin status` asks again".to_owned()),
        }
    }
}

/// Carries out a command on the daemon behind `socket`.
pub(in crate::app) fn run(socket: &Path, admin: Admin) -> anyhow::Result<()> {
    let Admin { json, command } = admin;
    let mut printer = Printer { socket, json, out: io::stdout().lock() };
    match command {
        AdminCommand::Accounts(command) => printer.accounts(command)?,
        AdminCommand::Devices(Devices::List { handle }) => printer.devices(handle)?,
        AdminCommand::Devices(Devices::Unlink { handle, device }) => {
            let (people, programs) = (
                format!("{device} of {handle} is logged out"),
                json!({"handle": handle, "device": device, "unlinked": true}),
            );
            printer.change(&Request::UnlinkDevice { handle, device }, &people, &programs)?;
        }
        AdminCommand::Invites(Invites::Create { count }) => printer.create_invites(count)?,
        AdminCommand::Invites(Invites::List) => printer.invites()?,
        AdminCommand::Invites(Invites::Revoke { invite }) => {
            let request = Request::RevokeInvite { invite: Secret(invite) };
            printer.change(&request, "the invite is good for nobody any more", &json!({"revoked": true}))?;
        }
        AdminCommand::Dead(cli::Dead::List) => printer.dead()?,
        AdminCommand::Dead(cli::Dead::Retry { number }) => printer.retry_dead(number)?,
        AdminCommand::Dead(cli::Dead::Drop { number }) => {
            let people = format!("dead letter {number} is dropped");
            let programs = json!({"number": number, "dropped": true});
            printer.change(&Request::DropDead { number }, &people, &programs)?;
        }
        AdminCommand::Status => printer.status()?,
    }
    Ok(printer.out.flush()?)
}

struct Printer<'a> {
    socket: &'a Path,
    json: bool,
    out: io::StdoutLock<'static>,
}

impl Printer<'_> {
    fn accounts(&mut self, command: Accounts) -> anyhow::Result<()> {
        let changed = |handle: &str, disabled: bool| json!({"handle": handle, "disabled": disabled});
        match command {
            Accounts::List { limit, after } => self.list_accounts(after, limit),
            Accounts::Create { mut handles, handles_from, session } => {
                if let Some(path) = handles_from {
                    handles.extend(input::handles(&path)?);
                }
                self.create_accounts(&handles, session)
            }
            Accounts::Disable { handle } => {
                let people = format!("{handle} is disabled, and all its devices are logged out");
                let programs = changed(&handle, true);
                self.change(&Request::DisableAccount { handle }, &people, &programs)
            }
            Accounts::Enable { handle } => {
                let people = format!("{handle} can log in again");
                let programs = changed(&handle, false);
                self.change(&Request::EnableAccount { handle }, &people, &programs)
            }
            Accounts::ResetPassword { handle, generate, keep_sessions } => {
                let password = if generate { None } else { Some(Secret(input::new_password(&handle)?)) };
                self.reset_password(&handle, password, keep_sessions)
            }
        }
    }

    /// Asks for a change whose answer has nothing but that it was made.
    fn change(
        &mut self,
        request: &Request,
        people: &str,
        programs: &serde_json::Value,
    ) -> anyhow::Result<()> {
        ask(self.socket, request, |_| Ok(()))?;
        if self.json { self.programs(programs) } else { self.people(people) }
    }

    fn list_accounts(&mut self, after: String, limit: Option<u64>) -> anyhow::Result<()> {
        let mut rows = vec![head(&["HANDLE", "CREATED (UTC)", "DEVICES", "STATE", "ACCOUNT"])];
        ask(self.socket, &Request::ListAccounts { after, limit }, |answer| {
            let Answer::Account(account) = answer else { return Ok(()) };
            if self.json {
                return self.programs(&account);
            }
            let Account { account, handle, created_ms, disabled, devices } = account;
            let state = if disabled { "disabled" } else { "active" };
            rows.push(vec![handle, minute(created_ms), devices.to_string(), state.to_owned(), account]);
            Ok(())
        })?;
        self.rows(&rows)
    }

    fn create_accounts(&mut self, handles: &[String], sessions: bool) -> anyhow::Result<()> {
        for batch in handles.chunks(CREATE_ACCOUNTS_MAX) {
            let request = Request::CreateAccounts { handles: batch.to_vec(), sessions };
            ask(self.socket, &request, |answer| {
                let Answer::Created(created) = answer else { return Ok(()) };
                self.created(&created)
            })?;
        }
        if sessions && !self.json {
            // What to do with the results is not one of them.
            let _ = writeln!(
                io::stderr(),
                "note: what follows a handle are the credentials of one device, as the SDK reads them \
                 (quail_client::Credentials); keep them in a file that only this device's user can read"
            );
        }
        Ok(())
    }

    fn created(&mut self, created: &Created) -> anyhow::Result<()> {
        if self.json {
            return self.programs(created);
        }
        match &created.token {
            Some(_) => self.people(&format!("{}  {}", created.handle, serde_json::to_string(created)?)),
            None => self.people(&created.handle),
        }
    }

    fn reset_password(
        &mut self,
        handle: &str,
        password: Option<Secret>,
        keep_sessions: bool,
    ) -> anyhow::Result<()> {
        let mut drawn = None;
        let request = Request::ResetPassword { handle: handle.to_owned(), password, keep_sessions };
        ask(self.socket, &request, |answer| {
            if let Answer::Password(Secret(password)) = answer {
                drawn = Some(password);
            }
            Ok(())
        })?;
        match (self.json, drawn) {
            (true, drawn) => self.programs(&json!({
                "handle": handle, "password": drawn, "sessions_kept": keep_sessions,
            })),
            (false, Some(drawn)) => self.people(&drawn),
            (false, None) => self.people(&format!("{handle} has the new password")),
        }
    }

    fn devices(&mut self, handle: String) -> anyhow::Result<()> {
        let mut rows = vec![head(&["DEVICE", "LOGGED IN (UTC)", "LAST SEEN (UTC)", "PLATFORM", "NAME"])];
        ask(self.socket, &Request::ListDevices { handle }, |answer| {
            let Answer::Device(device) = answer else { return Ok(()) };
            if self.json {
                return self.programs(&device);
            }
            let Device { device, name, created_ms, platform, last_seen_ms } = device;
            // Clients choose names; what a terminal would act on is shown instead.
            let [platform, name] = [platform, name].map(|text| text.escape_debug().to_string());
            rows.push(vec![device, minute(created_ms), minute(last_seen_ms), platform, name]);
            Ok(())
        })?;
        self.rows(&rows)
    }

    fn create_invites(&mut self, count: u16) -> anyhow::Result<()> {
        let mut codes = Vec::with_capacity(count.into());
        let result = ask(self.socket, &Request::CreateInvites { count }, |answer| {
            if let Answer::InviteCode(Secret(code)) = answer {
                codes.push(code);
            }
            Ok(())
        });
        // Codes that were made before something failed are good, and nobody else knows them.
        if self.json {
            self.programs(&json!({ "invites": codes }))?;
        } else {
            codes.iter().try_for_each(|code| self.people(code))?;
        }
        result
    }

    fn invites(&mut self) -> anyhow::Result<()> {
        let mut invites = Vec::new();
        ask(self.socket, &Request::ListInvites, |answer| {
            if let Answer::Invite(invite) = answer {
                invites.push(invite);
            }
            Ok(())
        })?;
        // They come in the order of their ids, which is none for people.
        invites.sort_by_key(|invite: &Invite| invite.created_ms);
        let mut rows = vec![head(&["INVITE", "CREATED (UTC)", "USED BY"])];
        for invite in invites {
            if self.json {
                self.programs(&invite)?;
            }
            rows.push(vec![invite.id, minute(invite.created_ms), invite.used_by.unwrap_or_default()]);
        }
        self.rows(&rows)
    }

    fn dead(&mut self) -> anyhow::Result<()> {
        let mut rows = vec![head(&["NUMBER", "ORIGIN", "POSITION", "BYTES", "ERROR"])];
        ask(self.socket, &Request::ListDead, |answer| {
            let Answer::Dead(dead) = answer else { return Ok(()) };
            if self.json {
                return self.programs(&dead);
            }
            let numbers = [dead.number, dead.origin.into(), dead.position, dead.bytes];
            let mut row: Vec<_> = numbers.iter().map(u64::to_string).collect();
            row.push(dead.error.escape_debug().to_string());
            rows.push(row);
            Ok(())
        })?;
        self.rows(&rows)
    }

    fn retry_dead(&mut self, number: Option<u64>) -> anyhow::Result<()> {
        ask(self.socket, &Request::RetryDead { number }, |answer| {
            let Answer::Retried(retried) = answer else { return Ok(()) };
            if self.json {
                return self.programs(&retried);
            }
            let number = retried.number;
            match retried.error {
                None => self.people(&format!("dead letter {number} is archived")),
                Some(error) => {
                    self.people(&format!("dead letter {number} is kept: {}", error.escape_debug()))
                }
            }
        })
    }

    fn status(&mut self) -> anyhow::Result<()> {
        ask(self.socket, &Request::Status, |answer| match answer {
            Answer::Status(status) if self.json => self.programs(&status),
            Answer::Status(status) => self.out_raw(&table(&status_rows(*status))),
            _ => Ok(()),
        })
    }

    fn rows(&mut self, rows: &[Vec<String>]) -> anyhow::Result<()> {
        if self.json { Ok(()) } else { self.out_raw(&table(rows)) }
    }

    fn people(&mut self, line: &str) -> anyhow::Result<()> {
        Ok(writeln!(self.out, "{line}")?)
    }

    fn programs(&mut self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        Ok(writeln!(self.out, "{}", serde_json::to_string(value)?)?)
    }

    fn out_raw(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.out.write_all(text.as_bytes())?)
    }
}

fn head(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn status_rows(status: Status) -> Vec<Vec<String>> {
    let mut rows = vec![
        vec!["version".to_owned(), status.version],
        vec!["origin".to_owned(), status.origin.to_string()],
        vec!["process".to_owned(), status.pid.to_string()],
        vec!["up for".to_owned(), duration(status.uptime_s)],
        vec!["listens on".to_owned(), status.listen],
        vec!["connections".to_owned(), status.connections.to_string()],
        vec!["data directory".to_owned(), status.data],
        vec!["pin".to_owned(), status.pin],
    ];
    rows.extend(status.ops_address.map(|address| vec!["health and metrics".to_owned(), address]));
    rows.push(vec!["events waiting".to_owned(), status.unacknowledged_events.to_string()]);
    rows.push(vec![
        "certificate ends".to_owned(),
        minute(u64::try_from(status.certificate_expires_s).unwrap_or_default().saturating_mul(1_000)),
    ]);
    rows
}

/// Sends a request and hands each line of its answer but the last to `take`.
fn ask(
    socket: &Path,
    request: &Request,
    mut take: impl FnMut(Answer) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let no_daemon = |source| AdminClientError::NoDaemon { path: socket.to_owned(), source };
    let broken = |reason: String| AdminClientError::Broken { path: socket.to_owned(), reason };
    let mut stream = connect(socket).map_err(no_daemon)?;
    let set =
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).and(stream.set_write_timeout(Some(ANSWER_TIMEOUT)));
    set.map_err(|error| broken(error.to_string()))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    // A daemon that does not want to read the request has said why, and that is read below.
    let _ = stream.write_all(&line);
    for line in lines(stream) {
        let line = line.map_err(|error| broken(error.to_string()))?;
        let answer = serde_json::from_slice(&line).map_err(|error| broken(unknown(&error)))?;
        match answer {
            Answer::Done => return Ok(()),
            Answer::Error(failed) => return Err(AdminClientError::Failed(failed).into()),
            answer => take(answer)?,
        }
    }
    Err(broken("the daemon ended it".to_owned()).into())
}

fn lines(stream: UnixStream) -> impl Iterator<Item = io::Result<Vec<u8>>> {
    BufReader::new(stream).split(b'\n')
}

/// The line itself may hold a secret.
fn unknown(error: &serde_json::Error) -> String {
    format!("column {} is not understood; is the daemon of another version?", error.column())
}
