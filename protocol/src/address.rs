//! Addresses: `quail://handle@host:port?pin=sha256:...`.
//!
//! One line that a person can copy says where a server is and how to know it. The pin is the SHA-256 of the server
//! certificate's SubjectPublicKeyInfo (the idea of RFC 7469), 64 hex digits; without one the system's trust roots decide.

use std::fmt;
use std::str::FromStr;

use crate::{DEFAULT_PORT, text};

/// The SHA-256 of a certificate's SubjectPublicKeyInfo.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; 32]);

/// Where a server is, how to know it, and possibly as whom to talk to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The account meant, if the address names one.
    pub handle: Option<String>,
    /// Host name or IP address, without brackets.
    pub host: String,
    /// UDP port.
    pub port: u16,
    /// The key the server must hold; without one its certificate must be valid for `host`.
    pub pin: Option<Pin>,
}

/// Why a text is no address. Whoever typed it is to blame; the text says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It does not begin with the scheme.
    #[error("an address begins with quail:// as in quail://localhost:7824")]
    Scheme,
    /// The host is missing or contains what no host can.
    #[error("the address has no usable host: {0:?}")]
    Host(String),
    /// The port is no number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535, not {0:?}")]
    Port(String),
    /// The handle before `@` is not of the form of handles.
    #[error("a handle has 3 to 32 characters of a-z, 0-9, _ and ., not {0:?}")]
    Handle(String),
    /// The pin is not `sha256:` and 64 hex digits.
    #[error("a pin is sha256: and 64 hex digits, not {0:?}")]
    Pin(String),
    /// Something follows that no address has.
    #[error("unknown part in the address: {0:?}; only ?pin=sha256:... may follow the port")]
    Unknown(String),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let rest = text.trim().strip_prefix("quail://").ok_or(AddressError::Scheme)?;
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (handle, host_port) = match rest.split_once('@') {
            Some((handle, _)) if !text::is_handle(handle) => {
                return Err(AddressError::Handle(handle.to_owned()));
            }
            Some((handle, host_port)) => (Some(handle.to_owned()), host_port),
            None => (None, rest),
        };
        let (host, port) = split_port(host_port)?;
        let pin = match query.map(|query| (query, query.strip_prefix("pin="))) {
            None => None,
            Some((_, Some(pin))) => Some(pin.parse()?),
            Some((query, None)) => return Err(AddressError::Unknown(query.to_owned())),
        };
        Ok(Self { handle, host, port, pin })
    }
}

fn split_port(host_port: &str) -> Result<(String, u16), AddressError> {
    let (host, port) = if let Some(bracketed) = host_port.strip_prefix('[') {
        let (host, rest) =
            bracketed.split_once(']').ok_or_else(|| AddressError::Host(host_port.to_owned()))?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| AddressError::Host(host.to_owned()))?;
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(AddressError::Host(host_port.to_owned())),
        }
    } else {
        host_port.split_once(':').map_or((host_port, None), |(host, port)| (host, Some(port)))
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(is_plain) {
        return Err(AddressError::Host(host.to_owned()));
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(text) => match text.parse() {
            // A sign would be parsed, but is no digit.
            Ok(port) if port != 0 && !text.starts_with('+') => port,
            _ => return Err(AddressError::Port(text.to_owned())),
        },
    };
    Ok((host.to_owned(), port))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("quail://")?;
        if let Some(handle) = &self.handle {
            write!(f, "{handle}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)?;
        } else {
            write!(f, "{}:{}", self.host, self.port)?;
        }
        match &self.pin {
            Some(pin) => write!(f, "?pin={pin}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Pin {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Pin(text.to_owned());
        let hex = text.strip_prefix("sha256:").ok_or_else(wrong)?.as_bytes();
        let mut pin = [0; 32];
        if hex.len() != 2 * pin.len() {
            return Err(wrong());
        }
        for (byte, pair) in pin.iter_mut().zip(hex.chunks_exact(2)) {
            let digit = |c: u8| char::from(c).to_digit(16).ok_or_else(wrong);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Self(pin))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were_written() {
        let pin = "ab".repeat(32);
        for text in [
            "quail://localhost:7824".to_owned(),
            format!("quail://ada@chat.example.org:9?pin=sha256:{pin}"),
            "quail://[::1]:7824".to_owned(),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("quail://host".parse::<Address>().unwrap().port, DEFAULT_PORT);
    }

    #[test]
    fn each_mistake_has_its_own_error() {
        let error = |text: &str| text.parse::<Address>().unwrap_err();
        assert_eq!(error("https://x"), AddressError::Scheme);
        assert_eq!(error("quail://"), AddressError::Host(String::new()));
        assert_eq!(error("quail://a b"), AddressError::Host("a b".to_owned()));
        assert_eq!(error("quail://[::g]:1"), AddressError::Host("::g".to_owned()));
        assert_eq!(error("quail://x:0"), AddressError::Port("0".to_owned()));
        assert_eq!(error("quail://x:70000"), AddressError::Port("70000".to_owned()));
        assert_eq!(error("quail://x:+80"), AddressError::Port("+80".to_owned()));
        assert_eq!(error("quail://A@x"), AddressError::Handle("A".to_owned()));
        assert_eq!(error("quail://x?pin=sha256:12"), AddressError::Pin("sha256:12".to_owned()));
        assert_eq!(error("quail://x?key=1"), AddressError::Unknown("key=1".to_owned()));
    }
}
