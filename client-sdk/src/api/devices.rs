//! Devices: what the account is logged in with, and logging others out.

use std::time::SystemTime;

use quail_protocol::id::DeviceId;
use quail_protocol::v1::{self, request, response};

use super::{Repeat, wrong_answer};
use crate::hello::time;
use crate::{Client, Error};

/// A device of one's own account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// The device.
    pub id: DeviceId,
    /// The name it was given as it was logged in; may be empty. Text from whoever logged it in: clean it before you show it.
    pub name: String,
    /// What it said it runs on, as in `linux`; may be empty. As the name, text from whoever logged it in.
    pub platform: String,
    /// When it was logged in, by the server's clock.
    pub created: SystemTime,
    /// When it was last connected, by the server's clock: now for those that are, else exact to a minute.
    pub last_seen: SystemTime,
    /// Whether it is the device that asked.
    pub is_current: bool,
}

impl Device {
    fn from_wire(device: v1::Device) -> Result<Self, Error> {
        let id = device.id.as_ref().try_into();
        Ok(Self {
            id: id.map_err(|error| Error::protocol(format!("device: {error}")))?,
            name: device.name,
            platform: device.platform,
            created: time(device.created_ms),
            last_seen: time(device.last_seen_ms),
            is_current: device.current,
        })
    }
}

impl Client {
    /// Lists the devices of the account, this one included, in the order in which they were logged in.
    ///
    /// # Errors
    /// [`Error::Refused`], temporarily with `RATE_LIMITED` or `DIRECTORY_UNAVAILABLE`; [`Error::TimedOut`] if the server
    /// cannot be reached; the reason if the client has ended.
    pub async fn devices(&self) -> Result<Vec<Device>, Error> {
        let command = request::Command::ListDevices(v1::ListDevices {});
        match self.shared().ask("list devices", command, Repeat::Yes).await? {
            response::Result::Devices(listed) => listed.devices.into_iter().map(Device::from_wire).collect(),
            _ => Err(wrong_answer("list devices")),
        }
    }

    /// Logs a device of the account out. Once this returns, the server takes nothing from it and gives it nothing; its
    /// client ends with the reason `UNAUTHENTICATED`. An id that is no device of the account is no error: it is logged out.
    ///
    /// The device may be this one, and then this is [`Client::log_out`].
    ///
    /// # Errors
    /// As [`Client::devices`]. After a failure it may have been logged out; it does no harm to ask again.
    pub async fn unlink(&self, device: DeviceId) -> Result<(), Error> {
        if device == self.device() {
            return self.log_out().await;
        }
        let command = request::Command::UnlinkDevice(v1::UnlinkDevice { device: device.to_bytes() });
        match self.shared().ask("unlink a device", command, Repeat::Yes).await? {
            response::Result::Done(_) => Ok(()),
            _ => Err(wrong_answer("unlink a device")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_device_is_read_as_it_was_written() {
        let wire = v1::Device {
            id: vec![3; 16].into(),
            name: "phone".into(),
            platform: "android 15".into(),
            created_ms: 1_000,
            last_seen_ms: 2_000,
            current: true,
        };
        let device = Device::from_wire(wire.clone()).unwrap();
        assert_eq!((device.id, device.is_current), (DeviceId([3; 16]), true));
        assert_eq!((&*device.name, &*device.platform), ("phone", "android 15"));
        assert_eq!(device.created, UNIX_EPOCH + Duration::from_secs(1));
        assert_eq!(device.last_seen, UNIX_EPOCH + Duration::from_secs(2));
        // No time of a server makes a client fail.
        Device::from_wire(v1::Device { last_seen_ms: u64::MAX, ..wire.clone() }).unwrap();
        let short = Device::from_wire(v1::Device { id: vec![3; 15].into(), ..wire }).unwrap_err();
        assert!(matches!(short, Error::Protocol { .. }), "{short:?}");
    }
}
