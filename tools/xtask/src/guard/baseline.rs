//! Costs of paths, as a file and as a table, and what counts as dearer.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// How much dearer something may be before the check fails. What is below is the compiler's or valgrind's doing.
const TOLERANCE: f64 = 1.10;

/// What one iteration costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cost {
    /// Instructions, on all threads.
    pub(crate) instructions: u64,
    /// Calls of the allocator for memory.
    pub(crate) allocations: f64,
    /// Bytes it was asked for.
    pub(crate) bytes: f64,
}

/// The costs of all paths, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Baseline(pub(crate) BTreeMap<String, Cost>);

impl Baseline {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let table: toml::Table = text.parse()?;
        let cost = |(name, value): (String, toml::Value)| {
            let number = |key: &str| {
                let number = value
                    .get(key)
                    .and_then(|value| value.as_float().or(value.as_integer().map(|n| n as f64)));
                number.with_context(|| format!("{name} has no number {key}"))
            };
            let instructions = number("instructions")? as u64;
            let (allocations, bytes) = (number("allocations")?, number("bytes")?);
            Ok((name.clone(), Cost { instructions, allocations, bytes }))
        };
        table.into_iter().map(cost).collect::<Result<_>>().map(Self)
    }

    pub(crate) fn to_text(&self) -> String {
        let mut text = String::from(
            "# What one iteration of each path costs: instructions under valgrind, calls of the allocator and bytes asked of it.\n\
             # Written by `cargo xtask bench-guard --bless`; a change of it says in its commit why.\n",
        );
        for (name, Cost { instructions, allocations, bytes }) in &self.0 {
            text.push_str(&format!(
                "\n[{name}]\ninstructions = {instructions}\nallocations = {allocations:.2}\nbytes = {bytes:.0}\n"
            ));
        }
        text
    }

    /// Returns a line for each path.
    pub(crate) fn table(&self, baseline: &Self) -> String {
        let mut table = format!(
            "{:<8} {:>12} {:>8} {:>12} {:>8}\n",
            "path", "instructions", "change", "allocations", "bytes"
        );
        for (name, cost) in &self.0 {
            let before = baseline.0.get(name).map_or(cost.instructions, |before| before.instructions);
            let change = 100.0 * (cost.instructions as f64 / before as f64 - 1.0);
            table.push_str(&format!(
                "{name:<8} {:>12} {change:>7.1}% {:>12.2} {:>8.0}\n",
                cost.instructions, cost.allocations, cost.bytes
            ));
        }
        table
    }

    /// Returns a line for each thing that is dearer than it was, or that was not counted before.
    pub(crate) fn dearer_than(&self, baseline: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, now) in &self.0 {
            let Some(before) = baseline.0.get(name) else {
                lines.push(format!("{name} is not in the baseline"));
                continue;
            };
            let counts = [
                ("instructions", now.instructions as f64, before.instructions as f64),
                ("allocations", now.allocations, before.allocations),
                ("bytes allocated", now.bytes, before.bytes),
            ];
            for (what, now, before) in counts {
                if now > before * TOLERANCE {
                    lines.push(format!("{name}: {now:.1} {what}, {before:.1} before"));
                }
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(instructions: u64, allocations: f64) -> Baseline {
        let cost = Cost { instructions, allocations, bytes: 100.0 };
        Baseline([("decide".to_owned(), cost)].into())
    }

    #[test]
    fn a_baseline_is_read_as_it_was_written() {
        let baseline = of(1234, 2.5);
        assert_eq!(Baseline::parse(&baseline.to_text()).unwrap(), baseline);
        assert!(Baseline::parse("[decide]\ninstructions = 3\n").is_err());
    }

    #[test]
    fn a_tenth_more_is_let_pass_and_more_than_that_is_not() {
        let baseline = of(1000, 2.0);
        assert_eq!(of(1100, 2.0).dearer_than(&baseline), Vec::<String>::new());
        assert_eq!(of(10, 1.0).dearer_than(&baseline), Vec::<String>::new());
        assert_eq!(of(1101, 2.0).dearer_than(&baseline), ["decide: 1101.0 instructions, 1000.0 before"]);
        assert_eq!(of(1000, 3.0).dearer_than(&baseline), ["decide: 3.0 allocations, 2.0 before"]);
        assert_eq!(of(1, 1.0).dearer_than(&Baseline::default()), ["decide is not in the baseline"]);
    }
}
