//! The `stack` records of `--json`.

use crate::{Ended, Record};

#[derive(Clone, Debug)]
pub struct Stack {
    pub pid: u32,
    pub tid: u32,
    pub comm: String,
    pub state: String,
    pub usecs: f64,
    pub count: u64,
    pub max_usecs: f64,
    /// Innermost first.
    pub kernel: Vec<String>,
    pub user: Vec<String>,
    pub still_blocked: bool,
    pub preempted: bool,
}

impl Stack {
    #[track_caller]
    fn from(record: &Record) -> Stack {
        let number =
            |name: &str| record.get(name).as_u64().unwrap_or_else(|| panic!("{name}: {}", record.line()));
        let flag =
            |name: &str| record.get(name).as_bool().unwrap_or_else(|| panic!("{name}: {}", record.line()));
        let frames = |name: &str| -> Vec<String> {
            let list = record.get(name).as_array().unwrap_or_else(|| panic!("{name}: {}", record.line()));
            list.iter().map(|frame| frame.as_str().expect("a frame is text").to_owned()).collect()
        };
        let stack = Stack {
            pid: number("pid") as u32,
            tid: number("tid") as u32,
            comm: record.str("comm").to_owned(),
            state: record.str("state").to_owned(),
            usecs: record.num("usecs"),
            count: number("count"),
            max_usecs: record.num("max_usecs"),
            kernel: frames("kernel"),
            user: frames("user"),
            still_blocked: flag("still_blocked"),
            preempted: flag("preempted"),
        };
        let line = record.line();
        assert!(stack.count > 0, "{line}");
        // Pooled waits have the time that was drawn for them; the others are as long as they are.
        assert!(stack.max_usecs < 100.0 || stack.max_usecs <= stack.usecs + 0.2, "{line}");
        stack
    }

    /// A function of the program waits in it.
    #[must_use]
    pub fn is_in(&self, function: &str) -> bool {
        self.user.iter().any(|frame| frame == function)
    }
}

/// All of them.
#[must_use]
#[track_caller]
pub fn stacks(ended: &Ended) -> Vec<Stack> {
    let records = ended.records();
    records.iter().filter(|record| record.str("type") == "stack").map(Stack::from).collect()
}

#[must_use]
pub fn usecs<'a>(stacks: impl IntoIterator<Item = &'a Stack>) -> f64 {
    stacks.into_iter().map(|stack| stack.usecs).sum()
}
