//! What can be wrong with a certificate and its key. Up to [`IdentityError::KeyGone`] the operator can mend it.

use std::io;
use std::path::PathBuf;

/// Why the daemon has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no such file.
    #[error("there is no file {}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no PEM.
    #[error("{} is not valid PEM: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no certificate in the file.
    #[error("there is no certificate in {}", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// There is no private key in the file.
    #[error("there is no private key in {}", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The certificate cannot be parsed.
    #[error("cannot use the certificate in {}: {reason}", path.display())]
    UnusableCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key is of no kind that can be used.
    #[error("cannot use the private key in {}: {reason}", path.display())]
    UnusableKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key belongs to another certificate.
    #[error("the private key in {} does not belong to the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The daemon's own certificate is there and its key is not. A new key would be another identity.
    #[error("the private key {} is gone, its certificate {} is still there", key.display(), certificate.display())]
    KeyGone {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file that the key should be in.
        key: PathBuf,
    },
    /// Key or certificate could not be made.
    #[error("make a self-signed certificate: {reason}")]
    Create {
        /// What failed.
        reason: String,
    },
    /// The TLS settings contradict each other. This program is to blame.
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
}

impl IdentityError {
    /// Returns the operator's next step, where it is not for the system's error behind this one to say.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing { .. } => {
                Some("correct certificate_file and key_file in the section [tls], or leave both empty")
            }
            Self::Pem { .. } | Self::NoCertificate { .. } | Self::NoKey { .. } => Some(
                "certificate_file is the server's certificate followed by its issuers, key_file its unencrypted key, both PEM",
            ),
            Self::UnusableCertificate { .. } | Self::UnusableKey { .. } => {
                Some("use a certificate with an ECDSA (P-256, P-384), Ed25519 or RSA (2048 bits or more) key")
            }
            Self::Mismatch { .. } => Some(
                "put the two files that were made together in their places; the server's certificate comes first",
            ),
            Self::KeyGone { .. } => Some(
                "restore the key from a backup; or delete the certificate too, and give clients the new address that quaild prints",
            ),
            Self::Create { .. } | Self::Tls(_) => Some("this is a mistake in quaild: please report it"),
            Self::Read { .. } | Self::Write { .. } => None,
        }
    }
}
