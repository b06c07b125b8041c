//! Texts become values, strictly: what is not surely understood is refused, since a guess shows up as wrong behaviour weeks
//! later.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Longest host name (RFC 1035).
const HOST_NAME_BYTES_MAX: usize = 253;

/// Parses a whole number with its unit: `250ms`, `5s`, `2m`, `1h`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    // An empty number is none.
    let number: u64 = number.parse().ok()?;
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

/// Parses a whole number of bytes with its unit: `64KiB`, `256MiB`, `4GiB`.
pub(super) fn size(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    number.checked_mul(1 << shift)
}

/// Parses a host name or an IP address. Both must fit an address and a certificate.
pub(super) fn host_name(text: &str) -> Option<String> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // What ends in a number is meant to be an IP address (RFC 3986 has no other way to tell them apart).
    let is_numeric =
        text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    let is_name = !is_numeric && text.len() <= HOST_NAME_BYTES_MAX && text.split('.').all(is_label);
    (is_name || text.parse::<IpAddr>().is_ok()).then(|| text.to_owned())
}

/// Parses a path; the inner `None` is the empty text, which leaves the setting open.
pub(super) fn optional_path(text: &str) -> Option<Option<PathBuf>> {
    if text.contains('\0') {
        return None;
    }
    Some((!text.is_empty()).then(|| PathBuf::from(text)))
}

/// Parses one of a few words.
pub(super) fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Option<T> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit_and_nothing_else() {
        for (text, ms) in [("250ms", 250), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        let wrong = ["", "5", "s", "5 s", " 5s", "5s ", "-5s", "+5s", "1.5s", "5S", "5sec", "1m30s", "٥s"];
        for text in wrong {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(duration("18446744073709551615h"), None);
        assert_eq!(duration("18446744073709551616ms"), None);
    }

    #[test]
    fn sizes_have_a_number_and_a_unit_and_nothing_else() {
        for (text, bytes) in [("0B", 0), ("64KiB", 65_536), ("256MiB", 268_435_456), ("4GiB", 4_294_967_296)]
        {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "5", "MiB", "1 MiB", "1MB", "-1MiB", "1.5GiB", "17179869184GiB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn host_names_fit_an_address() {
        for text in ["localhost", "chat.example.org", "a_b", "192.0.2.1", "2001:db8::1", "7824.example"] {
            let host = host_name(text).unwrap();
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            let address: quail_protocol::address::Address = format!("quail://{host}:7824").parse().unwrap();
            assert_eq!(address.host, text);
        }
        let long = format!("{}example", "abc.".repeat(64));
        let wrong =
            ["", ".", "a..b", "a.", "[::1]", "host:7824", "-a", "ä.example", "a b", "256.0.0.1", &long];
        for text in wrong {
            assert_eq!(host_name(text), None, "{text}");
        }
    }
}
