//! The layers of the configuration as texts, each with the place where it stands.
//!
//! Invariants: a later layer replaces what an earlier one said about a key and nothing else; reading goes on after a
//! mistake, so that one check reports them all.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::keys::{self, KEYS, Key};
use super::nearest::nearest;
use super::{ConfigError, Environment, Flags, Setting, storage};

/// Where a setting stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the embedded configuration.
    Default,
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// In the environment.
    Environment {
        /// The variable.
        variable: String,
    },
    /// On the command line.
    Flag {
        /// The flag, with its dashes.
        flag: &'static str,
    },
}

/// A key that no setting has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKey {
    /// The key with its section, or the environment variable.
    pub name: String,
    /// Where it stands.
    pub source: Source,
    /// What was probably meant, in the same form.
    pub meant: Option<String>,
}

/// The text of a setting.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) source: Source,
}

/// What the layers say so far.
#[derive(Debug, Default)]
pub(super) struct Layers {
    texts: BTreeMap<&'static str, Text>,
    pub(super) unknown: Vec<UnknownKey>,
    pub(super) errors: Vec<ConfigError>,
}

impl Layers {
    /// Adds the embedded configuration.
    pub(super) fn add_defaults(&mut self, toml: &str) {
        self.add_toml(toml, &|_| Source::Default);
    }

    /// Adds a file.
    pub(super) fn add_file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(toml) => {
                let line = |at: usize| 1 + toml.bytes().take(at).filter(|byte| *byte == b'\n').count();
                self.add_toml(&toml, &|at| Source::File { path: path.to_owned(), line: line(at) });
            }
            Err(source) => self.errors.push(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    /// Adds the environment. Variables of programs around the daemon begin with `QUAIL_` too, so an unknown one is
    /// mentioned only if it names a section or resembles a setting.
    pub(super) fn add_environment(&mut self, environment: &dyn Environment) {
        let variables: Vec<String> = KEYS.iter().map(|key| key.variable()).collect();
        for (key, variable) in KEYS.iter().zip(&variables) {
            if let Some(value) = environment.get(variable) {
                let source = Source::Environment { variable: variable.clone() };
                match value.into_string() {
                    Ok(text) => self.set(key, text, source),
                    Err(value) => self.errors.push(ConfigError::Value {
                        key: key.path,
                        value: value.to_string_lossy().into_owned(),
                        place: source,
                        wants: key.wants,
                    }),
                }
            }
        }
        let prefixes: Vec<String> =
            keys::sections().iter().map(|section| keys::variable(section) + "_").collect();
        for name in environment.names() {
            if !name.starts_with("QUAIL_") || variables.contains(&name) {
                continue;
            }
            let meant = nearest(&name, variables.iter().map(String::as_str)).map(str::to_owned);
            if meant.is_some() || prefixes.iter().any(|prefix| name.starts_with(prefix.as_str())) {
                let source = Source::Environment { variable: name.clone() };
                self.unknown.push(UnknownKey { name, source, meant });
            }
        }
    }

    /// Adds the command line.
    pub(super) fn add_flags(&mut self, flags: &Flags) {
        let given = [
            (&keys::LISTEN, "--listen", &flags.listen),
            (&keys::DATA_DIRECTORY, "--data", &flags.data),
            (&keys::LOG_LEVEL, "--log-level", &flags.log_level),
        ];
        for (key, flag, text) in given {
            if let Some(text) = text {
                self.set(key, text.clone(), Source::Flag { flag });
            }
        }
    }

    /// Parses the text of a setting and notes an error if `parse` refuses it.
    pub(super) fn parse<T>(&mut self, key: &Key, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let Some(Text { text, source }) = self.text(key) else {
            self.errors.push(ConfigError::Defaults { key: key.path });
            return None;
        };
        let parsed = parse(text);
        if parsed.is_none() {
            // Nobody writes a password there on purpose, but an error must not spread one.
            let value = if key.path == keys::STORAGE_URL.path { storage::redact(text) } else { text.clone() };
            let place = source.clone();
            self.errors.push(ConfigError::Value { key: key.path, value, place, wants: key.wants });
        }
        parsed
    }

    /// Returns the text of a setting.
    pub(super) fn text(&self, key: &Key) -> Option<&Text> {
        self.texts.get(key.path)
    }

    /// Returns every setting.
    pub(super) fn settings(&self) -> Vec<Setting> {
        let setting = |key: &&Key| {
            let Text { text, source } = self.text(key)?;
            Some(Setting { key: key.path, value: text.clone(), source: source.clone() })
        };
        KEYS.iter().filter_map(setting).collect()
    }

    fn add_toml(&mut self, toml: &str, source: &dyn Fn(usize) -> Source) {
        let start = |span: Range<usize>| source(span.start);
        let table = match DeTable::parse(toml) {
            Ok(table) => table,
            Err(error) => {
                let message = error.message().trim().replace('\n', ", ");
                self.errors.push(ConfigError::Syntax { place: start(error.span().unwrap_or(0..0)), message });
                return;
            }
        };
        for (section, value) in table.get_ref() {
            let name: &str = section.get_ref();
            let Some(entries) = value.get_ref().as_table() else {
                self.unknown(name.to_owned(), start(section.span()));
                continue;
            };
            for (entry, value) in entries {
                let path = format!("{name}.{}", entry.get_ref());
                match keys::find(&path) {
                    Some(key) => self.add_value(key, value.get_ref(), start(entry.span())),
                    None => self.unknown(path, start(entry.span())),
                }
            }
        }
    }

    fn add_value(&mut self, key: &'static Key, value: &DeValue<'_>, place: Source) {
        match value.as_str() {
            Some(text) => self.set(key, text.to_owned(), place),
            None => {
                let found = value.type_str();
                self.errors.push(ConfigError::Type { key: key.path, place, found, wants: key.wants });
            }
        }
    }

    fn unknown(&mut self, name: String, source: Source) {
        let meant = nearest(&name, KEYS.iter().map(|key| key.path)).map(str::to_owned);
        self.unknown.push(UnknownKey { name, source, meant });
    }

    fn set(&mut self, key: &Key, text: String, source: Source) {
        self.texts.insert(key.path, Text { text, source });
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the built-in defaults"),
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
            Self::Environment { variable } => write!(f, "the environment variable {variable}"),
            Self::Flag { flag } => write!(f, "the flag {flag}"),
        }
    }
}

impl fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            // The variable is the name.
            Source::Environment { variable } => write!(f, "unknown environment variable {variable}")?,
            source => write!(f, "unknown key {} in {source}", self.name)?,
        }
        match &self.meant {
            Some(meant) => write!(f, "; did you mean {meant}?"),
            None => Ok(()),
        }
    }
}
