//! What a tool can be asked for, by its own help: so that a test of all tools asks each for what it has.

use crate::{Tool, env};

#[must_use]
#[track_caller]
pub fn of(tool: &str) -> String {
    Tool::new(tool).arg("--help").run().expect(0).silent().out()
}

/// The whole flag, not the beginning of another.
#[must_use]
pub fn has(help: &str, flag: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    help.match_indices(flag).any(|(at, _)| ends(&help[at + flag.len()..]))
}

/// The tools that have a flag; one at least, else the test that asks is worth nothing.
#[must_use]
#[track_caller]
pub fn tools_with(flag: &str) -> Vec<String> {
    let found: Vec<String> = env::tools().into_iter().filter(|tool| has(&of(tool), flag)).collect();
    assert!(!found.is_empty(), "no tool has {flag}");
    found
}

/// `[INTERVAL] [COUNT]`, also of an ordinary run and not only of a summary.
#[must_use]
#[track_caller]
pub fn takes_interval(tool: &str) -> bool {
    let text = of(tool);
    text.contains("[INTERVAL]") && !has(&text, "--summary")
}

/// `-- COMMAND...`
#[must_use]
#[track_caller]
pub fn tools_with_command() -> Vec<String> {
    let found: Vec<String> = env::tools().into_iter().filter(|tool| of(tool).contains("[-- ")).collect();
    assert!(!found.is_empty(), "no tool runs a command");
    found
}
