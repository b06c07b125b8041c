//! The environment behind a trait, so that tests bring their own and need not change the one of the process.

use std::env;
use std::ffi::OsString;

/// Environment variables.
pub trait Environment {
    /// Returns the value of a variable.
    fn get(&self, name: &str) -> Option<OsString>;

    /// Returns the names of all variables; those that are not UTF-8 belong to others and are left out.
    fn names(&self) -> Vec<String>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug)]
pub struct SystemEnvironment;

impl Environment for SystemEnvironment {
    fn get(&self, name: &str) -> Option<OsString> {
        env::var_os(name)
    }

    fn names(&self) -> Vec<String> {
        env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }
}

#[cfg(test)]
impl Environment for std::collections::BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<OsString> {
        Self::get(self, name).map(Into::into)
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}
