//! Proves by the dependency graph what the manifests only suggest.
//!
//! The core does no IO because nothing that could do IO is anywhere below it; there is one cryptographic provider
//! because the other is nowhere in the graph. Cargo.lock may name more than is ever built, so the resolved graph is
//! asked.
//!
//! Invariant: a graph that cannot be read, or is empty, is a failure and not a proof.

use anyhow::{Result, bail};

use super::process::Runner;

/// What would let the core wait, talk or remember by itself.
const NOT_IN_CORE: &[&str] = &["tokio", "quinn", "sled", "redis", "sqlx", "mio", "socket2"];

/// What nothing that is built may contain.
const NOT_ANYWHERE: &[&str] = &["ring"];

/// Checks both graphs.
pub(crate) fn run(runner: &mut Runner) -> Result<()> {
    let graph = |which: &[&str]| {
        let args = [&["tree"], which, &["-e", "normal", "--prefix", "none", "--locked"]].concat();
        runner.output(runner.cargo(&args))
    };
    check("quail-core", &graph(&["-p", "quail-core"])?, NOT_IN_CORE)?;
    check("the workspace", &graph(&["--workspace"])?, NOT_ANYWHERE)
}

fn check(root: &str, graph: &str, banned: &[&str]) -> Result<()> {
    let packages: Vec<&str> = graph.lines().filter_map(|line| line.split_whitespace().next()).collect();
    if packages.is_empty() {
        bail!("the graph of {root} is empty");
    }
    let found: Vec<&str> = banned.iter().copied().filter(|name| packages.contains(name)).collect();
    match found.first() {
        None => Ok(()),
        Some(first) => {
            bail!("{root} depends on {}: see `cargo tree --workspace -e normal -i {first}`", found.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAPH: &str =
        "quail-core v0.1.0 (/somewhere)\nbytes v1.12.1\nquail-protocol v0.1.0 (/somewhere)\n\n";

    #[test]
    fn a_graph_without_them_passes() {
        check("quail-core", GRAPH, NOT_IN_CORE).unwrap();
        check("quail-core", &format!("{GRAPH}tokio-like v1.0.0\n"), NOT_IN_CORE).unwrap();
    }

    #[test]
    fn a_graph_with_one_of_them_does_not() {
        let error = check("quail-core", &format!("{GRAPH}tokio v1.0.0 (*)\n"), NOT_IN_CORE).unwrap_err();
        assert!(error.to_string().contains("quail-core depends on tokio"), "{error}");
    }

    #[test]
    fn an_empty_graph_proves_nothing() {
        assert!(check("quail-core", "", NOT_IN_CORE).is_err());
    }
}
