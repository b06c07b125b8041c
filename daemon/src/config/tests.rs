//! Layers, mistakes and suggestions, through the door that the daemon uses.

use std::collections::BTreeMap;

use super::*;

type Variables = BTreeMap<String, String>;

fn environment(variables: &[(&str, &str)]) -> Variables {
    let home = [("HOME", "/home/ada")];
    home.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Loads a file with this text; the path of the file is not part of what is compared.
fn load_text(toml: &str, variables: &[(&str, &str)], flags: &Flags) -> Result<Loaded, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("quail.toml");
    std::fs::write(&file, toml).unwrap();
    load(Some(&file), &environment(variables), flags)
        .map_err(|errors| errors.to_string().replace(&file.display().to_string(), "quail.toml"))
}

fn error(toml: &str) -> String {
    load_text(toml, &[], &Flags::default()).unwrap_err()
}

fn unknown(toml: &str, variables: &[(&str, &str)]) -> Vec<(String, Option<String>)> {
    let loaded = load_text(toml, variables, &Flags::default()).unwrap();
    loaded.unknown.into_iter().map(|key| (key.name, key.meant)).collect()
}

fn default_rates() -> RateTable {
    let texts = [
        "50/s burst 500",
        "60/h burst 60",
        "60/m burst 60",
        "30/h burst 10",
        "600/h burst 100",
        "10/s burst 100",
        "200/d burst 100",
        "20/s burst 200",
        "100/s burst 2000",
        "5/s burst 50",
        "20/s burst 400",
    ];
    RateTable::new(texts.map(|text| Rate::parse(text).unwrap()))
}

#[test]
fn the_defaults_are_complete_and_need_nothing_else() {
    let loaded = load(None, &environment(&[]), &Flags::default()).unwrap();
    let expected = Config {
        server: Server {
            listen: "[::]:7824".parse().unwrap(),
            name: "localhost".to_owned(),
            drain: Duration::from_secs(5),
        },
        data: Data { directory: "/home/ada/.local/share/quail".into() },
        storage: Storage {
            url: StorageUrl::Sqlite,
            password_file: None,
            connections: 8,
            statement_timeout: Duration::from_secs(5),
            archive: true,
        },
        tls: Tls { operator: None, early_data: true },
        accounts: Accounts { sign_up: SignUp::Open },
        rates: default_rates(),
        limits: Limits {
            stall: Duration::from_secs(600),
            unsettled: 256 << 20,
            unarchived: 4 << 30,
            free_space: None,
        },
        messages: Messages { delete_for_all: quail_core::DELETE_FOR_ALL },
        ops: Ops { listen: Some("127.0.0.1:7825".parse().unwrap()) },
        admin: Admin { socket: "/home/ada/.local/share/quail/admin.sock".into() },
        log: Log { level: LogLevel::Info, format: LogFormat::Auto },
    };
    assert_eq!(loaded.config, expected);
    assert_eq!(loaded.unknown, []);
    assert_eq!(loaded.settings.len(), keys::KEYS.len());
    assert!(loaded.settings.iter().all(|setting| setting.source == Source::Default));
    assert_eq!(loaded.config.server.listen.port(), quail_protocol::DEFAULT_PORT);
}

#[test]
fn the_defaults_stand_in_the_order_of_the_table_with_a_comment_each() {
    let mut section = "";
    let mut previous = "";
    let mut found = Vec::new();
    for line in DEFAULT_TOML.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            // Settings of a pair share a comment.
            assert!(previous.starts_with('#') || key == "key_file", "{key} has no comment");
            found.push(format!("{section}.{key}"));
        }
        previous = line;
    }
    let table: Vec<_> = keys::KEYS.iter().map(|key| key.path).collect();
    assert_eq!(found, table);
    assert!(keys::sections().iter().all(|section| !section.contains('_')));
}

#[test]
fn each_layer_overrides_the_one_before_and_says_so() {
    let toml = "[server]\nname = \"file\"\nlisten = \"127.0.0.1:1\"\n[log]\nlevel = \"warn\"";
    let variables = [("QUAIL_SERVER_LISTEN", "127.0.0.1:2"), ("QUAIL_LOG_LEVEL", "debug")];
    let flags = Flags { log_level: Some("trace".to_owned()), ..Flags::default() };
    let loaded = load_text(toml, &variables, &flags).unwrap();
    assert_eq!(loaded.config.server.name, "file");
    assert_eq!(loaded.config.server.listen.port(), 2);
    assert_eq!(loaded.config.log.level, LogLevel::Trace);
    assert_eq!(loaded.config.server.drain, Duration::from_secs(5));
    let source = |key: &str| {
        let setting = loaded.settings.iter().find(|setting| setting.key == key).unwrap();
        setting.source.to_string()
    };
    assert!(source("server.name").ends_with("quail.toml line 2"));
    assert_eq!(source("server.listen"), "the environment variable QUAIL_SERVER_LISTEN");
    assert_eq!(source("log.level"), "the flag --log-level");
    assert_eq!(source("server.drain"), "the built-in defaults");
}

#[test]
fn every_setting_has_a_variable_and_the_flags_theirs() {
    let variables = [
        ("QUAIL_SERVER_LISTEN", "127.0.0.1:0"),
        ("QUAIL_SERVER_NAME", "chat.example.org"),
        ("QUAIL_SERVER_DRAIN", "250ms"),
        ("QUAIL_DATA_DIRECTORY", "/srv/quail"),
        ("QUAIL_STORAGE_ARCHIVE", "off"),
        ("QUAIL_STORAGE_URL", "postgres://quail@db.example/chat"),
        ("QUAIL_STORAGE_PASSWORD_FILE", "/etc/p"),
        ("QUAIL_STORAGE_CONNECTIONS", "3"),
        ("QUAIL_STORAGE_STATEMENT_TIMEOUT", "1s"),
        ("QUAIL_TLS_CERTIFICATE_FILE", "/etc/c.pem"),
        ("QUAIL_TLS_KEY_FILE", "/etc/k.pem"),
        ("QUAIL_TLS_EARLY_DATA", "off"),
        ("QUAIL_ACCOUNTS_SIGN_UP", "invite"),
        ("QUAIL_RATES_HANDSHAKE", "off"),
        ("QUAIL_RATES_SIGN_UP", "off"),
        ("QUAIL_RATES_LOG_IN", "off"),
        ("QUAIL_RATES_PASSWORD", "off"),
        ("QUAIL_RATES_PASSWORD_ANYWHERE", "off"),
        ("QUAIL_RATES_LOOK_UP", "off"),
        ("QUAIL_RATES_UNKNOWN", "off"),
        ("QUAIL_RATES_REQUEST", "off"),
        ("QUAIL_RATES_SEND", "9/m burst 8"),
        ("QUAIL_RATES_SIGNAL", "off"),
        ("QUAIL_RATES_HISTORY", "off"),
        ("QUAIL_LIMITS_STALL", "90s"),
        ("QUAIL_LIMITS_UNSETTLED", "64MiB"),
        ("QUAIL_LIMITS_UNARCHIVED", "1GiB"),
        ("QUAIL_LIMITS_FREE_SPACE", "500MiB"),
        ("QUAIL_MESSAGES_DELETE_FOR_ALL", "24h"),
        ("QUAIL_OPS_LISTEN", ""),
        ("QUAIL_ADMIN_SOCKET", "/run/quail.sock"),
        ("QUAIL_LOG_LEVEL", "error"),
        ("QUAIL_LOG_FORMAT", "json"),
    ];
    let loaded = load(None, &environment(&variables), &Flags::default()).unwrap();
    assert!(loaded.settings.iter().all(|setting| setting.source != Source::Default));
    let operator = CertificateFiles { certificate: "/etc/c.pem".into(), key: "/etc/k.pem".into() };
    assert!(!loaded.config.storage.archive);
    assert_eq!(loaded.config.tls, Tls { operator: Some(operator), early_data: false });
    assert_eq!(loaded.config.accounts.sign_up, SignUp::Invite);
    let limits = Limits {
        stall: Duration::from_secs(90),
        unsettled: 64 << 20,
        unarchived: 1 << 30,
        free_space: Some(500 << 20),
    };
    assert_eq!(loaded.config.limits, limits);
    assert_eq!(loaded.config.messages, Messages { delete_for_all: Duration::from_secs(24 * 3600) });
    assert_eq!(loaded.config.ops.listen, None);
    assert_eq!(loaded.config.rates.get(Class::SignUp), None);
    assert_eq!(loaded.config.rates.get(Class::Send), Rate::parse("9/m burst 8").unwrap());
    let flags = Flags {
        listen: Some("127.0.0.1:9".to_owned()),
        data: Some("/mnt/quail".to_owned()),
        log_level: Some("info".to_owned()),
    };
    let config = load(None, &environment(&variables), &flags).unwrap().config;
    assert_eq!(config.server.listen.port(), 9);
    assert_eq!(config.data.directory, Path::new("/mnt/quail"));
    assert_eq!(config.log.level, LogLevel::Info);
}

#[test]
fn a_bad_value_is_named_with_its_place_and_what_to_write() {
    for (toml, expected) in [
        (
            "[server]\nlisten = \"localhost:7824\"",
            r#"server.listen = "localhost:7824" from quail.toml line 2: write an IP address and a UDP port, as in "[::]:7824" or "192.0.2.1:7824""#,
        ),
        (
            "[server]\n\nname = \"a b\"",
            r#"server.name = "a b" from quail.toml line 3: write a host name or an IP address without port and brackets, as in "chat.example.org""#,
        ),
        (
            "[server]\ndrain = \"5\"",
            r#"server.drain = "5" from quail.toml line 2: write a whole number with its unit, ms, s, m or h, of at most 1h, as in "5s""#,
        ),
        (
            "[accounts]\nsign_up = \"Open\"",
            r#"accounts.sign_up = "Open" from quail.toml line 2: write "open", "invite" or "closed""#,
        ),
        (
            "[log]\nlevel = \"verbose\"",
            r#"log.level = "verbose" from quail.toml line 2: write "error", "warn", "info", "debug" or "trace""#,
        ),
        (
            "log.format = \"xml\"",
            r#"log.format = "xml" from quail.toml line 1: write "auto", "human" or "json""#,
        ),
        (
            "[data]\ndirectory = \"\\u0000\"",
            r#"data.directory = "\0" from quail.toml line 2: write the path of a directory, as in "/var/lib/quail", or "" to have it chosen"#,
        ),
        (
            "[server]\ndrain = 5",
            r#"server.drain in quail.toml line 2 is of type integer: write a whole number with its unit, ms, s, m or h, of at most 1h, as in "5s""#,
        ),
        (
            "[tls]\ncertificate_file = \"c.pem\"",
            "tls.certificate_file from quail.toml line 2 is set, tls.key_file is not: set both or none",
        ),
        (
            "[tls]\nkey_file = \"k.pem\"",
            "tls.key_file from quail.toml line 2 is set, tls.certificate_file is not: set both or none",
        ),
    ] {
        assert_eq!(error(toml), expected);
    }
    assert!(error("[server]\ndrain = \"61m\"").contains("at most 1h"));
    for age in ["1441h", "2d", "-1h"] {
        let text = error(&format!("[messages]\ndelete_for_all = \"{age}\""));
        assert!(text.contains("of at most 1440h"), "{age}: {text}");
    }
    for stall in ["999ms", "25h", "0s", "off"] {
        assert!(error(&format!("[limits]\nstall = \"{stall}\"")).contains("of 1s to 24h"), "{stall}");
    }
    let syntax = error("[server]\nlisten = nowhere");
    assert!(syntax.starts_with("quail.toml line 2: not valid TOML: ") && !syntax.contains('\n'), "{syntax}");
}

#[test]
fn bad_values_of_variables_and_flags_are_named_too() {
    let flags = Flags { listen: Some("7824".to_owned()), ..Flags::default() };
    let errors = load_text("", &[("QUAIL_LOG_LEVEL", "")], &flags).unwrap_err();
    assert_eq!(
        errors,
        "server.listen = \"7824\" from the flag --listen: write an IP address and a UDP port, as in \"[::]:7824\" or \"192.0.2.1:7824\"\n\
         log.level = \"\" from the environment variable QUAIL_LOG_LEVEL: write \"error\", \"warn\", \"info\", \"debug\" or \"trace\""
    );
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let errors = error("[log]\nlevel = 1\nformat = \"\"\nlevle = \"\"\n[accounts]\nsign_up = \"\"");
    assert_eq!(errors.lines().count(), 4, "{errors}");
    assert!(
        errors.ends_with("unknown key log.levle in quail.toml line 4; did you mean log.level?"),
        "{errors}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = Path::new("/nonexistent/quail.toml");
    let errors = load(Some(missing), &environment(&[]), &Flags::default()).unwrap_err();
    assert!(
        errors.to_string().starts_with("read the configuration file /nonexistent/quail.toml: No such file")
    );
    assert!(errors.hint().contains("--config"));
}

#[test]
fn without_any_place_for_data_the_error_says_what_was_looked_for() {
    let errors = load(None, &Variables::new(), &Flags::default()).unwrap_err();
    assert!(matches!(errors.errors[..], [ConfigError::NoDataDirectory]));
    assert!(errors.to_string().contains("STATE_DIRECTORY") && errors.hint().contains("--data"));
}

#[test]
fn unknown_keys_do_not_stop_and_name_the_nearest() {
    let toml = "prot = 1\n[server]\nlisen = \"x\"\n[metrics]\nport = 1\n[log]\nsign_up = [1]";
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        unknown(toml, &[]),
        [
            ("log.sign_up".to_owned(), some("accounts.sign_up")),
            ("metrics.port".to_owned(), None),
            ("prot".to_owned(), None),
            ("server.lisen".to_owned(), some("server.listen")),
        ]
    );
    let loaded = load_text("[server]\nlisen = \"x\"", &[], &Flags::default()).unwrap();
    let text = loaded.unknown[0].to_string();
    assert!(text.starts_with("unknown key server.lisen in /"), "{text}");
    assert!(text.ends_with("quail.toml line 2; did you mean server.listen?"), "{text}");
}

#[test]
fn variables_of_other_programs_are_left_alone() {
    let variables = [
        ("QUAIL_DAEMON", "/usr/bin/quaild"),
        ("QUAIL_SERVER_LISTENS", "x"),
        ("QUAIL_LOG_COLOUR_OF_ALL_THINGS", "x"),
        ("QUIAL_SERVER_LISTEN", "x"),
    ];
    assert_eq!(
        unknown("", &variables),
        [
            ("QUAIL_LOG_COLOUR_OF_ALL_THINGS".to_owned(), None),
            ("QUAIL_SERVER_LISTENS".to_owned(), Some("QUAIL_SERVER_LISTEN".to_owned())),
        ]
    );
    let loaded = load(None, &environment(&variables[1..2]), &Flags::default()).unwrap();
    assert_eq!(
        loaded.unknown[0].to_string(),
        "unknown environment variable QUAIL_SERVER_LISTENS; did you mean QUAIL_SERVER_LISTEN?"
    );
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_refused() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    struct Raw;
    impl Environment for Raw {
        fn get(&self, name: &str) -> Option<OsString> {
            (name == "QUAIL_DATA_DIRECTORY").then(|| OsString::from_vec(vec![b'/', 0xff]))
        }
        fn names(&self) -> Vec<String> {
            Vec::new()
        }
    }
    let errors = load(None, &Raw, &Flags::default()).unwrap_err().to_string();
    assert!(errors.contains("data.directory = \"/\u{fffd}\" from the environment variable"), "{errors}");
}

#[test]
fn the_admin_socket_is_where_the_services_runtime_directory_is() {
    let socket = |toml: &str, variables: &[(&str, &str)]| {
        load_text(toml, variables, &Flags::default()).unwrap().config.admin.socket
    };
    let runtime = [("RUNTIME_DIRECTORY", "/run/quail:/run/other"), ("STATE_DIRECTORY", "/var/lib/quail")];
    assert_eq!(socket("", &runtime), Path::new("/run/quail/admin.sock"));
    assert_eq!(socket("", &runtime[1..]), Path::new("/var/lib/quail/admin.sock"));
    assert_eq!(socket("[admin]\nsocket = \"/tmp/a\"", &runtime), Path::new("/tmp/a"));
    assert_eq!(socket("", &[("QUAIL_ADMIN_SOCKET", "/tmp/b")]), Path::new("/tmp/b"));
}
