//! A server is known by its key: the check of a pinned certificate.
//!
//! The pin is the SHA-256 of the certificate's SubjectPublicKeyInfo, so it survives a renewed certificate for the same
//! key. Names, dates and issuers are not looked at: whoever proves to hold the pinned key is the server.
//!
//! Invariant: the proof is checked. The certificate alone proves nothing, everybody may copy it; the signature over the
//! handshake must verify against the key in it.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use quail_protocol::address::Pin;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use sha2::{Digest, Sha256};

/// Accepts the certificate whose key has the expected pin.
pub(super) struct PinVerifier {
    expected: Pin,
    algorithms: WebPkiSupportedAlgorithms,
    /// The pin of the last certificate that was refused: the error that crosses QUIC is only a text.
    mismatch: Mutex<Option<Pin>>,
}

impl PinVerifier {
    pub(super) fn new(expected: Pin, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { expected, algorithms, mismatch: Mutex::new(None) }
    }

    pub(super) fn expected(&self) -> Pin {
        self.expected
    }

    pub(super) fn take_mismatch(&self) -> Option<Pin> {
        self.mismatch.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for PinVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinVerifier").field("expected", &self.expected).finish_non_exhaustive()
    }
}

/// Returns the pin of a certificate.
fn pin_of(certificate: &CertificateDer<'_>) -> Result<Pin, rustls::Error> {
    let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
    Ok(Pin(Sha256::digest(key.as_ref()).into()))
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let got = pin_of(end_entity)?;
        // A pin is public, so there is nothing to learn from how long the comparison takes.
        if got == self.expected {
            return Ok(ServerCertVerified::assertion());
        }
        *self.mismatch.lock().unwrap_or_else(PoisonError::into_inner) = Some(got);
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Never reached: TLS 1.2 is not offered.
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(expected: Pin, certificate: &CertificateDer<'_>) -> (bool, Option<Pin>) {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        let verifier = PinVerifier::new(expected, algorithms);
        let name = ServerName::try_from("anything.example").unwrap();
        let verified = verifier.verify_server_cert(certificate, &[], &name, &[], UnixTime::now());
        (verified.is_ok(), verifier.take_mismatch())
    }

    #[test]
    fn the_pin_is_the_hash_of_the_key_in_the_certificate() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rcgen::PublicKeyData::subject_public_key_info(&made.signing_key);
        let pin = Pin(Sha256::digest(&key).into());
        assert_eq!(verify(pin, made.cert.der()), (true, None));
        assert_eq!(verify(Pin([0; 32]), made.cert.der()), (false, Some(pin)));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert_eq!(verify(Pin([0; 32]), &CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])), (false, None));
    }
}
