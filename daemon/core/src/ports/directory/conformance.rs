//! What every directory must do, as checks that run against any of them.
//!
//! One suite for all implementations: an adapter that passes can stand where the twin stands. Each check gets a
//! directory of its own and names one promise. A broken promise panics with what was expected, as a test does.

#![expect(clippy::unwrap_used, reason = "checks are called by tests, which end by panicking")]

pub mod accounts;
pub mod administration;
pub mod devices;
pub mod flags;
pub mod passwords;
pub mod privacy;

use quail_protocol::id::{AccountId, DeviceId};

use super::{AccountFacts, Administration, Directory, NewAccount, NewDevice, SecretHash};

/// Some day in 2024; the suite never reads a clock.
const NOW_MS: u64 = 1_720_000_000_000;

/// Runs every check, each against a fresh directory from `make`.
///
/// # Panics
/// If the directory breaks a promise of the port.
pub async fn directory_conformance<F: AsyncFn() -> Box<dyn Administration>>(make: F) {
    accounts::origins_are_distinct(&*make().await).await;
    accounts::an_account_is_found_by_handle_and_by_id(&*make().await).await;
    accounts::a_handle_has_one_account(&*make().await).await;
    accounts::an_invite_is_good_for_one_account(&*make().await).await;
    accounts::a_refused_sign_up_keeps_its_invite(&*make().await).await;
    accounts::what_should_be_random_is_never_taken_twice(&*make().await).await;
    accounts::an_unknown_account_is_unknown_everywhere(&*make().await).await;
    devices::devices_are_limited(&*make().await).await;
    devices::every_change_of_the_devices_raises_the_version(&*make().await).await;
    devices::a_token_opens_the_session_of_its_device(&*make().await).await;
    devices::a_removed_device_has_no_session(&*make().await).await;
    devices::removing_again_changes_nothing(&*make().await).await;
    devices::nobody_removes_the_device_of_another(&*make().await).await;
    devices::a_device_unlinks_those_of_its_account(&*make().await).await;
    devices::a_device_that_is_gone_unlinks_nobody(&*make().await).await;
    devices::devices_are_listed_in_the_order_of_their_log_ins(&*make().await).await;
    devices::a_device_was_seen_when_it_was_recorded_last(&*make().await).await;
    passwords::a_new_password_ends_every_other_session(&*make().await).await;
    passwords::a_stale_password_opens_and_changes_nothing(&*make().await).await;
    passwords::a_removed_device_changes_no_password(&*make().await).await;
    privacy::read_receipts_are_on_until_a_device_turns_them_off(&*make().await).await;
    privacy::a_device_that_is_gone_changes_no_privacy(&*make().await).await;
    flags::flags_are_those_that_were_set_last(&*make().await).await;
    flags::a_device_that_is_gone_sets_no_flags(&*make().await).await;
    administration::accounts_are_listed_by_handle_in_pages(&*make().await).await;
    administration::a_batch_is_created_whole_or_not_at_all(&*make().await).await;
    administration::a_disabled_account_has_no_session_and_gets_none(&*make().await).await;
    administration::a_reset_password_ends_sessions_unless_they_are_kept(&*make().await).await;
    administration::invites_are_listed_by_hash_and_revoked_while_open(&*make().await).await;
    administration::nobody_has_nothing_to_administer(&*make().await).await;
}

async fn sign_up(directory: &dyn Directory, seed: u8, handle: &str) -> AccountFacts {
    directory.create_account(new_account(seed, handle), NOW_MS).await.unwrap()
}

async fn log_in(directory: &dyn Directory, owner: u8, handle: &str, seed: u8) -> AccountFacts {
    directory
        .add_device(account(owner), new_device(seed), format!("first of {handle}"), NOW_MS)
        .await
        .unwrap()
}

fn new_account(seed: u8, handle: &str) -> NewAccount {
    NewAccount {
        account: account(seed),
        handle: handle.to_owned(),
        password_hash: format!("first of {handle}"),
        invite_hash: None,
        device: new_device(seed),
    }
}

fn new_device(seed: u8) -> NewDevice {
    let (name, platform) = (format!("device {seed}"), format!("platform {seed}"));
    NewDevice { device: device(seed), name, platform, token_hash: token(seed) }
}

fn account(seed: u8) -> AccountId {
    AccountId([seed; 16])
}

fn device(seed: u8) -> DeviceId {
    // Later devices have smaller ids, so that sorted is not the order they came in.
    DeviceId([u8::MAX - seed; 16])
}

fn token(seed: u8) -> SecretHash {
    [seed; 32]
}
