//! The directory in a real Postgres: the promises of its port, with several nodes at once and with a server that fails.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::time::{Duration, Instant};

use quail_core::ports::directory::conformance::directory_conformance;
use quail_core::ports::directory::{
    Administration, Directory, DirectoryError, NewAccount, NewDevice, ProvidedAccount,
};
use quail_protocol::id::{AccountId, DeviceId};
use quail_protocol::limits::DEVICES_MAX;
use quail_tests::expect;
use quail_tests::postgres::{PASSWORD, Postgres, USER};
use quaild::adapters::postgres::{
    PostgresDirectory, PostgresError, PostgresOptions, PostgresPlace, Secret, TlsMode,
};
use quaild::adapters::sql::schema::SchemaError;
use quaild::net::identity::Identity;
use tokio::task::JoinSet;

const NOW_MS: u64 = 1_720_000_000_000;

const TIMEOUT: Duration = Duration::from_secs(1);

fn options(postgres: &Postgres) -> PostgresOptions {
    PostgresOptions {
        place: PostgresPlace {
            host: "127.0.0.1".to_owned(),
            port: postgres.port(),
            user: USER.to_owned(),
            database: USER.to_owned(),
            tls: TlsMode::Prefer,
            root_certificate: None,
        },
        password: Some(Secret(PASSWORD.to_owned())),
        connections: 4,
        statement_timeout: TIMEOUT,
    }
}

/// For tests in which nobody hangs, on a machine that may be slow.
fn patient(postgres: &Postgres) -> PostgresOptions {
    PostgresOptions { statement_timeout: Duration::from_secs(30), ..options(postgres) }
}

fn new_device(seed: u8) -> NewDevice {
    NewDevice {
        device: DeviceId([seed; 16]),
        name: "phone".to_owned(),
        platform: "android 15".to_owned(),
        token_hash: [seed; 32],
    }
}

fn new_account(seed: u8, handle: &str) -> NewAccount {
    NewAccount {
        account: AccountId([seed; 16]),
        handle: handle.to_owned(),
        password_hash: "hash".to_owned(),
        invite_hash: None,
        device: new_device(seed),
    }
}

async fn refused(options: &PostgresOptions) -> PostgresError {
    let error = expect("a refusal", PostgresDirectory::open(options)).await.err().unwrap();
    let (text, debug) = (error.to_string(), format!("{error:?}"));
    assert!(!text.contains(PASSWORD) && !debug.contains(PASSWORD), "{text} {debug}");
    error
}

#[tokio::test]
async fn postgres_keeps_the_promises_of_the_port() {
    let Some(postgres) = Postgres::start().await else { return };
    let directory = PostgresDirectory::open(&patient(&postgres)).await.unwrap();
    directory_conformance(async || {
        postgres.sql("TRUNCATE origins, accounts, devices, invites, conversation_flags").await;
        Box::new(directory.clone()) as Box<dyn Administration>
    })
    .await;
}

#[tokio::test]
async fn nodes_that_start_at_once_make_one_schema_and_get_numbers_of_their_own() {
    let Some(postgres) = Postgres::start().await else { return };
    let mut nodes = JoinSet::new();
    for _ in 0..4 {
        let options = patient(&postgres);
        nodes.spawn(async move {
            let directory = PostgresDirectory::open(&options).await.unwrap();
            (directory.identity(), directory.register_origin(NOW_MS).await.unwrap())
        });
    }
    let mut all = nodes.join_all().await;
    all.sort_by_key(|(_, origin)| *origin);
    assert!(all.iter().all(|(identity, _)| *identity == all[0].0 && *identity != [0; 16]));
    all.dedup_by_key(|(_, origin)| *origin);
    assert_eq!(all.len(), 4);
    assert_eq!(postgres.sql("SELECT count(*) FROM origins").await, "4");
}

#[tokio::test]
async fn of_two_who_ask_for_one_thing_at_once_one_gets_it() {
    let Some(postgres) = Postgres::start().await else { return };
    let one = PostgresDirectory::open(&patient(&postgres)).await.unwrap();
    let other = PostgresDirectory::open(&patient(&postgres)).await.unwrap();
    for round in 0..20 {
        let handle = format!("handle{round}");
        let (first, second) = tokio::join!(
            one.create_account(new_account(1 + 2 * round, &handle), NOW_MS),
            other.create_account(new_account(2 + 2 * round, &handle), NOW_MS),
        );
        let (winner, loser) = if first.is_ok() { (first, second) } else { (second, first) };
        assert_eq!(loser, Err(DirectoryError::HandleTaken));
        assert_eq!(one.look_up(handle).await, Ok(Some(winner.unwrap())));
    }
    for round in 0..20_u8 {
        let invite = [round; 32];
        one.create_invite(invite, NOW_MS).await.unwrap();
        let invited = |seed: u8| NewAccount {
            invite_hash: Some(invite),
            ..new_account(100 + seed, &format!("invited{}", 100 + seed))
        };
        let (first, second) = tokio::join!(
            one.create_account(invited(2 * round), NOW_MS),
            other.create_account(invited(2 * round + 1), NOW_MS),
        );
        let refused = if first.is_ok() { second } else { first };
        assert_eq!(refused, Err(DirectoryError::InviteInvalid));
    }
}

#[tokio::test]
async fn batches_that_overlap_are_created_whole_or_not_at_all() {
    let Some(postgres) = Postgres::start().await else { return };
    let one = PostgresDirectory::open(&patient(&postgres)).await.unwrap();
    let other = PostgresDirectory::open(&patient(&postgres)).await.unwrap();
    for round in 0..10_u8 {
        let provided = |seed: u8, name: u8| ProvidedAccount {
            account: AccountId([round, seed, name, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            handle: format!("person{round}x{name}"),
            password_hash: "hash".to_owned(),
            device: None,
        };
        // In opposite orders, so that each may wait for the other.
        let (first, second) = tokio::join!(
            one.create_accounts((0..20).map(|name| provided(1, name)).collect(), NOW_MS),
            other.create_accounts((0..20).rev().map(|name| provided(2, name)).collect(), NOW_MS),
        );
        let (winner, loser) = if first.is_ok() { (first, second) } else { (second, first) };
        assert_eq!(winner.unwrap().len(), 20);
        let Err(DirectoryError::HandlesTaken { handles }) = loser else { panic!("{loser:?}") };
        assert_eq!(handles.len(), 20);
    }
    assert_eq!(postgres.sql("SELECT count(*) FROM accounts").await, "200");
}

#[tokio::test]
async fn changes_from_many_sides_are_counted_and_limited_as_if_one_after_the_other() {
    let Some(postgres) = Postgres::start().await else { return };
    let one = PostgresDirectory::open(&patient(&postgres)).await.unwrap();
    let other = PostgresDirectory::open(&patient(&postgres)).await.unwrap();
    let ada = one.create_account(new_account(1, "ada"), NOW_MS).await.unwrap().account;
    let tries = 2 * u8::try_from(DEVICES_MAX).unwrap();
    let mut adding = JoinSet::new();
    for seed in 0..tries {
        let node = if seed % 2 == 0 { one.clone() } else { other.clone() };
        adding.spawn(
            async move { node.add_device(ada, new_device(100 + seed), "hash".to_owned(), NOW_MS).await },
        );
    }
    let added = adding.join_all().await;
    let refused = added.iter().filter(|added| **added == Err(DirectoryError::DeviceLimit)).count();
    let done = added.iter().flatten().count();
    assert_eq!((done, done + refused), (DEVICES_MAX - 1, usize::from(tries)));
    let facts = one.facts(ada).await.unwrap().unwrap();
    assert_eq!((facts.devices.len(), facts.version), (DEVICES_MAX, DEVICES_MAX as u64));
    // Each answer told a version of its own.
    let mut versions: Vec<_> = added.into_iter().flatten().map(|facts| facts.version).collect();
    versions.sort_unstable();
    assert_eq!(versions, (2..=DEVICES_MAX as u64).collect::<Vec<_>>());

    // One unlinks the other while the other unlinks the one: somebody is left, and nobody acts after the end.
    let (first, second) = (facts.devices[0], facts.devices[1]);
    let (unlinked, refused) =
        tokio::join!(one.unlink_device(ada, first, second), other.unlink_device(ada, second, first));
    assert!(unlinked.is_ok() != refused.is_ok(), "{unlinked:?} {refused:?}");
    assert_eq!(one.facts(ada).await.unwrap().unwrap().devices.len(), DEVICES_MAX - 1);
}

#[tokio::test]
async fn nodes_record_the_same_devices_at_once() {
    let Some(postgres) = Postgres::start().await else { return };
    let one = PostgresDirectory::open(&patient(&postgres)).await.unwrap();
    let other = PostgresDirectory::open(&patient(&postgres)).await.unwrap();
    let devices: Vec<_> = (1..=50).map(|seed| DeviceId([seed; 16])).collect();
    for seed in 1..=50 {
        one.create_account(new_account(seed, &format!("person{seed}")), NOW_MS).await.unwrap();
    }
    for round in 0..20 {
        let at = |ms: u64| devices.iter().map(move |device| (*device, NOW_MS + 10 * round + ms));
        let (first, second) =
            tokio::join!(one.record_seen(at(1).collect()), other.record_seen(at(2).rev().collect()));
        first.unwrap();
        second.unwrap();
    }
    let seen = one.devices(AccountId([7; 16])).await.unwrap()[0].last_seen_ms;
    assert_eq!(seen, NOW_MS + 192);
}

#[tokio::test]
async fn a_server_that_was_killed_has_what_it_answered_and_nobody_notices_its_restart() {
    let Some(mut postgres) = Postgres::start().await else { return };
    let directory = PostgresDirectory::open(&patient(&postgres)).await.unwrap();
    let mut answered = Vec::new();
    for round in 0..5 {
        let mut commands = JoinSet::new();
        for number in 0..40_u8 {
            let directory = directory.clone();
            let mut new = new_account(number, &format!("person{round}x{number}"));
            new.account.0[0] = 100 + round;
            new.device.device.0[0] = 100 + round;
            new.device.token_hash[0] = 100 + round;
            commands.spawn(async move { directory.create_account(new, NOW_MS).await });
        }
        // In the middle of them, as the first answer shows.
        answered.push(commands.join_next().await.unwrap().unwrap().unwrap());
        postgres.kill();
        while let Some(done) = commands.join_next().await {
            match done.unwrap() {
                Ok(facts) => answered.push(facts),
                Err(error) => assert!(error.is_temporary(), "{error}"),
            }
        }
        postgres.restart().await;
        for facts in &answered {
            assert_eq!(directory.facts(facts.account).await, Ok(Some(facts.clone())));
        }
    }
    println!("{} answered in 5 lives", answered.len());
    // Connections that wait died with the server; a command takes a new one.
    postgres.restart().await;
    directory.create_invite([1; 32], NOW_MS).await.unwrap();
}

#[tokio::test]
async fn a_frozen_server_costs_everybody_a_bounded_time() {
    let Some(postgres) = Postgres::start().await else { return };
    let directory = PostgresDirectory::open(&options(&postgres)).await.unwrap();
    directory.create_account(new_account(1, "ada"), NOW_MS).await.unwrap();
    for _ in 0..2 {
        postgres.freeze();
        let began = Instant::now();
        let mut commands = JoinSet::new();
        for seed in 0..20 {
            let directory = directory.clone();
            commands.spawn(async move { directory.facts(AccountId([seed; 16])).await });
        }
        for answer in commands.join_all().await {
            let error = answer.unwrap_err();
            let text = error.to_string();
            assert!(error.is_temporary(), "{text}");
            assert!(text.contains("did not answer within") || text.contains("were busy"), "{text}");
        }
        // One wait for a connection and one for the answer; the rest is the machine's.
        assert!(began.elapsed() < 4 * TIMEOUT, "{:?}", began.elapsed());
        postgres.thaw();
        let back = async { while directory.facts(AccountId([1; 16])).await.is_err() {} };
        expect("the server to be back", back).await;
    }
}

#[tokio::test]
async fn a_command_that_is_dropped_halfway_is_undone() {
    let Some(postgres) = Postgres::start().await else { return };
    let directory = PostgresDirectory::open(&patient(&postgres)).await.unwrap();
    directory.create_account(new_account(1, "ada"), NOW_MS).await.unwrap();
    for round in 0..30_u64 {
        let new = new_account(50, "bob");
        let halfway =
            tokio::time::timeout(Duration::from_micros(300 * round), directory.create_account(new, NOW_MS));
        if halfway.await.is_ok() {
            break;
        }
        // Whole or not at all; the server may still be about to notice.
        let settled = async {
            loop {
                let facts = directory.look_up("bob".to_owned()).await.unwrap();
                let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
                if postgres.sql(open).await == "0" {
                    break facts;
                }
            }
        };
        let facts = expect("the server to notice", settled).await;
        assert!(facts.is_none_or(|facts| facts.devices.len() == 1));
        postgres.sql("DELETE FROM devices WHERE name = 'phone' AND account IN (SELECT account FROM accounts WHERE handle = 'bob')").await;
        postgres.sql("DELETE FROM accounts WHERE handle = 'bob'").await;
    }
    assert!(directory.session([1; 32]).await.unwrap().is_some());
}

#[tokio::test]
async fn locks_of_others_and_busy_connections_are_told_and_pass() {
    let Some(postgres) = Postgres::start().await else { return };
    let options = PostgresOptions { connections: 1, ..options(&postgres) };
    let directory = PostgresDirectory::open(&options).await.unwrap();
    let ada = directory.create_account(new_account(1, "ada"), NOW_MS).await.unwrap();
    let holding = postgres.sql("BEGIN; LOCK TABLE accounts; SELECT pg_sleep(4); COMMIT");
    let trying = async {
        let is_held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'accounts'::regclass";
        let held = async { while postgres.sql(is_held).await == "0" {} };
        expect("the lock", held).await;
        let (first, second) = tokio::join!(directory.facts(ada.account), directory.facts(ada.account));
        let texts = [first, second].map(|answer| {
            let error = answer.unwrap_err();
            assert!(error.is_temporary(), "{error}");
            error.to_string()
        });
        assert!(
            texts.iter().any(|text| text.contains("timeout") || text.contains("did not answer")),
            "{texts:?}"
        );
        assert!(texts.iter().all(|text| text.contains("unavailable")), "{texts:?}");
    };
    tokio::join!(holding, trying);
    assert_eq!(directory.facts(ada.account).await, Ok(Some(ada)));
}

#[tokio::test]
async fn what_keeps_a_daemon_out_is_named_with_the_next_step() {
    let Some(postgres) = Postgres::start().await else { return };
    let good = patient(&postgres);
    let wrong = PostgresOptions { password: Some(Secret("guess".to_owned())), ..good.clone() };
    let error = refused(&wrong).await;
    assert!(matches!(&error, PostgresError::Refused { .. }), "{error}");
    assert!(!error.is_temporary() && error.hint().contains("password_file"));

    let mut place = good.place.clone();
    place.user = "nobody".to_owned();
    let error = refused(&PostgresOptions { place, ..good.clone() }).await;
    assert!(matches!(error, PostgresError::Refused { .. }), "{error}");

    let mut place = good.place.clone();
    place.database = "missing".to_owned();
    let error = refused(&PostgresOptions { place, ..good.clone() }).await;
    assert!(matches!(error, PostgresError::NoDatabase { .. }), "{error}");

    let mut place = good.place.clone();
    // Nobody listens on a port that was just given back.
    place.port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = refused(&PostgresOptions { place, ..good.clone() }).await;
    assert!(matches!(error, PostgresError::Unreachable { .. }) && error.is_temporary(), "{error}");

    let mut place = good.place.clone();
    place.tls = TlsMode::VerifyFull;
    let error = refused(&PostgresOptions { place: place.clone(), ..good.clone() }).await;
    assert!(matches!(error, PostgresError::Tls { .. }), "{error}");
    place.root_certificate = Some("/nowhere/ca.pem".into());
    let error = refused(&PostgresOptions { place, ..good.clone() }).await;
    assert!(matches!(error, PostgresError::RootCertificate { .. }), "{error}");

    // Somebody who accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut place = good.place.clone();
    place.port = silent.local_addr().unwrap().port();
    let error = refused(&PostgresOptions { place, statement_timeout: TIMEOUT, ..good }).await;
    assert!(
        matches!(&error, PostgresError::Unreachable { reason, .. } if reason.contains("no answer")),
        "{error}"
    );
    assert_eq!(postgres.sql("SELECT to_regclass('accounts') IS NULL").await, "t");
}

#[tokio::test]
async fn a_user_who_may_not_make_tables_needs_somebody_who_may_once() {
    let Some(postgres) = Postgres::start().await else { return };
    postgres.sql("CREATE ROLE guest LOGIN PASSWORD 'guest'").await;
    let mut guest = patient(&postgres);
    guest.place.user = "guest".to_owned();
    guest.password = Some(Secret("guest".to_owned()));
    let error = refused(&guest).await;
    assert!(
        matches!(&error, PostgresError::Rights { .. }) && error.hint().contains("quaild migrate"),
        "{error}"
    );

    let due = PostgresDirectory::due(&patient(&postgres)).await.unwrap();
    assert_eq!(due.first().unwrap().description, "directory");
    assert_eq!(PostgresDirectory::migrate(&patient(&postgres)).await.unwrap(), due);
    assert_eq!(PostgresDirectory::due(&patient(&postgres)).await.unwrap(), []);
    postgres.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest").await;
    let directory = PostgresDirectory::open(&guest).await.unwrap();
    directory.register_origin(NOW_MS).await.unwrap();
    directory.create_account(new_account(1, "ada"), NOW_MS).await.unwrap();

    // A right that is taken away meanwhile is for an operator to give back, and no damage.
    postgres.sql("REVOKE INSERT ON accounts FROM guest").await;
    let error = directory.create_account(new_account(2, "bob"), NOW_MS).await.unwrap_err();
    assert!(error.is_temporary() && error.to_string().contains("permission denied"), "{error}");
    assert!(directory.session([1; 32]).await.unwrap().is_some());
}

#[tokio::test]
async fn a_schema_from_the_future_is_left_alone() {
    let Some(postgres) = Postgres::start().await else { return };
    let options = patient(&postgres);
    PostgresDirectory::open(&options).await.unwrap().close().await;
    postgres
        .sql(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'from the future', TRUE, '\\x00', 0)",
        )
        .await;
    let error = refused(&options).await;
    let PostgresError::Schema { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(source, SchemaError::Newer { version: 9999, .. }), "{source}");
    assert!(error.to_string().contains("run the newer quaild"), "{error}");
    assert!(PostgresDirectory::migrate(&options).await.is_err());

    postgres.sql("DELETE FROM _sqlx_migrations WHERE version = 9999").await;
    postgres.sql("UPDATE _sqlx_migrations SET checksum = '\\x00'").await;
    let error = refused(&options).await;
    assert!(
        matches!(error, PostgresError::Schema { source: SchemaError::Other { version: 1 }, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn answers_are_durable_whatever_the_server_defaults_to() {
    let Some(postgres) = Postgres::start().await else { return };
    postgres.sql(&format!("ALTER ROLE {USER} SET synchronous_commit = off")).await;
    postgres.sql(&format!("ALTER ROLE {USER} SET default_transaction_isolation = 'serializable'")).await;
    let directory = PostgresDirectory::open(&patient(&postgres)).await.unwrap();
    postgres.sql(
        "CREATE TABLE seen (setting TEXT);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
             INSERT INTO seen VALUES (current_setting('synchronous_commit') || ' ' || current_setting('transaction_isolation'));
             RETURN NEW;
         END $$;
         CREATE TRIGGER note BEFORE INSERT ON origins FOR EACH ROW EXECUTE FUNCTION note()",
    )
    .await;
    directory.register_origin(NOW_MS).await.unwrap();
    assert_eq!(postgres.sql("SELECT setting FROM seen").await, "on read committed");
}

#[tokio::test]
async fn what_no_daemon_can_have_written_is_damage() {
    let Some(postgres) = Postgres::start().await else { return };
    let directory = PostgresDirectory::open(&patient(&postgres)).await.unwrap();
    let ada = directory.create_account(new_account(1, "ada"), NOW_MS).await.unwrap();
    postgres.sql("ALTER TABLE devices DROP CONSTRAINT devices_device_check").await;
    postgres.sql("UPDATE devices SET device = '\\x0102'").await;
    let error = directory.facts(ada.account).await.unwrap_err();
    let reason = "column device: device id must be 16 bytes, not 2".to_owned();
    assert_eq!(error, DirectoryError::Corrupt { reason });
}

#[tokio::test]
async fn the_way_there_is_protected_and_the_server_is_known() {
    let Some(postgres) = Postgres::start().await else { return };
    let folder = tempfile::TempDir::new().unwrap();
    let made = |name: &str| {
        let (certificate, key) =
            (folder.path().join(format!("{name}.pem")), folder.path().join(format!("{name}.key")));
        Identity::load_or_create(&certificate, &key, name).unwrap();
        (certificate, std::fs::read_to_string(key).unwrap())
    };
    let (trusted, key) = made("localhost");
    let (foreign, _) = made("elsewhere");
    let key = postgres.write("server.key", &key);
    let certificate = postgres.write("server.pem", &std::fs::read_to_string(&trusted).unwrap());
    postgres.sql(&format!("ALTER SYSTEM SET ssl_cert_file = '{}'", certificate.display())).await;
    postgres.sql(&format!("ALTER SYSTEM SET ssl_key_file = '{}'", key.display())).await;
    postgres.sql("ALTER SYSTEM SET ssl = on").await;
    postgres.sql("SELECT pg_reload_conf()").await;

    let mut options = patient(&postgres);
    options.place.host = "localhost".to_owned();
    options.place.tls = TlsMode::VerifyFull;
    options.place.root_certificate = Some(trusted);
    let reloaded = async { while postgres.sql("SHOW ssl").await != "on" {} };
    expect("TLS", reloaded).await;
    let directory = PostgresDirectory::open(&options).await.unwrap();
    directory.register_origin(NOW_MS).await.unwrap();
    let protected =
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'quail'";
    assert_eq!(postgres.sql(protected).await, "t");

    let unknown = [None, Some(foreign)];
    for root_certificate in unknown {
        let mut place = options.place.clone();
        place.root_certificate = root_certificate;
        let error = refused(&PostgresOptions { place, ..options.clone() }).await;
        assert!(matches!(error, PostgresError::Tls { .. }), "{error}");
    }
}
