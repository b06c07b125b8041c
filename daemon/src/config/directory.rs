//! Where the data directory and the directory of sockets are when nothing names them.

use std::path::{Path, PathBuf};

use super::Environment;

/// The data directory of a system service.
const SERVICE_DIRECTORY: &str = "/var/lib/quail";

/// Chooses the data directory: what systemd assigned, else the place of system services, else the one of the user.
///
/// systemd sets `INVOCATION_ID` for every unit, and a desktop's terminals inherit it from a unit of the user; only those
/// have `XDG_RUNTIME_DIR` as well.
pub(super) fn choose(environment: &dyn Environment) -> Option<PathBuf> {
    let path = |name| environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(assigned) = environment.get("STATE_DIRECTORY").filter(|assigned| !assigned.is_empty()) {
        // A unit may have several, parted by colons; the first is ours.
        return std::env::split_paths(&assigned).next();
    }
    let is_set = |name| environment.get(name).is_some_and(|value| !value.is_empty());
    if is_set("INVOCATION_ID") && !is_set("XDG_RUNTIME_DIR") {
        return Some(Path::new(SERVICE_DIRECTORY).to_owned());
    }
    // The XDG base directory specification has relative paths ignored.
    let of_user = path("XDG_DATA_HOME").or_else(|| Some(path("HOME")?.join(".local/share")))?;
    Some(of_user.join("quail"))
}

/// Returns the directory that systemd made for sockets and the like, if it did.
pub(super) fn runtime(environment: &dyn Environment) -> Option<PathBuf> {
    let assigned = environment.get("RUNTIME_DIRECTORY").filter(|assigned| !assigned.is_empty())?;
    std::env::split_paths(&assigned).next()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn chosen(variables: &[(&str, &str)]) -> Option<String> {
        let environment: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        choose(&environment).map(|path| path.display().to_string())
    }

    #[test]
    fn the_most_special_place_wins() {
        let all = [
            ("STATE_DIRECTORY", "/state/quail:/state/other"),
            ("INVOCATION_ID", "1"),
            ("XDG_DATA_HOME", "/xdg"),
            ("HOME", "/home/ada"),
        ];
        let expected = ["/state/quail", "/var/lib/quail", "/xdg/quail", "/home/ada/.local/share/quail"];
        for (skipped, expected) in expected.iter().enumerate() {
            assert_eq!(chosen(&all[skipped..]).as_deref(), Some(*expected));
        }
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn a_terminal_started_by_systemd_is_no_service() {
        let terminal = [("INVOCATION_ID", "1"), ("XDG_RUNTIME_DIR", "/run/user/1000"), ("HOME", "/home/ada")];
        assert_eq!(chosen(&terminal).as_deref(), Some("/home/ada/.local/share/quail"));
    }

    #[test]
    fn empty_and_relative_paths_do_not_count() {
        let environment =
            [("STATE_DIRECTORY", ""), ("INVOCATION_ID", ""), ("XDG_DATA_HOME", "data"), ("HOME", "/root")];
        assert_eq!(chosen(&environment).as_deref(), Some("/root/.local/share/quail"));
        assert_eq!(chosen(&[("HOME", "")]), None);
    }
}
