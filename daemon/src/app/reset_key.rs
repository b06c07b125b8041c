//! The key of stateless resets, kept over restarts.
//!
//! A daemon that was killed knows nothing of its connections when it is back. With the same key it can tell their clients
//! so (RFC 9000, section 10.3), and they resume at once; with a new key they would wait for their idle timeout.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;

use crate::ops::files::write_atomically;

/// Length of the key in bytes.
const KEY_BYTES: usize = 32;

/// Returns the key in `path`, which is made if it is not there.
pub(super) fn load_or_create(path: &Path) -> anyhow::Result<[u8; KEY_BYTES]> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let wrong =
                || format!("{} must hold {KEY_BYTES} bytes; remove it to get a new key", path.display());
            <[u8; KEY_BYTES]>::try_from(bytes).ok().with_context(wrong)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut key = [0; KEY_BYTES];
            getrandom::fill(&mut key).context("draw a random key")?;
            write_atomically(path, &key, 0o600).with_context(|| format!("write {}", path.display()))?;
            Ok(key)
        }
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stays() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("reset.key");
        let key = load_or_create(&path).unwrap();
        assert_ne!(key, [0; KEY_BYTES]);
        assert_eq!(load_or_create(&path).unwrap(), key);
        std::fs::write(&path, "short").unwrap();
        assert!(load_or_create(&path).unwrap_err().to_string().contains("remove it"));
    }
}
