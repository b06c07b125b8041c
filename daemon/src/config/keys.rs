//! Every setting by name, with what its value must be.
//!
//! The file, the environment, error messages and suggestions read this one table; a setting that is not in it does not
//! exist.
//!
//! Invariants: a path is `section.key`, both of lower-case letters and `_`; sections contain no `_`, so that no two settings
//! share a variable.

use super::rates::Class;

/// One setting.
#[derive(Debug)]
pub(super) struct Key {
    /// Section and key: `server.listen`.
    pub(super) path: &'static str,
    /// What to write, to end the sentence "write ...".
    pub(super) wants: &'static str,
}

pub(super) const LISTEN: Key = Key {
    path: "server.listen",
    wants: r#"an IP address and a UDP port, as in "[::]:7824" or "192.0.2.1:7824""#,
};
pub(super) const NAME: Key = Key {
    path: "server.name",
    wants: r#"a host name or an IP address without port and brackets, as in "chat.example.org""#,
};
pub(super) const DRAIN: Key = Key {
    path: "server.drain",
    wants: r#"a whole number with its unit, ms, s, m or h, of at most 1h, as in "5s""#,
};
pub(super) const DATA_DIRECTORY: Key = Key {
    path: "data.directory",
    wants: r#"the path of a directory, as in "/var/lib/quail", or "" to have it chosen"#,
};
pub(super) const STORAGE_URL: Key = Key {
    path: "storage.url",
    wants: r#""sqlite", or a database without password, as in "postgres://quail@db.example.org:5432/quail?sslmode=verify-full""#,
};
pub(super) const STORAGE_PASSWORD_FILE: Key = Key {
    path: "storage.password_file",
    wants: r#"the path of a file that holds the password and nothing else, or "" for none"#,
};
pub(super) const STORAGE_CONNECTIONS: Key =
    Key { path: "storage.connections", wants: r#"a whole number from 1 to 64, as in "8""# };
pub(super) const STORAGE_STATEMENT_TIMEOUT: Key = Key {
    path: "storage.statement_timeout",
    wants: r#"a whole number with its unit, ms, s or m, of 100ms to 60s, as in "5s""#,
};
pub(super) const ARCHIVE: Key = Key { path: "storage.archive", wants: r#""on" or "off""# };
pub(super) const CERTIFICATE_FILE: Key = Key {
    path: "tls.certificate_file",
    wants: r#"the path of a PEM file, or "" to have a certificate made"#,
};
pub(super) const KEY_FILE: Key =
    Key { path: "tls.key_file", wants: r#"the path of a PEM file, or "" to have a certificate made"# };
pub(super) const EARLY_DATA: Key = Key { path: "tls.early_data", wants: r#""on" or "off""# };
pub(super) const SIGN_UP: Key = Key { path: "accounts.sign_up", wants: r#""open", "invite" or "closed""# };
pub(super) const RATE_HANDSHAKE: Key = rate("rates.handshake");
pub(super) const RATE_SIGN_UP: Key = rate("rates.sign_up");
pub(super) const RATE_LOG_IN: Key = rate("rates.log_in");
pub(super) const RATE_PASSWORD: Key = rate("rates.password");
pub(super) const RATE_PASSWORD_ANYWHERE: Key = rate("rates.password_anywhere");
pub(super) const RATE_LOOK_UP: Key = rate("rates.look_up");
pub(super) const RATE_UNKNOWN: Key = rate("rates.unknown");
pub(super) const RATE_REQUEST: Key = rate("rates.request");
pub(super) const RATE_SEND: Key = rate("rates.send");
pub(super) const RATE_SIGNAL: Key = rate("rates.signal");
pub(super) const RATE_HISTORY: Key = rate("rates.history");
pub(super) const STALL: Key = Key {
    path: "limits.stall",
    wants: r#"a whole number with its unit, ms, s, m or h, of 1s to 24h, as in "10m""#,
};
pub(super) const UNSETTLED: Key = Key {
    path: "limits.unsettled",
    wants: r#"a whole number with its unit, KiB, MiB or GiB, of at least 32MiB, as in "256MiB""#,
};
pub(super) const UNARCHIVED: Key = Key {
    path: "limits.unarchived",
    wants: r#"a whole number with its unit, KiB, MiB or GiB, of at least 64MiB, as in "4GiB""#,
};
pub(super) const FREE_SPACE: Key = Key {
    path: "limits.free_space",
    wants: r#"a whole number with its unit, B, KiB, MiB or GiB, as in "2GiB", or "" to have it chosen"#,
};
pub(super) const DELETE_FOR_ALL: Key = Key {
    path: "messages.delete_for_all",
    wants: r#"a whole number with its unit, s, m or h, of at most 1440h, as in "48h""#,
};
pub(super) const OPS_LISTEN: Key = Key {
    path: "ops.listen",
    wants: r#"an IP address and a TCP port, as in "127.0.0.1:7825", or "" for none"#,
};
pub(super) const ADMIN_SOCKET: Key = Key {
    path: "admin.socket",
    wants: r#"the path of a socket, as in "/run/quail/admin.sock", or "" to have it chosen"#,
};
pub(super) const LOG_LEVEL: Key =
    Key { path: "log.level", wants: r#""error", "warn", "info", "debug" or "trace""# };
pub(super) const LOG_FORMAT: Key = Key { path: "log.format", wants: r#""auto", "human" or "json""# };

/// All of them, in the order of the default configuration.
pub(super) const KEYS: &[&Key] = &[
    &LISTEN,
    &NAME,
    &DRAIN,
    &DATA_DIRECTORY,
    &STORAGE_URL,
    &STORAGE_PASSWORD_FILE,
    &STORAGE_CONNECTIONS,
    &STORAGE_STATEMENT_TIMEOUT,
    &ARCHIVE,
    &CERTIFICATE_FILE,
    &KEY_FILE,
    &EARLY_DATA,
    &SIGN_UP,
    &RATE_HANDSHAKE,
    &RATE_SIGN_UP,
    &RATE_LOG_IN,
    &RATE_PASSWORD,
    &RATE_PASSWORD_ANYWHERE,
    &RATE_LOOK_UP,
    &RATE_UNKNOWN,
    &RATE_REQUEST,
    &RATE_SEND,
    &RATE_SIGNAL,
    &RATE_HISTORY,
    &STALL,
    &UNSETTLED,
    &UNARCHIVED,
    &FREE_SPACE,
    &DELETE_FOR_ALL,
    &OPS_LISTEN,
    &ADMIN_SOCKET,
    &LOG_LEVEL,
    &LOG_FORMAT,
];

const fn rate(path: &'static str) -> Key {
    Key { path, wants: r#"a number of tries per s, m, h or d and a burst, as in "20/s burst 200", or "off""# }
}

/// Returns the setting of a rate class.
pub(super) fn of_class(class: Class) -> &'static Key {
    match class {
        Class::Handshake => &RATE_HANDSHAKE,
        Class::SignUp => &RATE_SIGN_UP,
        Class::LogIn => &RATE_LOG_IN,
        Class::Password => &RATE_PASSWORD,
        Class::PasswordAnywhere => &RATE_PASSWORD_ANYWHERE,
        Class::LookUp => &RATE_LOOK_UP,
        Class::Unknown => &RATE_UNKNOWN,
        Class::Request => &RATE_REQUEST,
        Class::Send => &RATE_SEND,
        Class::Signal => &RATE_SIGNAL,
        Class::History => &RATE_HISTORY,
    }
}

impl Key {
    /// Returns the environment variable of the setting.
    pub(super) fn variable(&self) -> String {
        variable(self.path)
    }
}

/// Returns the environment variable of a path, whether a setting has that path or not.
pub(super) fn variable(path: &str) -> String {
    format!("QUAIL_{}", path.replace('.', "_").to_uppercase())
}

/// Returns the setting with this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path).copied()
}

/// Returns every section once.
pub(super) fn sections() -> Vec<&'static str> {
    let mut sections: Vec<_> =
        KEYS.iter().filter_map(|key| key.path.split_once('.')).map(|(section, _)| section).collect();
    sections.dedup();
    sections
}
