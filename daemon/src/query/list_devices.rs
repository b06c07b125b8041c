//! List devices: what the account that asks is logged in with.

use quail_core::ports::directory::{DeviceSummary, Directory, SessionFacts};
use quail_protocol::v1;

use super::QueryError;

/// Returns the devices of the account of a session. `last_seen_ms` makes of the time that is recorded the one that is known.
///
/// # Errors
/// `UNAUTHENTICATED` if the device that asks is not among them, because it was removed since its session was opened;
/// `DIRECTORY_UNAVAILABLE`, `INTERNAL`.
pub async fn list_devices(
    directory: &dyn Directory,
    session: &SessionFacts,
    last_seen_ms: impl Fn(&DeviceSummary) -> u64,
) -> Result<v1::Devices, QueryError> {
    let listed = directory.devices(session.account).await?;
    if !listed.iter().any(|listed| listed.device == session.device) {
        return Err(QueryError::Unauthenticated);
    }
    let device = |listed: DeviceSummary| v1::Device {
        last_seen_ms: last_seen_ms(&listed),
        current: listed.device == session.device,
        id: listed.device.to_bytes(),
        name: listed.name,
        platform: listed.platform,
        created_ms: listed.created_ms,
    };
    Ok(v1::Devices { devices: listed.into_iter().map(device).collect() })
}

#[cfg(test)]
mod tests {
    use quail_core::ports::directory::{NewAccount, NewDevice, TwinDirectory};
    use quail_protocol::id::{AccountId, DeviceId};
    use quail_protocol::v1::Reason;

    use super::*;

    fn new_device(seed: u8) -> NewDevice {
        let (name, platform) = (format!("device {seed}"), "linux".to_owned());
        NewDevice { device: DeviceId([seed; 16]), name, platform, token_hash: [seed; 32] }
    }

    fn session(account: u8, device: u8) -> SessionFacts {
        SessionFacts {
            account: AccountId([account; 16]),
            device: DeviceId([device; 16]),
            handle: String::new(),
        }
    }

    async fn with_two() -> TwinDirectory {
        let directory = TwinDirectory::new();
        for (seed, handle) in [(1, "ada"), (2, "bob")] {
            let (handle, password_hash) = (handle.to_owned(), "hash".to_owned());
            let account = AccountId([seed; 16]);
            let device = new_device(seed);
            let new = NewAccount { account, handle, password_hash, invite_hash: None, device };
            directory.create_account(new, 10).await.unwrap();
        }
        let added = directory.add_device(AccountId([1; 16]), new_device(3), "hash".to_owned(), 20).await;
        added.unwrap();
        directory
    }

    #[tokio::test]
    async fn ones_own_devices_are_listed_and_one_of_them_is_the_one_that_asks() {
        let directory = with_two().await;
        let listed =
            list_devices(&directory, &session(1, 3), |listed| listed.last_seen_ms + 5).await.unwrap();
        let device = |seed: u8, created_ms, current| v1::Device {
            id: vec![seed; 16].into(),
            name: format!("device {seed}"),
            platform: "linux".to_owned(),
            created_ms,
            last_seen_ms: created_ms + 5,
            current,
        };
        assert_eq!(listed.devices, [device(1, 10, false), device(3, 20, true)]);
    }

    #[tokio::test]
    async fn a_device_that_is_gone_is_told_nothing() {
        let directory = with_two().await;
        // Removed, of another account, of no account.
        directory.remove_device(AccountId([1; 16]), DeviceId([3; 16]), 0).await.unwrap();
        for gone in [session(1, 3), session(1, 2), session(9, 1)] {
            let refused = list_devices(&directory, &gone, |listed| listed.last_seen_ms).await.unwrap_err();
            assert_eq!(refused.to_error().reason(), Reason::Unauthenticated);
        }
    }
}
