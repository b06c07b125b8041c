//! How many files this process may have open: many clients need many.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::BenchError;

/// Open files besides those of the clients: the program's own, the runtime's, the daemon's pipes.
const OTHER_FILES: u64 = 64;

/// Makes sure that so many more files can be opened; raises the soft limit as far as it must.
pub(super) fn allow(files: usize) -> Result<(), BenchError> {
    let needed = files as u64 + OTHER_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // No limit is given as none.
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let refused = || BenchError::OpenFiles { needed, allowed: maximum.or(current).unwrap_or_default() };
    if maximum.is_some_and(|maximum| maximum < needed) {
        return Err(refused());
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_system_allows_is_refused_with_both_numbers() {
        assert!(allow(8).is_ok());
        if getrlimit(Resource::Nofile).maximum.is_some() {
            let error = allow(usize::MAX / 2).unwrap_err();
            assert!(
                matches!(error, BenchError::OpenFiles { needed, allowed } if needed > allowed),
                "{error}"
            );
        }
    }
}
