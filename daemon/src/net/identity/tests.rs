//! One identity per data directory, whatever happens to its files; and settings that a TLS client agrees to.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rustls::{ClientConnection, ServerConnection};

use super::*;

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn certificate(&self) -> PathBuf {
        self.directory.path().join("tls/certificate.pem")
    }

    fn key(&self) -> PathBuf {
        self.directory.path().join("tls/key.pem")
    }

    fn open(&self, name: &str) -> Result<Identity, IdentityError> {
        Identity::load_or_create(&self.certificate(), &self.key(), name)
    }

    fn texts(&self) -> (String, String) {
        (fs::read_to_string(self.certificate()).unwrap(), fs::read_to_string(self.key()).unwrap())
    }
}

#[test]
fn an_identity_is_made_once_and_kept() {
    let place = Place::new();
    let made = place.open("chat.example.org").unwrap();
    let texts = place.texts();
    let kept = place.open("chat.example.org").unwrap();
    assert_eq!(made.pin(), kept.pin());
    assert_eq!(place.texts(), texts);
    assert_eq!(certificate_pin(&place.certificate()).unwrap(), made.pin());
    assert_ne!(Place::new().open("chat.example.org").unwrap().pin(), made.pin());
    for name in ["chat.example.org", "localhost", "127.0.0.1", "::1"] {
        assert!(made.is_for(name), "{name}");
    }
    assert!(!made.is_for("example.org"));
}

#[test]
fn only_the_owner_reads_the_key() {
    let place = Place::new();
    place.open("localhost").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.key()), 0o600);
    assert_eq!(mode(place.key().parent().unwrap()), 0o700);
}

#[test]
fn another_host_name_is_another_certificate_with_the_same_pin() {
    let place = Place::new();
    let pin = place.open("localhost").unwrap().pin();
    for name in ["chat.example.org", "2001:db8::1", "my_host"] {
        let moved = place.open(name).unwrap();
        assert_eq!(moved.pin(), pin);
        assert!(moved.is_for(name) && moved.is_for("localhost"));
        let texts = place.texts();
        place.open(name).unwrap();
        assert_eq!(place.texts(), texts, "{name}");
    }
}

#[test]
fn a_certificate_that_was_deleted_comes_back_with_the_same_pin() {
    let place = Place::new();
    let pin = place.open("localhost").unwrap().pin();
    fs::remove_file(place.certificate()).unwrap();
    assert_eq!(place.open("localhost").unwrap().pin(), pin);
}

#[test]
fn a_key_that_is_gone_is_not_replaced() {
    let place = Place::new();
    place.open("localhost").unwrap();
    fs::remove_file(place.key()).unwrap();
    let error = place.open("localhost").unwrap_err();
    assert!(matches!(error, IdentityError::KeyGone { .. }), "{error}");
    assert!(error.hint().unwrap().contains("backup"));
    assert!(!place.key().exists());
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (place, other) = (Place::new(), Place::new());
    place.open("localhost").unwrap();
    other.open("localhost").unwrap();
    let error = Identity::load(&place.certificate(), &other.key()).unwrap_err();
    assert!(matches!(error, IdentityError::Mismatch { .. }), "{error}");
}

#[test]
fn an_operators_chain_is_known_by_its_first_certificate() {
    let (server, issuer) = (Place::new(), Place::new());
    let pin = server.open("localhost").unwrap().pin();
    issuer.open("localhost").unwrap();
    let chain = server.texts().0 + &issuer.texts().0;
    fs::write(server.certificate(), chain).unwrap();
    let identity = Identity::load(&server.certificate(), &server.key()).unwrap();
    assert_eq!((identity.pin(), identity.certified.cert.len()), (pin, 2));
    assert_eq!(certificate_pin(&server.certificate()).unwrap(), pin);
}

#[test]
fn each_bad_file_has_its_own_error() {
    let place = Place::new();
    place.open("localhost").unwrap();
    let (certificate, key) = place.texts();
    let load = |certificate: &str, key: &str| {
        fs::write(place.certificate(), certificate).unwrap();
        fs::write(place.key(), key).unwrap();
        Identity::load(&place.certificate(), &place.key()).unwrap_err()
    };
    assert!(matches!(load("", &key), IdentityError::NoCertificate { .. }));
    assert!(matches!(load(&key, &key), IdentityError::NoCertificate { .. }));
    assert!(matches!(load(&certificate, ""), IdentityError::NoKey { .. }));
    assert!(matches!(load(&certificate, &certificate), IdentityError::NoKey { .. }));
    let broken = certificate.replace("-----END", "-----");
    assert!(matches!(load(&broken, &key), IdentityError::Pem { .. }));
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(load(garbage, &key), IdentityError::UnusableCertificate { .. }));
    let garbage = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(matches!(load(&certificate, garbage), IdentityError::UnusableKey { .. }));
    fs::remove_file(place.certificate()).unwrap();
    let error = Identity::load(&place.certificate(), &place.key()).unwrap_err();
    assert!(matches!(error, IdentityError::Missing { .. }), "{error}");
}

#[test]
fn debug_output_shows_no_key() {
    let place = Place::new();
    let identity = place.open("localhost").unwrap();
    assert_eq!(format!("{identity:?}"), format!("Identity {{ pin: {:?}, .. }}", identity.pin()));
}

#[test]
fn clients_agree_to_tls_13_with_the_hybrid_key_exchange() {
    let place = Place::new();
    let identity = place.open("localhost").unwrap();
    let client = handshake(&identity, identity.pin()).unwrap();
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(client.alpn_protocol(), Some(&b"quail/1"[..]));
    let group = client.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(identity.server_config().unwrap().max_early_data_size, 0);
}

#[test]
fn a_client_turns_away_from_another_key() {
    let (place, other) = (Place::new(), Place::new());
    let error =
        handshake(&place.open("localhost").unwrap(), other.open("localhost").unwrap().pin()).unwrap_err();
    assert!(error.to_string().contains("holds another key"), "{error}");
}

/// Carries the bytes of both sides back and forth until they agree.
fn handshake(identity: &Identity, pin: Pin) -> Result<ClientConnection, rustls::Error> {
    let mut server = ServerConnection::new(Arc::new(identity.server_config().unwrap())).unwrap();
    let config = Arc::new(client_config(pin).unwrap());
    let mut client = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(client)
}
