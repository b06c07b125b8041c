//! Administration of the running daemon: `quaild admin` on one end of the admin socket, the daemon on the other.
//!
//! Everything that an operator does goes through the daemon, because only the daemon can tell its core: an account that was
//! disabled behind its back would go on sending.
//!
//! `cli` has the commands, `client` sends them and prints the answers, `execute` carries them out.

pub(super) mod cli;
mod client;
mod execute;
mod input;
pub(super) mod table;

use std::path::{Path, PathBuf};

pub use client::AdminClientError;
pub(super) use client::run;
pub(super) use execute::{Administrator, Standing};

use crate::config::{Loaded, Source};

/// The admin socket of the system service.
const SERVICE_SOCKET: &str = "/run/quail/admin.sock";

/// Returns the socket to ask on. The configuration as this terminal sees it may lack what systemd tells the service: where
/// nothing names a data directory or a socket, and no daemon was there, the service is meant.
pub(super) fn socket(loaded: &Loaded) -> PathBuf {
    let is_default =
        |key| loaded.settings.iter().any(|setting| setting.key == key && setting.source == Source::Default);
    let is_unnamed = is_default("admin.socket") && is_default("data.directory");
    // A directory that may not be looked into is there.
    let exists = |path: &Path| path.try_exists().unwrap_or(true);
    choose(&loaded.config.admin.socket, is_unnamed, exists).to_owned()
}

fn choose(own: &Path, is_unnamed: bool, exists: impl Fn(&Path) -> bool) -> &Path {
    let service = Path::new(SERVICE_SOCKET);
    if is_unnamed && !exists(own) && exists(service) { service } else { own }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_asked_where_nothing_else_is_meant() {
        let (own, service) = (Path::new("/home/ada/admin.sock"), Path::new(SERVICE_SOCKET));
        assert_eq!(choose(own, true, |path| path == service), service);
        assert_eq!(choose(own, true, |_| true), own);
        assert_eq!(choose(own, true, |_| false), own);
        assert_eq!(choose(own, false, |path| path == service), own);
    }
}
