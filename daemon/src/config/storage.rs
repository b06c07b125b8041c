//! `[storage]`: in which database the directory of accounts and the archive lie.
//!
//! Invariants: a password in the URL is refused, since settings are shown, logged and kept in version control; the text that
//! an error shows has none either.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::{keys, layers::Layers, values};

/// The port of Postgres where the URL names none.
const POSTGRES_PORT: u16 = 5432;

/// How many connections one daemon may have: with more, they wait for each other inside of the server.
const CONNECTIONS_RANGE: RangeInclusive<u32> = 1..=64;

/// The shortest and longest patience with the server. Shorter than a slow sync of its disk would refuse what is being done,
/// and a client gives up before the longest.
const STATEMENT_TIMEOUT_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);

/// Where accounts, devices, sessions, invites and history are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// In which database.
    pub url: StorageUrl,
    /// The file that holds the password for it, if one is needed.
    pub password_file: Option<PathBuf>,
    /// Most connections to a server at a time: so many for the directory, and so many for reading the archive.
    pub connections: u32,
    /// How long a server may take.
    pub statement_timeout: Duration,
    /// Whether the history of conversations is kept.
    pub archive: bool,
}

/// A database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageUrl {
    /// A file in the data directory.
    Sqlite,
    /// A server.
    Postgres(PostgresUrl),
}

/// A database of a Postgres server, and the way there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresUrl {
    /// A host name, an IP address without brackets, or the directory of a Unix socket, which begins with `/`.
    pub host: String,
    /// The port; it is part of a socket's name too.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// The database.
    pub database: String,
    /// How the way is protected; chosen already where the URL leaves it open.
    pub tls: PostgresTls,
    /// The authorities to trust, a PEM file.
    pub root_certificate: Option<PathBuf>,
}

/// How the way to Postgres is protected, as `sslmode` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostgresTls {
    /// `disable`: not at all.
    Disable,
    /// `prefer`: by TLS if the server has it.
    Prefer,
    /// `require`: by TLS, whoever the server is.
    Require,
    /// `verify-ca`: by TLS, with a certificate that is trusted.
    VerifyCa,
    /// `verify-full`: by TLS, with a certificate that is trusted, for the host that is named.
    VerifyFull,
}

const TLS_MODES: &[(&str, PostgresTls)] = &[
    ("disable", PostgresTls::Disable),
    ("prefer", PostgresTls::Prefer),
    ("require", PostgresTls::Require),
    ("verify-ca", PostgresTls::VerifyCa),
    ("verify-full", PostgresTls::VerifyFull),
];

/// Parses the section. `None` means that an error was noted.
pub(super) fn parse(layers: &mut Layers) -> Option<Storage> {
    let url = layers.parse(&keys::STORAGE_URL, parse_url);
    let password_file = layers.parse(&keys::STORAGE_PASSWORD_FILE, values::optional_path);
    let connections = layers.parse(&keys::STORAGE_CONNECTIONS, |text| {
        text.parse().ok().filter(|connections| CONNECTIONS_RANGE.contains(connections))
    });
    let statement_timeout = layers.parse(&keys::STORAGE_STATEMENT_TIMEOUT, |text| {
        values::duration(text).filter(|timeout| STATEMENT_TIMEOUT_RANGE.contains(timeout))
    });
    let archive = layers.parse(&keys::ARCHIVE, |text| values::one_of(text, super::ON_OR_OFF));
    Some(Storage {
        url: url?,
        password_file: password_file?,
        connections: connections?,
        statement_timeout: statement_timeout?,
        archive: archive?,
    })
}

/// Returns a URL as it may be shown: without what may be a password.
pub(super) fn redact(text: &str) -> String {
    if text.to_lowercase().contains("password") {
        return text.split_once(':').map_or("...".to_owned(), |(scheme, _)| format!("{scheme}:..."));
    }
    let behind_scheme = text.find("://").map_or(0, |at| at + "://".len());
    let (scheme, rest) = text.split_at(behind_scheme);
    match (rest.find(':'), rest.rfind('@')) {
        (Some(colon), Some(at)) if colon < at => {
            format!("{scheme}{}:...{}", &rest[..colon], &rest[at..])
        }
        _ => text.to_owned(),
    }
}

fn parse_url(text: &str) -> Option<StorageUrl> {
    if text == "sqlite" {
        return Some(StorageUrl::Sqlite);
    }
    let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"))?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = path.split_once('/')?;
    let (user, place) = authority.rsplit_once('@')?;
    // A colon would begin a password.
    if user.contains(':') {
        return None;
    }
    let (host, port) = host_and_port(place)?;
    let mut url = PostgresUrl {
        host: if host.is_empty() { "localhost".to_owned() } else { host },
        port,
        user: decode(user).filter(|user| !user.is_empty())?,
        database: decode(database).filter(|database| !database.is_empty() && !database.contains('/'))?,
        tls: PostgresTls::Prefer,
        root_certificate: None,
    };
    let mut tls = None;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=')?;
        let value = decode(value).filter(|value| !value.is_empty())?;
        match name {
            "sslmode" => tls = Some(values::one_of(&value, TLS_MODES)?),
            "sslrootcert" => url.root_certificate = Some(PathBuf::from(value)),
            "host" if value.starts_with('/') => url.host = value,
            _ => return None,
        }
    }
    // On this machine nobody stands between; elsewhere somebody may, and whoever accepts that has to say so.
    let chosen = if is_local(&url.host) { PostgresTls::Prefer } else { PostgresTls::VerifyFull };
    url.tls = tls.unwrap_or(chosen);
    Some(StorageUrl::Postgres(url))
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            (host, rest.strip_prefix(':').or_else(|| rest.is_empty().then_some(""))?)
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let host = if host.is_empty() { String::new() } else { values::host_name(host)? };
    let port = if port.is_empty() { POSTGRES_PORT } else { port.parse().ok().filter(|port| *port != 0)? };
    Some((host, port))
}

fn is_local(host: &str) -> bool {
    let is_loopback = |ip: std::net::IpAddr| ip.is_loopback();
    host.starts_with('/') || host == "localhost" || host.parse().is_ok_and(is_loopback)
}

/// Replaces `%40` by `@` and so on. `None` if that is no text.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(behind.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = behind.get(2..)?;
        } else {
            bytes.push(first);
            rest = behind;
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres(text: &str) -> PostgresUrl {
        match parse_url(text) {
            Some(StorageUrl::Postgres(url)) => url,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_url_names_a_database_and_the_way_there() {
        assert_eq!(parse_url("sqlite"), Some(StorageUrl::Sqlite));
        let url = postgres("postgres://quail@db.example/chat");
        assert_eq!((&*url.host, url.port, &*url.user, &*url.database), ("db.example", 5432, "quail", "chat"));
        let url =
            postgres("postgresql://a%40b@[2001:db8::1]:6000/chat?sslmode=require&sslrootcert=/etc/ca.pem");
        assert_eq!((&*url.host, url.port, &*url.user), ("2001:db8::1", 6000, "a@b"));
        assert_eq!((url.tls, url.root_certificate), (PostgresTls::Require, Some("/etc/ca.pem".into())));
        let url = postgres("postgres://quail@/chat?host=/var/run/postgresql");
        assert_eq!((&*url.host, url.tls), ("/var/run/postgresql", PostgresTls::Prefer));
    }

    #[test]
    fn only_the_way_to_another_machine_must_be_proven() {
        for host in ["localhost", "127.0.0.1", "[::1]", ""] {
            assert_eq!(postgres(&format!("postgres://q@{host}/c")).tls, PostgresTls::Prefer, "{host}");
        }
        for host in ["db", "10.0.0.1", "[2001:db8::1]"] {
            assert_eq!(postgres(&format!("postgres://q@{host}/c")).tls, PostgresTls::VerifyFull, "{host}");
        }
    }

    #[test]
    fn what_is_not_surely_understood_is_refused() {
        for text in [
            "",
            "SQLite",
            "sqlite://x",
            "mysql://u@h/d",
            "postgres://",
            "postgres://h/d",
            "postgres://u@h",
            "postgres://u@h/",
            "postgres://@h/d",
            "postgres://u:secret@h/d",
            "postgres://u@h:0/d",
            "postgres://u@h:x/d",
            "postgres://u@h:1:2/d",
            "postgres://u@h/a/b",
            "postgres://u@h/d?sslmode=allow",
            "postgres://u@h/d?sslmode",
            "postgres://u@h/d?password=x",
            "postgres://u@h/d?host=other",
            "postgres://u%zz@h/d",
            "postgres://u%0@h/d",
            "postgres://u%00@h/d",
            "postgres://u@[::1/d",
        ] {
            assert_eq!(parse_url(text), None, "{text}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for text in [
            "postgres://quail:canary@db/chat",
            "postgres://quail:ca/na@ry@db/chat",
            "quail:canary@db",
            "postgres://quail@db/chat?password=canary",
            "host=db password=canary",
        ] {
            let shown = redact(text);
            assert!(!shown.contains("canary") && !shown.contains("na@ry"), "{shown}");
        }
        assert_eq!(redact("postgres://quail:x@db/chat"), "postgres://quail:...@db/chat");
        for text in ["sqlit", "postgres://quail@db:1/chat", "postgres://db:5432"] {
            assert_eq!(redact(text), text);
        }
    }
}
