//! SIGHUP: what follows a changed configuration without a restart, and what refuses to.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::path::Path;
use std::process::Command;

use quail::launcher::Signal;
use quail_client::{Address, Guest};
use quail_protocol::v1::Reason;
use quail_tests::{PASSWORD, World, expect, options, quaild};
use serde_json::Value;
use tempfile::TempDir;

/// A daemon with a configuration file that the test writes.
struct Reloaded {
    world: World,
    directory: TempDir,
}

impl Reloaded {
    async fn start(config: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("quail.toml");
        std::fs::write(&file, config).unwrap();
        let world = World::start_with(|options| options.args = vec!["--config".into(), file.into()]).await;
        Self { world, directory }
    }

    fn log(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.world.directory.path().join("log")).unwrap();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn count(&self, message: &str) -> usize {
        self.log().iter().filter(|line| line["message"] == message).count()
    }

    /// Sends SIGHUP and waits until the daemon says what it made of it.
    async fn hang_up(&self, says: &str) {
        let before = self.count(says);
        self.world.daemon.signal(Signal::HUP).unwrap();
        expect(says, async {
            while self.count(says) == before {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn reload(&self, config: &str) {
        std::fs::write(self.directory.path().join("quail.toml"), config).unwrap();
        self.hang_up("configuration and certificates reloaded").await;
    }

    async fn refuse(&self, config: &str) {
        std::fs::write(self.directory.path().join("quail.toml"), config).unwrap();
        self.hang_up("nothing was reloaded, the daemon goes on as before").await;
    }

    async fn sign_up(&self, handle: &str) -> Result<(), Option<Reason>> {
        let guest = Guest::connect(&self.world.address(), options()).await.unwrap();
        guest.sign_up(handle, PASSWORD, None).await.map(drop).map_err(|error| error.reason())
    }
}

#[tokio::test]
async fn who_may_sign_up_and_what_is_logged_follow_the_configuration() {
    let reloaded = Reloaded::start("").await;
    let ada = reloaded.world.sign_up("ada").await;
    let client = ada.open().await;
    reloaded.reload("[accounts]\nsign_up = \"closed\"\n[log]\nlevel = \"debug\"\n").await;
    assert_eq!(reloaded.sign_up("bob").await, Err(Some(Reason::SignUpClosed)));
    // Refused requests are told at this level.
    assert_eq!(reloaded.count("request refused"), 1);
    // What was connected stays so.
    client.send(ada.account(), "still here").await.unwrap().accepted().await.unwrap();
    reloaded.reload("").await;
    reloaded.sign_up("bob").await.unwrap();
    assert_eq!(reloaded.sign_up("bob").await, Err(Some(Reason::HandleTaken)));
    assert_eq!(reloaded.count("request refused"), 1);
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_stays() {
    let reloaded = Reloaded::start("").await;
    reloaded
        .reload("[server]\nname = \"chat.example\"\ndrain = \"1s\"\n[admin]\nsocket = \"/tmp/x\"\n")
        .await;
    let log = reloaded.log();
    let named = log.iter().filter(|line| line["message"] == "changed, but needs a restart to take effect");
    let mut named: Vec<_> = named.map(|line| line["setting"].as_str().unwrap()).collect();
    named.sort_unstable();
    assert_eq!(named, ["admin.socket", "server.name"]);
    let told = log.iter().find(|line| line["message"] == "configuration and certificates reloaded");
    assert_eq!(told.unwrap()["changed"], "server.drain");
    assert!(reloaded.world.directory.path().join("data/admin.sock").exists());
    reloaded.sign_up("ada").await.unwrap();
}

#[tokio::test]
async fn a_bad_configuration_is_refused_whole() {
    let reloaded = Reloaded::start("").await;
    reloaded
        .refuse("[accounts]\nsign_up = \"closed\"\n[log]\nlevel = \"loud\"\n[server]\ndrain = \"x\"\n")
        .await;
    let errors: Vec<_> =
        reloaded.log().into_iter().filter(|line| line["message"] == "cannot reload").collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors.iter().any(|line| line["error"].as_str().unwrap().contains("log.level")), "{errors:?}");
    reloaded.sign_up("ada").await.unwrap();
}

fn certificate(directory: &Path, of: &World) {
    let tls = of.directory.path().join("data/tls");
    for file in ["certificate.pem", "key.pem"] {
        std::fs::copy(tls.join(file), directory.join(file)).unwrap();
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_used_and_a_bad_one_refused() {
    let (first, second) = (World::start().await, World::start().await);
    let mut reloaded = Reloaded::start("").await;
    let directory = reloaded.directory.path().to_owned();
    certificate(&directory, &first);
    let config = format!(
        "[tls]\ncertificate_file = \"{0}/certificate.pem\"\nkey_file = \"{0}/key.pem\"\n",
        directory.display()
    );
    let own = reloaded.world.address();
    let ada = reloaded.world.sign_up("ada").await;
    let client = ada.open().await;
    let connects = async |pin| {
        let address = Address { host: "127.0.0.1".to_owned(), pin, ..own.clone() };
        Guest::connect(&address, options()).await.is_ok()
    };
    let (one, two) = (first.address().pin, second.address().pin);

    reloaded.reload(&config).await;
    assert!(connects(one).await && !connects(own.pin).await);
    // The same files with other content.
    certificate(&directory, &second);
    reloaded.hang_up("configuration and certificates reloaded").await;
    assert!(connects(two).await && !connects(one).await);
    client.send(ada.account(), "on the old connection").await.unwrap().accepted().await.unwrap();

    // A key that is not the certificate's keeps everything as it is, the other settings too.
    std::fs::copy(first.directory.path().join("data/tls/key.pem"), directory.join("key.pem")).unwrap();
    reloaded.refuse(&format!("{config}[accounts]\nsign_up = \"closed\"\n")).await;
    assert!(connects(two).await);
    let address = Address { host: "127.0.0.1".to_owned(), pin: two, ..own.clone() };
    let guest = Guest::connect(&address, options()).await.unwrap();
    guest.sign_up("bob", PASSWORD, None).await.unwrap();

    let mut status = Command::new(quaild());
    status
        .arg("--data")
        .arg(reloaded.world.directory.path().join("data"))
        .args(["admin", "status", "--json"]);
    let output = tokio::task::spawn_blocking(move || status.output().unwrap()).await.unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["pin"], two.unwrap().to_string());
    assert!(reloaded.world.daemon.stop().await.unwrap().success());
}
