//! Where the `quaild` program is.
//!
//! A build puts `quail` and `quaild` into one directory and test programs into `deps/` below it, so the daemon of the
//! same build is found without being told, and comes before one that is installed.
//!
//! Invariant: what the user names is taken or refused, never silently replaced by something found elsewhere.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::LauncherError;

/// The environment variable that names the program.
const VARIABLE: &str = "QUAIL_DAEMON";

/// The program's file name.
const PROGRAM: &str = "quaild";

/// Finds the daemon: `explicit`, else the environment variable `QUAIL_DAEMON`, else in the directory of the running
/// program or the one above it, else in `PATH`.
///
/// # Errors
/// [`LauncherError::NotExecutable`] if `explicit` or the variable names no program; [`LauncherError::NotFound`].
pub fn find_quaild(explicit: Option<&Path>) -> Result<PathBuf, LauncherError> {
    let places = Places {
        variable: env::var_os(VARIABLE),
        program: env::current_exe().ok(),
        path: env::var_os("PATH"),
    };
    places.find(explicit)
}

/// Where to look, taken from this process once, so that tests can look elsewhere.
#[derive(Default)]
struct Places {
    variable: Option<OsString>,
    program: Option<PathBuf>,
    path: Option<OsString>,
}

impl Places {
    fn find(&self, explicit: Option<&Path>) -> Result<PathBuf, LauncherError> {
        if let Some(path) = explicit {
            return executable(path, "--daemon");
        }
        if let Some(path) = self.variable.as_deref().filter(|path| !path.is_empty()) {
            return executable(Path::new(path), VARIABLE);
        }
        let beside = self.program.iter().flat_map(|program| program.ancestors().skip(1).take(2));
        let installed = self.path.as_deref().unwrap_or(OsStr::new(""));
        beside
            .map(Path::to_owned)
            // An empty entry means the present directory; nobody means that by it.
            .chain(env::split_paths(installed).filter(|directory| !directory.as_os_str().is_empty()))
            .map(|directory| directory.join(PROGRAM))
            .find(|path| is_executable(path))
            .ok_or(LauncherError::NotFound)
    }
}

fn executable(path: &Path, origin: &'static str) -> Result<PathBuf, LauncherError> {
    let path = path.to_owned();
    if is_executable(&path) { Ok(path) } else { Err(LauncherError::NotExecutable { path, origin }) }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn program(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_daemon_of_the_same_build_comes_before_an_installed_one() {
        let root = tempfile::tempdir().unwrap();
        let (built, installed) = (root.path().join("debug/quaild"), root.path().join("bin/quaild"));
        program(&installed, 0o755);
        let places = |program: &str| Places {
            variable: None,
            program: Some(root.path().join(program)),
            path: Some(env::join_paths([Path::new(""), &root.path().join("bin")]).unwrap()),
        };
        assert_eq!(places("debug/quail").find(None).unwrap(), installed);
        program(&built, 0o755);
        assert_eq!(places("debug/quail").find(None).unwrap(), built);
        assert_eq!(places("debug/deps/test-1").find(None).unwrap(), built);
        assert_eq!(places("debug/deps/deeper/test-1").find(None).unwrap(), installed);
    }

    #[test]
    fn what_was_named_is_taken_or_refused() {
        let root = tempfile::tempdir().unwrap();
        let (plain, beside) = (root.path().join("plain"), root.path().join("quaild"));
        program(&plain, 0o644);
        program(&beside, 0o755);
        let mut places = Places { program: Some(root.path().join("quail")), ..Places::default() };
        let error = places.find(Some(&plain)).unwrap_err();
        assert!(matches!(error, LauncherError::NotExecutable { origin: "--daemon", .. }), "{error}");
        places.variable = Some(root.path().join("nowhere").into());
        let error = places.find(None).unwrap_err().to_string();
        assert!(error.contains("nowhere (from QUAIL_DAEMON) is not an executable file"), "{error}");
        assert_eq!(places.find(Some(&beside)).unwrap(), beside);
        places.variable = Some(OsString::new());
        assert_eq!(places.find(None).unwrap(), beside, "an empty variable is none");
    }

    #[test]
    fn a_daemon_that_is_nowhere_is_an_error_with_the_next_step() {
        let error = Places::default().find(None).unwrap_err();
        assert!(matches!(error, LauncherError::NotFound), "{error}");
        assert!(error.to_string().contains("cargo build --release"), "{error}");
    }
}
