//! Nothing secret gets into the log, at its most talkative: passwords, session tokens, codes of invites, bodies of messages.
//!
//! Every secret of a busy life is a canary, and is looked for in each form in which a careless line could show it. That the
//! search finds what is there is shown by what may be logged.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bytes::Bytes;
use quail_client::{Client, Credentials, Guest, MemoryStore};
use quail_protocol::v1::{self, request};
use quail_tests::raw::{RawClient, hello, send};
use quail_tests::{World, expect, next_message, options, quaild, text};

/// A form in which a secret could be shown, by name.
type Form = (&'static str, Vec<u8>);

/// Everything that must not be seen.
#[derive(Default)]
struct Canaries {
    /// What each is, and its bytes.
    secrets: Vec<(&'static str, Vec<u8>)>,
}

impl Canaries {
    /// Takes note of a secret text and returns it.
    fn text(&mut self, what: &'static str, text: &str) -> String {
        self.secrets.push((what, text.as_bytes().to_vec()));
        text.to_owned()
    }

    fn bytes(&mut self, what: &'static str, bytes: &[u8]) {
        self.secrets.push((what, bytes.to_vec()));
    }

    fn credentials(&mut self, credentials: &Credentials) {
        self.bytes("session token", credentials.token.as_bytes());
    }

    /// Fails with the place of the first secret that is in `haystack`.
    fn assert_absent(&self, place: &str, haystack: &[u8]) {
        for (what, secret) in &self.secrets {
            for (form, needle) in forms(secret) {
                if let Some(line) = find(haystack, &needle) {
                    panic!("a {what} stands in {place} as {form}, line {line}");
                }
            }
        }
    }
}

/// Returns the forms in which bytes get shown.
fn forms(secret: &[u8]) -> Vec<Form> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let decimals = |between: &str| secret.iter().map(u8::to_string).collect::<Vec<_>>().join(between);
    let escaped = secret.escape_ascii().to_string();
    vec![
        ("raw bytes", secret.to_vec()),
        ("hex", hex.clone().into_bytes()),
        ("hex in capitals", hex.to_uppercase().into_bytes()),
        ("base64", base64(secret, b"+/")),
        ("base64 for addresses", base64(secret, b"-_")),
        ("a list", decimals(", ").into_bytes()),
        ("a JSON list", decimals(",").into_bytes()),
        ("escaped bytes", escaped.replace('\\', "\\\\").into_bytes()),
        ("escaped bytes", escaped.into_bytes()),
        ("small letters", secret.to_ascii_lowercase()),
        ("capitals", secret.to_ascii_uppercase()),
    ]
}

/// Base 64 without padding, whose beginning is the same as with it.
fn base64(bytes: &[u8], last: &[u8; 2]) -> Vec<u8> {
    let mut alphabet: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').collect();
    alphabet.extend(last);
    let mut text = Vec::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte));
        let group = group << (8 * (3 - chunk.len()));
        let digit = |at: usize| alphabet[(group >> (18 - 6 * at) & 63) as usize];
        text.extend((0..=chunk.len()).map(digit));
    }
    text
}

/// Returns the number of the line where `needle` begins.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let at = haystack.windows(needle.len()).position(|window| window == needle)?;
    Some(1 + haystack[..at].iter().filter(|byte| **byte == b'\n').count())
}

/// A daemon that logs everything, and what must not be in its log.
struct Life {
    world: World,
    canaries: Canaries,
    /// What the admin commands printed that has no business with secrets.
    printed: Vec<u8>,
}

impl Life {
    async fn start() -> Self {
        let world = World::start_with(|options| {
            options.args = vec!["--log-level".into(), "trace".into()];
            options.env.push(("QUAIL_ACCOUNTS_SIGN_UP".into(), "invite".into()));
        })
        .await;
        Self { world, canaries: Canaries::default(), printed: Vec::new() }
    }

    fn data(&self) -> PathBuf {
        self.world.directory.path().join("data")
    }

    /// Runs an admin command that prints secrets and returns its results.
    async fn admin(&mut self, args: &[&str], input: &str) -> String {
        let mut command = Command::new(quaild());
        command.arg("--data").arg(self.data()).arg("admin").args(args).env_remove("RUST_LOG");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.to_owned();
        let run = move || {
            let mut child = command.spawn().unwrap();
            // A command that reads no input may be gone already.
            let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
            child.wait_with_output().unwrap()
        };
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        self.printed.extend(&output.stderr);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs an admin command that must not print any.
    async fn discreet(&mut self, args: &[&str], input: &str) -> String {
        let printed = self.admin(args, input).await;
        self.printed.extend(printed.as_bytes());
        printed
    }

    async fn guest(&self) -> Guest {
        Guest::connect(&self.world.address(), options()).await.unwrap()
    }

    async fn open(&self, credentials: &Credentials) -> Client {
        let store = MemoryStore::new();
        expect("a client", Client::open(&self.world.address(), credentials, store, options())).await.unwrap()
    }

    async fn sign_up(&mut self, handle: &str, password: &str, invite: &str) -> Credentials {
        let credentials = self.guest().await.sign_up(handle, password, Some(invite)).await.unwrap();
        self.canaries.credentials(&credentials);
        credentials
    }

    /// Says what is refused, with a canary in each.
    async fn misbehave(&mut self, ada: &Credentials) {
        let token = ada.token.as_bytes();
        let body = self.canaries.text("refused body", "canary-body-refused");
        let client = RawClient::resume(&self.world.address(), token).await;
        let mut lane = client.publish().await;
        lane.say(v1::Send { kind: 77, ..send(100, ada.account, &body) }).await;
        lane.say(v1::Send { body: Bytes::from(format!("{body}\0")), ..send(101, ada.account, "") }).await;
        lane.say(send(102, quail_client::AccountId([9; 16]), &body)).await;
        let mut torn = client.stream().await;
        torn.bytes(Bytes::from(format!("\u{10}{body}"))).await;
        let _ = torn.read::<v1::PublishDown>().await;

        let wrong: Vec<u8> = token.iter().map(|byte| byte ^ 0x5a).collect();
        self.canaries.bytes("wrong token", &wrong);
        RawClient::connect(&self.world.address()).await.hello(hello(&wrong)).await;
        let short = self.canaries.text("password that is no password", "canary7");
        let password = self.canaries.text("wrong password", "canary-password-wrong");
        let invite = self.canaries.text("wrong invite", "CANARYINVITEWRONG");
        for (handle, password) in [("ada", &password), ("nobody", &password), ("ada", &short)] {
            self.guest().await.log_in(handle, password).await.unwrap_err();
        }
        for (password, invite) in [(&password, &invite), (&short, &invite)] {
            self.guest().await.sign_up("eve", password, Some(invite)).await.unwrap_err();
        }
        let change = v1::ChangePassword { current_password: password.clone(), new_password: short };
        client.request(request::Command::ChangePassword(change)).await;
        let change = v1::ChangePassword { new_password: format!("{password}2"), current_password: password };
        client.request(request::Command::ChangePassword(change)).await;
    }

    /// Sends what is no request to the admin socket.
    async fn mumble(&mut self) {
        let secret = self.canaries.text("password in a broken request", "canary-password-broken");
        let path = self.data().join("admin.sock");
        let requests = [
            format!("{{\"command\":\"reset_password\",\"handle\":\"ada\",\"password\":\"{secret}\"\n"),
            format!("{{\"command\":\"{secret}\"}}\n"),
            format!("{{\"command\":\"reset_password\",\"handle\":\"ada\",\"password\":[\"{secret}\"]}}\n"),
        ];
        let ask = move || {
            requests.map(|request| {
                let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
                stream.write_all(request.as_bytes()).unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).unwrap();
                answer
            })
        };
        for answer in tokio::task::spawn_blocking(ask).await.unwrap() {
            assert!(answer.starts_with(b"{\"error\""), "{}", String::from_utf8_lossy(&answer));
            self.printed.extend(answer);
        }
    }

    /// What an operator does to accounts, with secrets drawn, given and mistaken.
    async fn administer(&mut self, codes: &[String]) {
        let given = self.canaries.text("password given by the operator", "canary-password-operator");
        self.discreet(&["accounts", "reset-password", "ada"], &format!("{given}\n")).await;
        let credentials = self.guest().await.log_in("ada", &given).await.unwrap();
        self.canaries.credentials(&credentials);
        let drawn = self.admin(&["accounts", "reset-password", "bob", "--generate"], "").await;
        self.canaries.text("drawn password", drawn.trim());
        let created = self.admin(&["accounts", "create", "cyd", "--session", "--json"], "").await;
        self.canaries.credentials(&serde_json::from_str(&created).unwrap());
        let short = self.canaries.text("password that is too short", "canary5");
        self.discreet(&["accounts", "reset-password", "ada"], &format!("{short}\n")).await;

        self.discreet(&["invites", "revoke", &codes[2]], "").await;
        self.discreet(&["invites", "revoke", &codes[0]], "").await;
        for list in [
            &["accounts", "list"][..],
            &["accounts", "list", "--json"],
            &["devices", "list", "ada"],
            &["devices", "list", "ada", "--json"],
            &["invites", "list"],
            &["invites", "list", "--json"],
            &["status"],
            &["status", "--json"],
        ] {
            assert!(!self.discreet(list, "").await.is_empty());
        }
        self.discreet(&["accounts", "disable", "cyd"], "").await;
    }
}

#[tokio::test]
async fn no_secret_of_a_busy_life_is_logged() {
    let mut life = Life::start().await;
    let printed = life.admin(&["invites", "create", "--count", "3"], "").await;
    let codes: Vec<String> = printed.lines().map(|code| life.canaries.text("invite", code)).collect();
    let password = life.canaries.text("password", "canary-password-first");
    let ada = life.sign_up("ada", &password, &codes[0]).await;
    let bob = life.sign_up("bob", &password, &codes[1]).await;
    let phone = life.guest().await.log_in("ada", &password).await.unwrap();
    life.canaries.credentials(&phone);

    let bodies = ["canary-body-one", "canary-body-two"].map(|body| life.canaries.text("body", body));
    let sender = life.open(&ada).await;
    sender.send(bob.account, &*bodies[0]).await.unwrap().accepted().await.unwrap();
    let new = life.canaries.text("new password", "canary-password-second");
    sender.change_password(&password, &new).await.unwrap();
    life.misbehave(&ada).await;
    life.mumble().await;

    // The backlog is read and delivered in another life than it was written in.
    life.world.kill_and_restart().await;
    sender.send(bob.account, &*bodies[1]).await.unwrap().accepted().await.unwrap();
    let reader = life.open(&bob).await;
    let mut events = reader.events().await.unwrap();
    for body in &bodies {
        assert_eq!(text(&next_message(&mut events).await), body);
    }
    drop(events);
    reader.close().await.unwrap();
    sender.close().await.unwrap();
    life.administer(&codes).await;
    assert!(life.world.daemon.stop().await.unwrap().success());

    let log = std::fs::read(life.world.directory.path().join("log")).unwrap();
    life.canaries.assert_absent("the log", &log);
    life.canaries.assert_absent("what admin commands printed", &life.printed);
    // All texts have this in common, so no part of one was shown either.
    assert_eq!(find(&log.to_ascii_lowercase(), b"canary"), None);

    // The log is not empty, and the search finds what it may have: at the level that was asked for, from both lives.
    for known in [ada.account.to_string(), bob.device.to_string(), "accounts reset-password".to_owned()] {
        assert!(find(&log, known.as_bytes()).is_some(), "{known} is not in the log");
    }
    assert!(find(&log, b"\"level\":\"DEBUG\"").is_some());
    assert!(find(&life.printed, b"ada").is_some());
}

#[test]
fn the_search_finds_a_secret_in_every_form() {
    assert_eq!(base64(b"any carnal pleas", b"+/"), b"YW55IGNhcm5hbCBwbGVhcw");
    assert_eq!(base64(&[0xfb, 0xff], b"-_"), b"-_8");
    let secret = [0x9b, 0x1c, 0xc5, b'A', 0x07];
    let mut canaries = Canaries::default();
    canaries.bytes("secret", &secret);
    canaries.assert_absent("nothing", b"");
    let shown = [
        format!("{secret:?}"),
        format!("{:?}", Bytes::copy_from_slice(&secret)),
        format!("{secret:02x?}").replace(", ", ""),
        format!("{secret:02X?}").replace(", ", ""),
        serde_json::to_string(&secret).unwrap(),
        serde_json::to_string(&format!("{:?}", Bytes::copy_from_slice(&secret))).unwrap(),
        "mxzFQQc=".to_owned(),
    ];
    for shown in shown {
        let line = format!("first\n{{\"message\":\"{shown}\"}}\n");
        let found = forms(&secret).iter().find_map(|(_, needle)| find(line.as_bytes(), needle));
        assert_eq!(found, Some(2), "{shown}");
    }
}
