//! How the server proves who it is, and what protects the connection.
//!
//! TLS 1.3 and nothing older, with aws-lc-rs as the one provider; its first choice of key exchange is the hybrid of
//! X25519 and ML-KEM-768. With a pin the server is whoever holds the pinned key; without one its certificate must be
//! valid for the host by the system's trust roots.
//!
//! Invariant: there is no way to connect without one of the two checks.

mod exchange;
mod pin;
mod session;
mod tickets;

use std::sync::Arc;

use quail_protocol::ALPN;
use quail_protocol::address::Pin;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::crypto::aws_lc_rs;

use crate::Error;
use crate::error::{certificate, local_fault};
use pin::PinVerifier;
use session::NotingConfig;
use tickets::{TicketStore, Tickets};

pub(crate) use session::Negotiated;

/// A TLS configuration for one address.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pinned: Option<Arc<PinVerifier>>,
    config: Arc<NotingConfig>,
    early_config: Arc<NotingConfig>,
    tickets: Arc<Tickets>,
}

impl Tls {
    /// Makes the configuration. Without a pin this reads the system's trust roots from disk, which takes milliseconds.
    pub(crate) fn new(pin: Option<Pin>) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::CryptoProvider {
            kx_groups: exchange::groups(),
            // The server takes the first one. The schedule of keys of the second hashes with SHA-384, for which processors have no
            // instructions.
            cipher_suites: vec![
                aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
                aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
                aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            ..aws_lc_rs::default_provider()
        });
        let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| local_fault(error.to_string()))?;
        let pinned =
            pin.map(|pin| Arc::new(PinVerifier::new(pin, provider.signature_verification_algorithms)));
        let mut config = match &pinned {
            Some(verifier) => {
                builder.dangerous().with_custom_certificate_verifier(verifier.clone()).with_no_client_auth()
            }
            None => builder.with_root_certificates(system_roots()?).with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        let tickets = Arc::new(Tickets::default());
        let store = |spends| {
            rustls::client::Resumption::store(Arc::new(TicketStore { tickets: tickets.clone(), spends }))
        };
        config.resumption = store(false);
        // A copy, because a ticket is good only for the verifier under which it was given.
        let mut early = config.clone();
        early.resumption = store(true);
        early.enable_early_data = true;
        let noting = |config: rustls::ClientConfig| {
            let config = QuicClientConfig::try_from(config).map_err(|error| local_fault(error.to_string()));
            config.map(|config| Arc::new(NotingConfig::new(config)))
        };
        Ok(Self { pinned, config: noting(config)?, early_config: noting(early)?, tickets })
    }

    /// Returns the configuration as QUIC takes it.
    pub(crate) fn config(&self) -> Arc<NotingConfig> {
        self.config.clone()
    }

    /// Returns the configuration of a connection that sends early data, if an earlier connection left a ticket for that.
    pub(crate) fn early_config(&self) -> Option<Arc<NotingConfig>> {
        self.tickets.any().then(|| self.early_config.clone())
    }

    /// Returns the error of a wrong pin, if the last certificate that was checked had one.
    pub(crate) fn take_wrong_pin(&self) -> Option<Error> {
        let pinned = self.pinned.as_ref()?;
        let got = pinned.take_mismatch()?;
        Some(Error::WrongPin { expected: pinned.expected(), got })
    }
}

fn system_roots() -> Result<rustls::RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = rustls::RootCertStore::empty();
    // Stores of systems contain certificates that nobody can parse; the others are still good.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let cause = found.errors.first().map(ToString::to_string).unwrap_or_default();
        return Err(certificate(format!(
            "this system has no trust roots; use an address with a pin. {cause}"
        )));
    }
    Ok(roots)
}
