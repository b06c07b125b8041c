//! The origin of a data directory: a number from the directory, kept beside the outbox it names.
//!
//! Positions mean something only together with the data that counted them. The number therefore lies inside the outbox
//! directory: whoever removes the outbox gets a new origin and cannot give a position twice.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;
use quail_core::ports::directory::Directory;
use quail_protocol::id::Origin;

use crate::ops::clock::unix_ms;
use crate::ops::files::write_atomically;

/// Returns the origin of the outbox directory, which is made, with a new origin, if it is not there.
pub(super) async fn of(outbox: &Path, directory: &dyn Directory) -> anyhow::Result<Origin> {
    let file = outbox.join("origin");
    match std::fs::read_to_string(&file) {
        Ok(text) => {
            let number =
                text.trim().parse().with_context(|| format!("read a number from {}", file.display()))?;
            return Ok(Origin(number));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
    }
    anyhow::ensure!(
        !outbox.join("store").exists(),
        "the outbox in {} has lost its origin file; restore it, or move the outbox away to begin a new one",
        outbox.display()
    );
    let origin = directory.register_origin(unix_ms()).await.context("register a new origin")?;
    let written = std::fs::create_dir_all(outbox)
        .and_then(|()| write_atomically(&file, format!("{origin}\n").as_bytes(), 0o600));
    written.with_context(|| format!("write {}", file.display()))?;
    tracing::info!(%origin, "new origin");
    Ok(origin)
}

#[cfg(test)]
mod tests {
    use quail_core::ports::directory::TwinDirectory;

    use super::*;

    #[tokio::test]
    async fn an_origin_stays_with_its_outbox() {
        let data = tempfile::TempDir::new().unwrap();
        let directory = TwinDirectory::default();
        let outbox = data.path().join("outbox");
        let first = of(&outbox, &directory).await.unwrap();
        assert_eq!(of(&outbox, &directory).await.unwrap(), first);
        std::fs::remove_dir_all(&outbox).unwrap();
        assert_ne!(of(&outbox, &directory).await.unwrap(), first);
    }

    #[tokio::test]
    async fn a_store_without_its_origin_is_not_guessed_at() {
        let data = tempfile::TempDir::new().unwrap();
        std::fs::create_dir_all(data.path().join("store")).unwrap();
        let error = of(data.path(), &TwinDirectory::default()).await.unwrap_err();
        assert!(error.to_string().contains("lost its origin file"), "{error}");
    }
}
