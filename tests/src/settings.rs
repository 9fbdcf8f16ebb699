//! Settings that change what the verifier sees. A setting is a constant to it: what one of them turns off is
//! never looked at, so a tool that loads with all of them may not load with some.

use std::collections::BTreeSet;

use crate::{Cgroup, Tool};

/// Has the kernel take the tool's programs (`--check`) in every mode with the filters off and on, and with
/// every single filter in the first mode and the last, which had better be none and all. `modes` and `filters`
/// (those beside the ones that all tools have) are flags separated by spaces.
#[track_caller]
pub fn all_are_taken(tool: &str, filters: &[&str], modes: &[&str]) {
    let group = Cgroup::new().ok();
    let mut on = vec!["-p 1".to_owned(), "-n init".to_owned()];
    match &group {
        Some(group) => on.push(format!("--cgroup {}", group.dir().display())),
        None => eprintln!("{tool}: no cgroup v2 here, so not tried: --cgroup"),
    }
    let more = ["-t 1"].iter().chain(filters).chain(&["-- true"]).map(|filter| (*filter).to_owned());
    let single: Vec<String> = on.iter().cloned().chain(more).collect();
    let on = on.join(" ");

    let mut calls = BTreeSet::new();
    for mode in modes {
        calls.extend([format!("--check {mode}"), format!("--check {mode} {on}")]);
    }
    for mode in modes.first().into_iter().chain(modes.last()) {
        calls.extend(single.iter().map(|filter| format!("--check {mode} {filter}")));
    }
    let ended = calls.iter().map(|call| Tool::new(tool).words(call).run());
    let refused: Vec<String> = ended.filter(|e| !e.status.success()).map(|e| e.story()).collect();
    eprintln!("{tool}: {} settings", calls.len());
    assert!(refused.is_empty(), "{} refused\n{}", refused.len(), refused.join("\n"));
}
