//! Making the daemon's own key and certificate.
//!
//! Invariant: the key is durable before a certificate is made for it, so a crash in between leaves a key that the next
//! start makes a certificate for, and never the other way round.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};

use super::IdentityError;
use crate::ops::{clock, files};

/// Rights of a key: its owner reads and writes.
const KEY_MODE: u32 = 0o600;

/// Rights of a certificate, which everybody who connects sees.
const CERTIFICATE_MODE: u32 = 0o644;

/// Rights of the directory of both.
const DIRECTORY_MODE: u32 = 0o700;

/// Clocks of clients may be behind.
const VALID_BEFORE: Duration = Duration::from_secs(24 * 3600);

/// Ten years. Clients go by the pin; the end is far enough away to need no renewal and still a real date.
const VALID_FOR: Duration = Duration::from_secs(3652 * 24 * 3600);

/// Makes a key and keeps it, in a directory that is made as well if it is not there.
pub(super) fn key(path: &Path) -> Result<(), IdentityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| create_error(&error))?;
    make_directory(path).map_err(|source| IdentityError::Write { path: path.to_owned(), source })?;
    write(path, &key.serialize_pem(), KEY_MODE)
}

/// Makes a certificate for the key and the host, in place of whatever is there.
pub(super) fn certificate(path: &Path, key: &Path, name: &str) -> Result<(), IdentityError> {
    let pem =
        fs::read_to_string(key).map_err(|source| IdentityError::Read { path: key.to_owned(), source })?;
    let key_pair = KeyPair::from_pem(&pem)
        .map_err(|error| IdentityError::UnusableKey { path: key.to_owned(), reason: error.to_string() })?;
    let mut names = vec![name.to_owned()];
    names.extend(
        ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into_iter().filter(|other| other != name),
    );
    let mut params = CertificateParams::new(names).map_err(|error| create_error(&error))?;
    params.distinguished_name.push(DnType::CommonName, "quaild");
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(clock::unix_ms());
    params.not_before = now - VALID_BEFORE;
    params.not_after = now + VALID_FOR;
    let certificate = params.self_signed(&key_pair).map_err(|error| create_error(&error))?;
    write(path, &certificate.pem(), CERTIFICATE_MODE)
}

fn make_directory(of: &Path) -> io::Result<()> {
    let Some(directory) = of.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => files::sync_directory(directory),
    }
}

fn write(path: &Path, pem: &str, mode: u32) -> Result<(), IdentityError> {
    files::write_atomically(path, pem.as_bytes(), mode)
        .map_err(|source| IdentityError::Write { path: path.to_owned(), source })
}

fn create_error(error: &rcgen::Error) -> IdentityError {
    IdentityError::Create { reason: error.to_string() }
}
