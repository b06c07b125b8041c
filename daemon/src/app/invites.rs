//! `quaild admin invites create`: codes for new accounts.
//!
//! It works on the database of the directory itself, whose transactions keep it apart from a daemon that may be running.
//!
//! Invariant: the codes are printed and nowhere kept; the database has their hashes.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use crate::adapters::sqlite::SqliteDirectory;
use crate::app::data_dir::DataPaths;
use crate::directory::{DirectoryService, SignUpPolicy};
use crate::ops::clock;

/// Creates invites in a data directory and prints them, each on a line or all in one JSON object.
pub(super) async fn create(data: &Path, count: u16, json: bool) -> anyhow::Result<()> {
    let codes = create_codes(data, count).await?;
    let mut stdout = io::stdout().lock();
    if json {
        // The codes have nothing that JSON would have escaped.
        writeln!(stdout, "{{\"invites\":[\"{}\"]}}", codes.join("\",\""))?;
    } else {
        for code in codes {
            writeln!(stdout, "{code}")?;
        }
    }
    Ok(stdout.flush()?)
}

async fn create_codes(data: &Path, count: u16) -> anyhow::Result<Vec<String>> {
    let paths = DataPaths::existing(data)?;
    let port = SqliteDirectory::open(&paths.directory_file()).await?;
    // Who may sign up matters to those who do, not to whoever invites them.
    let service = DirectoryService::new(Arc::new(port.clone()), SignUpPolicy::Invite);
    let mut codes = Vec::with_capacity(count.into());
    for _ in 0..count {
        codes.push(service.create_invite(clock::unix_ms()).await.context("create an invite")?);
    }
    port.close().await;
    Ok(codes)
}

#[cfg(test)]
mod tests {
    use quail_protocol::v1;

    use super::*;
    use crate::app::data_dir::{DataDir, DataDirError};

    #[tokio::test]
    async fn each_code_opens_one_account_of_the_running_daemon() {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::open(root.path()).unwrap();
        let port = SqliteDirectory::open(&data.paths().directory_file()).await.unwrap();
        let daemon = DirectoryService::new(Arc::new(port), SignUpPolicy::Invite);
        let codes = create_codes(root.path(), 2).await.unwrap();
        assert_eq!(codes.len(), 2);
        assert!(codes.iter().flat_map(|code| code.chars()).all(|c| c.is_ascii_alphanumeric()));
        for (handle, code) in ["ada", "bob"].into_iter().zip(&codes) {
            let sign_up = |handle: &str| v1::SignUp {
                handle: handle.to_owned(),
                password: "correct horse".to_owned(),
                device_name: "phone".to_owned(),
                invite: code.clone(),
            };
            daemon.sign_up(sign_up(handle), clock::unix_ms()).await.unwrap();
            daemon.sign_up(sign_up("eve"), clock::unix_ms()).await.unwrap_err();
        }
    }

    #[tokio::test]
    async fn without_a_data_directory_none_is_made() {
        let root = tempfile::tempdir().unwrap();
        let error = create_codes(root.path(), 1).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(DataDirError::Absent { .. })), "{error}");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
