//! Every combination of settings that changes what the verifier sees. A setting is a constant to it: what one
//! of them turns off is never looked at, so a tool that loads with all of them may not load with some.

use crate::{Cgroup, Tool};

/// Has the kernel take the tool's programs (`--check`) under every filter that all tools have and every filter
/// in `filters`, each together with every one of `modes`. Both are flags separated by spaces, or none.
#[track_caller]
pub fn all_are_taken(tool: &str, filters: &[&str], modes: &[&str]) {
    let group = Cgroup::new().ok();
    let mut all: Vec<String> = ["", "-p 1", "-t 1", "-n init", "-p 1 -n init"].map(str::to_owned).to_vec();
    all.extend(filters.iter().map(|filter| (*filter).to_owned()));
    match &group {
        Some(group) => all.push(format!("--cgroup {}", group.dir().display())),
        None => eprintln!("{tool}: no cgroup v2 here, so not tried: --cgroup"),
    }
    // Last, because of what comes behind its `--`.
    all.push("-- true".to_owned());
    let mut refused = Vec::new();
    for mode in modes {
        for filter in &all {
            let ended = Tool::new(tool).words(&format!("--check {mode} {filter}")).run();
            if !ended.status.success() {
                refused.push(ended.story());
            }
        }
    }
    eprintln!("{tool}: {} settings", modes.len() * all.len());
    assert!(refused.is_empty(), "{} refused\n{}", refused.len(), refused.join("\n"));
}
