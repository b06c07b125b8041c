//! Profiles: which device of which account this command is, kept from one call to the next.
//!
//! ```text
//! $QUAIL_CONFIG_DIR, else $XDG_CONFIG_HOME/quail, else ~/.config/quail
//! └── profiles/NAME/            mode 0700
//!     ├── credentials.json      mode 0600: address, account, device, session token
//!     └── state/                queue and counters of the device, written by the SDK; send.json: an unfinished send
//! ```
//!
//! Whoever can read the credentials is the device. So files that others can read are not used until their owner has
//! decided what to do about it, as SSH does with keys.
//!
//! Invariants: credentials are replaced whole or not at all; counters never outlive the device they count for, because a
//! server would take another device's messages for repetitions.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use quail_client::{Address, Credentials};
use serde::{Deserialize, Serialize};

/// The form of the file that this version writes, and the only one it reads.
const FORMAT: u32 = 1;

/// Longest file that is read. The longest that is written has some 600 bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Longest name of a profile.
const NAME_BYTES_MAX: usize = 64;

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// There is no place for profiles, because nothing says where the user's files are.
    #[error("no directory for profiles: neither QUAIL_CONFIG_DIR nor XDG_CONFIG_HOME nor HOME is set")]
    NoHome,
    /// Others than the owner can read or write the credentials.
    #[error("{} can be read by others (mode {mode:04o})", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds what no version of this program wrote, or what a later one did.
    #[error("{} cannot be understood: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it. Never a part of its content.
        detail: String,
    },
    /// The system failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// The name of a profile: letters, digits, `_`, `-` and `.`, not beginning with a dot, because it is a directory's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileName(String);

/// A text is no name of a profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a profile's name has 1 to {NAME_BYTES_MAX} letters, digits, _, - and ., and does not begin with a dot"
)]
pub struct ProfileNameError;

impl FromStr for ProfileName {
    type Err = ProfileNameError;

    fn from_str(name: &str) -> Result<Self, ProfileNameError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.starts_with('.');
        if fits && name.bytes().all(is_plain) { Ok(Self(name.to_owned())) } else { Err(ProfileNameError) }
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A logged-in device and where its server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The server.
    pub address: Address,
    /// The device.
    pub credentials: Credentials,
}

#[derive(Serialize, Deserialize)]
struct LoginFile {
    format: u32,
    address: String,
    credentials: Credentials,
}

/// One profile, logged in or not.
#[derive(Clone, Debug)]
pub struct Profile {
    name: ProfileName,
    directory: PathBuf,
}

impl Profile {
    /// Returns a profile of the user who runs this program.
    ///
    /// # Errors
    /// [`ProfileError::NoHome`].
    pub fn new(name: ProfileName) -> Result<Self, ProfileError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let config = variable("QUAIL_CONFIG_DIR")
            // The standard says that a relative path there is to be ignored.
            .or_else(|| variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute()).map(|path| path.join("quail")))
            .or_else(|| std::env::home_dir().map(|home| home.join(".config/quail")));
        Ok(Self::in_directory(&config.ok_or(ProfileError::NoHome)?, name))
    }

    /// Returns a profile below a configuration directory.
    pub fn in_directory(config: &Path, name: ProfileName) -> Self {
        let directory = config.join("profiles").join(&name.0);
        Self { name, directory }
    }

    /// Returns the name.
    pub fn name(&self) -> &ProfileName {
        &self.name
    }

    /// Returns where the profile is kept.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the directory for the counters of the device.
    pub fn state_directory(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Reads who the device is; nothing if nobody is logged in.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn load(&self) -> Result<Option<Login>, ProfileError> {
        let path = self.credentials_path();
        let metadata = match path.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("read", &path, error)),
        };
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(ProfileError::Open { path, mode });
        }
        let damaged = |detail: String| ProfileError::Damaged { path: path.clone(), detail };
        if metadata.len() > FILE_BYTES_MAX {
            return Err(damaged("it is too long".to_owned()));
        }
        let bytes = fs::read(&path).map_err(|error| io_error("read", &path, error))?;
        let file: LoginFile = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if file.format != FORMAT {
            return Err(damaged(format!("format {} is not known to this version", file.format)));
        }
        let address = file.address.parse().map_err(|_| damaged("its address is none".to_owned()))?;
        Ok(Some(Login { address, credentials: file.credentials }))
    }

    /// Makes the directory, and checks that it can be written, before a server is asked for what is to be kept there.
    ///
    /// # Errors
    /// [`ProfileError::Io`].
    pub fn prepare(&self) -> Result<(), ProfileError> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.directory);
        made.map_err(|error| io_error("make directory", &self.directory, error))?;
        let restricted = fs::set_permissions(&self.directory, Permissions::from_mode(0o700));
        restricted.map_err(|error| io_error("set the mode of", &self.directory, error))?;
        let path = self.successor_path();
        let tried = private(&path).and_then(|_| fs::remove_file(&path));
        tried.map_err(|error| io_error("write", &path, error))
    }

    /// Keeps a new device; counters of another one are removed.
    ///
    /// # Errors
    /// [`ProfileError::Io`].
    pub fn save(&self, login: &Login) -> Result<(), ProfileError> {
        self.prepare()?;
        self.forget_state()?;
        let file = LoginFile {
            format: FORMAT,
            address: login.address.to_string(),
            credentials: login.credentials.clone(),
        };
        let successor = self.successor_path();
        let failed = |error| io_error("write", &successor, error);
        let mut bytes = serde_json::to_vec_pretty(&file).map_err(|error| failed(error.into()))?;
        bytes.push(b'\n');
        let written = private(&successor).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        written.map_err(failed)?;
        let path = self.credentials_path();
        fs::rename(&successor, &path).map_err(|error| io_error("replace", &path, error))?;
        self.sync()
    }

    /// Forgets the device and its counters. Does nothing if there is none.
    ///
    /// # Errors
    /// [`ProfileError::Io`].
    pub fn forget(&self) -> Result<(), ProfileError> {
        // The token first: counters without credentials are removed by the next login.
        for path in [self.credentials_path(), self.successor_path()] {
            absent(fs::remove_file(&path)).map_err(|error| io_error("remove", &path, error))?;
        }
        self.forget_state()?;
        // It stays if somebody keeps other things there.
        let _ = fs::remove_dir(&self.directory);
        Ok(())
    }

    fn forget_state(&self) -> Result<(), ProfileError> {
        let path = self.state_directory();
        absent(fs::remove_dir_all(&path)).map_err(|error| io_error("remove", &path, error))
    }

    /// The rename itself is in the directory, and that must reach the disk too.
    fn sync(&self) -> Result<(), ProfileError> {
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| io_error("sync", &self.directory, error))
    }

    fn credentials_path(&self) -> PathBuf {
        self.directory.join("credentials.json")
    }

    fn successor_path(&self) -> PathBuf {
        self.directory.join("credentials.json.new")
    }
}

/// Opens a new, empty file for its owner only.
fn private(path: &Path) -> io::Result<File> {
    // An old one may have another mode, which opening would keep.
    absent(fs::remove_file(path))?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// What is not there need not be removed.
fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> ProfileError {
    ProfileError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(config: &Path) -> Profile {
        Profile::in_directory(config, "work".parse().unwrap())
    }

    fn login(handle: &str) -> Login {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let credentials = serde_json::json!({
            "account": id, "device": id, "handle": handle, "token": "ab".repeat(32),
        });
        Login {
            address: "quail://ada@localhost:7824".parse().unwrap(),
            credentials: serde_json::from_value(credentials).unwrap(),
        }
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_the_owner_can_read_credentials() {
        let config = tempfile::tempdir().unwrap();
        let profile = profile(config.path());
        profile.save(&login("ada")).unwrap();
        assert_eq!(mode(profile.directory()), 0o700);
        assert_eq!(mode(&config.path().join("profiles")), 0o700);
        assert_eq!(mode(&profile.credentials_path()), 0o600);
        assert!(!profile.successor_path().exists());
    }

    #[test]
    fn credentials_that_others_can_read_are_not_used() {
        let config = tempfile::tempdir().unwrap();
        let profile = profile(config.path());
        profile.save(&login("ada")).unwrap();
        fs::set_permissions(profile.credentials_path(), Permissions::from_mode(0o640)).unwrap();
        let error = profile.load().unwrap_err().to_string();
        assert!(error.ends_with("credentials.json can be read by others (mode 0640)"), "{error}");
    }

    #[test]
    fn a_directory_that_others_can_read_is_closed() {
        let config = tempfile::tempdir().unwrap();
        let profile = profile(config.path());
        fs::create_dir_all(profile.directory()).unwrap();
        fs::set_permissions(profile.directory(), Permissions::from_mode(0o755)).unwrap();
        profile.prepare().unwrap();
        assert_eq!(mode(profile.directory()), 0o700);
        assert_eq!(profile.load().unwrap(), None);
    }

    #[test]
    fn a_login_comes_back_and_a_new_one_removes_the_counters_of_the_old() {
        let config = tempfile::tempdir().unwrap();
        let profile = profile(config.path());
        assert_eq!(profile.load().unwrap(), None);
        profile.save(&login("ada")).unwrap();
        assert_eq!(profile.load().unwrap(), Some(login("ada")));
        fs::create_dir(profile.state_directory()).unwrap();
        fs::write(profile.state_directory().join("publish.json"), "{}").unwrap();
        profile.save(&login("grace")).unwrap();
        assert_eq!(profile.load().unwrap(), Some(login("grace")));
        assert!(!profile.state_directory().exists());
        profile.forget().unwrap();
        profile.forget().unwrap();
        assert_eq!(profile.load().unwrap(), None);
        assert!(!profile.directory().exists());
    }

    #[test]
    fn a_damaged_file_is_an_error_that_shows_no_secret() {
        let config = tempfile::tempdir().unwrap();
        let profile = profile(config.path());
        profile.save(&login("ada")).unwrap();
        let path = profile.credentials_path();
        let text = fs::read_to_string(&path).unwrap();
        for damaged in [
            text.replace("\"format\": 1", "\"format\": 2"),
            text.replace(&"ab".repeat(32), "abab"),
            text.replace("quail://", "http://"),
            text[..40].to_owned(),
        ] {
            assert_ne!(damaged, text);
            fs::write(&path, damaged).unwrap();
            let error = profile.load().unwrap_err();
            assert!(matches!(error, ProfileError::Damaged { .. }), "{error}");
            assert!(!error.to_string().contains("abab"), "{error}");
        }
    }

    #[test]
    fn a_name_stays_inside_of_its_directory() {
        for good in ["default", "a", "work-2", "a.b_c"] {
            assert!(good.parse::<ProfileName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", ".hidden", "ä", &"x".repeat(65)] {
            assert_eq!(bad.parse::<ProfileName>(), Err(ProfileNameError), "{bad}");
        }
    }
}
