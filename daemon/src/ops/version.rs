//! Which daemon this is: its version, and the fingerprint of the sources it was built from.

/// Version and fingerprint, as `quaild --version` prints them after the name.
pub const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (source fingerprint ", env!("QUAIL_FINGERPRINT"), ")");

/// The fingerprint alone: 16 hex digits.
pub const FINGERPRINT: &str = env!("QUAIL_FINGERPRINT");

#[cfg(test)]
#[path = "../../fingerprint.rs"]
#[expect(dead_code, reason = "what build scripts say to Cargo")]
mod fingerprint;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::fingerprint::fingerprint;
    use super::*;

    fn write(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn repository() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "Cargo.lock", "lock");
        write(root.path(), "daemon/src/main.rs", "main");
        write(root.path(), "protocol/proto/a.proto", "proto");
        root
    }

    fn of(root: &tempfile::TempDir) -> String {
        fingerprint(root.path()).unwrap().0
    }

    #[test]
    fn this_binary_knows_its_own_sources() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let (now, inputs) = fingerprint(root).unwrap();
        assert!(inputs.contains(&root.join("daemon/src/ops/version.rs")));
        assert_eq!(now.len(), 16);
        assert_eq!(FINGERPRINT.len(), 16);
        assert!(VERSION.ends_with(&format!("(source fingerprint {FINGERPRINT})")));
    }

    #[test]
    fn it_is_the_same_everywhere_and_for_ever() {
        assert_eq!(of(&repository()), of(&repository()));
        assert_eq!(of(&repository()), "538ee62b28434e86");
    }

    #[test]
    fn what_is_compiled_counts() {
        let before = of(&repository());
        for (path, content) in [
            ("daemon/src/main.rs", "main2"),
            ("daemon/src/net/new.rs", ""),
            ("daemon/core/Cargo.toml", ""),
            ("daemon/migrations/1.sql", ""),
            ("protocol/src/lib.rs", ""),
            ("Cargo.lock", "lock2"),
            ("Cargo.toml", ""),
        ] {
            let root = repository();
            write(root.path(), path, content);
            assert_ne!(of(&root), before, "{path}");
        }
        let moved = repository();
        fs::rename(moved.path().join("daemon/src/main.rs"), moved.path().join("daemon/src/lib.rs")).unwrap();
        assert_ne!(of(&moved), before);
    }

    #[test]
    fn what_is_not_compiled_does_not() {
        let before = of(&repository());
        for path in [
            "daemon/tests/a.rs",
            "daemon/core/tests/a.rs",
            "daemon/target/a.rs",
            "protocol/fuzz/a.rs",
            "daemon/.cache/a.rs",
            "daemon/Dockerfile",
            "protocol/README.md",
            "tools/quail/src/main.rs",
            "tests/a.rs",
        ] {
            let root = repository();
            write(root.path(), path, "x");
            assert_eq!(of(&root), before, "{path}");
        }
    }
}
