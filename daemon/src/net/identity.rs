//! Who the daemon is on the wire: its certificate, its key, and the pin by which clients know the key.
//!
//! An operator may bring a certificate. Otherwise the daemon makes a key once, signs a certificate for it itself, and keeps
//! both: clients pin the SHA-256 of the public key (SubjectPublicKeyInfo, RFC 7469), so the key is the identity and the
//! certificate only carries it. That is why a certificate that was deleted, or that names another host than the configured
//! one, is made anew from the same key, but a key that is gone is never replaced under a certificate that is still there.
//!
//! Invariants: the key file is readable by its owner only, from its first byte; a pair that does not belong together is
//! refused; TLS 1.3 only, with the hybrid post-quantum key exchange preferred. Early data is for the endpoint to allow: here
//! it is off.

mod create;
mod error;
mod pinned;

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use quail_protocol::ALPN;
use quail_protocol::address::Pin;
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, ServerConfig};
use sha2::{Digest, Sha256};

pub use error::IdentityError;
pub use pinned::client_config;

/// A certificate chain with its key, and the pin of the key. Clones share them.
#[derive(Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    pin: Pin,
}

impl Identity {
    /// Loads a certificate chain and its key, both PEM.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let chain = read_chain(certificate)?;
        let private_key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| match error {
            pem::Error::NoItemsFound => IdentityError::NoKey { path: key.to_owned() },
            error => IdentityError::Pem { path: key.to_owned(), reason: error.to_string() },
        })?;
        let unusable_key = |reason: String| IdentityError::UnusableKey { path: key.to_owned(), reason };
        let signing_key = provider()
            .key_provider
            .load_private_key(private_key)
            .map_err(|error| unusable_key(error.to_string()))?;
        let certified = CertifiedKey::new(chain, signing_key);
        certified.keys_match().map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                IdentityError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() }
            }
            rustls::Error::InconsistentKeys(_) => unusable_key("it has no public half".to_owned()),
            error => {
                IdentityError::UnusableCertificate { path: certificate.to_owned(), reason: error.to_string() }
            }
        })?;
        let public_key = certified.key.public_key();
        let public_key = public_key.ok_or_else(|| unusable_key("it has no public half".to_owned()))?;
        let pin = pin_of(&public_key);
        Ok(Self { certified: Arc::new(certified), pin })
    }

    /// Loads the daemon's own certificate and key; makes what is not there yet, for the host `name`.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load_or_create(certificate: &Path, key: &Path, name: &str) -> Result<Self, IdentityError> {
        let exists = |path: &Path| {
            path.try_exists().map_err(|source| IdentityError::Read { path: path.to_owned(), source })
        };
        match (exists(certificate)?, exists(key)?) {
            (true, false) => {
                Err(IdentityError::KeyGone { certificate: certificate.to_owned(), key: key.to_owned() })
            }
            (true, true) => {
                let identity = Self::load(certificate, key)?;
                if identity.is_for(name) {
                    return Ok(identity);
                }
                create::certificate(certificate, key, name)?;
                tracing::info!(name, "made a new certificate from the same key, since the host name changed");
                Self::load(certificate, key)
            }
            (false, key_exists) => {
                if !key_exists {
                    create::key(key)?;
                }
                create::certificate(certificate, key, name)?;
                let identity = Self::load(certificate, key)?;
                tracing::info!(pin = %identity.pin, "made a self-signed certificate");
                Ok(identity)
            }
        }
    }

    /// Returns the pin of the key.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// Returns the TLS settings of the server side of QUIC.
    ///
    /// # Errors
    /// [`IdentityError::Tls`]: this program was built with parts that do not fit each other.
    pub fn server_config(&self) -> Result<ServerConfig, IdentityError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(IdentityError::Tls)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&self.certified))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// Returns when the first certificate of the chain expires, in seconds since the Unix epoch.
    pub fn expiry(&self) -> i64 {
        let first = self.certified.cert.first();
        // rustls has read it before; what this parser cannot read counts as expired, so that somebody looks.
        let parsed = first.and_then(|first| x509_parser::parse_x509_certificate(first).ok());
        parsed.map_or(0, |(_, certificate)| certificate.validity().not_after.timestamp())
    }

    fn is_for(&self, name: &str) -> bool {
        let Ok(name) = ServerName::try_from(name) else { return false };
        let parsed = self.certified.cert.first().map(ParsedCertificate::try_from);
        parsed.is_some_and(|parsed| parsed.is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok()))
    }
}

/// Returns the pin of the key that the first certificate of a PEM file is for.
///
/// # Errors
/// `Read`, `Pem`, `NoCertificate`, `UnusableCertificate`.
pub fn certificate_pin(certificate: &Path) -> Result<Pin, IdentityError> {
    let chain = read_chain(certificate)?;
    // A chain has at least one certificate.
    let first = chain.first().ok_or_else(|| IdentityError::NoCertificate { path: certificate.to_owned() })?;
    presented_pin(first).map_err(|error| IdentityError::UnusableCertificate {
        path: certificate.to_owned(),
        reason: error.to_string(),
    })
}

/// Returns the pin of the key that a certificate is for.
///
/// # Errors
/// What is wrong with the certificate.
pub fn presented_pin(certificate: &CertificateDer<'_>) -> Result<Pin, rustls::Error> {
    Ok(pin_of(&ParsedCertificate::try_from(certificate)?.subject_public_key_info()))
}

/// Returns the cryptography of both sides: aws-lc-rs, and first of all the hybrid key exchange that stays secret even if
/// one of its halves is broken.
pub fn provider() -> CryptoProvider {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    CryptoProvider {
        kx_groups: vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1],
        ..aws_lc_rs::default_provider()
    }
}

fn pin_of(public_key: &[u8]) -> Pin {
    Pin(Sha256::digest(public_key).into())
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| IdentityError::Pem { path: path.to_owned(), reason: error.to_string() })?;
    if chain.is_empty() {
        return Err(IdentityError::NoCertificate { path: path.to_owned() });
    }
    Ok(chain)
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => IdentityError::Missing { path: path.to_owned() },
        _ => IdentityError::Read { path: path.to_owned(), source },
    })
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("pin", &self.pin).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
