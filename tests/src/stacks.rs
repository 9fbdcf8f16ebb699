//! The `stack` records of `--json`, checked for what holds of every one.

use serde_json::Value;

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
    /// Of `usecs`: drawn from pools of short waits.
    pub pooled_usecs: f64,
    /// Innermost first.
    pub kernel: Vec<String>,
    pub user: Vec<String>,
    pub still_blocked: bool,
    pub preempted: bool,
    pub waker: Option<Waker>,
}

#[derive(Clone, Debug)]
pub struct Waker {
    pub pid: u32,
    pub tid: u32,
    pub comm: String,
    pub kernel: Vec<String>,
    pub user: Vec<String>,
}

impl Stack {
    #[track_caller]
    fn from(record: &Record) -> Stack {
        let number =
            |name: &str| record.get(name).as_u64().unwrap_or_else(|| panic!("{name}: {}", record.line()));
        let flag =
            |name: &str| record.get(name).as_bool().unwrap_or_else(|| panic!("{name}: {}", record.line()));
        let waker = record.0.get("waker").map(|waker| {
            let waker = Record(waker.as_object().expect("waker is an object").clone());
            Waker {
                pid: waker.int("pid") as u32,
                tid: waker.int("tid") as u32,
                comm: waker.str("comm").to_owned(),
                kernel: frames(&waker, "kernel"),
                user: frames(&waker, "user"),
            }
        });
        let stack = Stack {
            pid: number("pid") as u32,
            tid: number("tid") as u32,
            comm: record.str("comm").to_owned(),
            state: record.str("state").to_owned(),
            usecs: record.num("usecs"),
            count: number("count"),
            max_usecs: record.num("max_usecs"),
            pooled_usecs: record.num("pooled_usecs"),
            kernel: frames(record, "kernel"),
            user: frames(record, "user"),
            still_blocked: flag("still_blocked"),
            preempted: flag("preempted"),
            waker,
        };
        let line = record.line();
        assert!(stack.count > 0 && stack.pooled_usecs >= 0.0, "{line}");
        // To the nearest nanosecond each.
        let exact = stack.usecs - stack.pooled_usecs;
        assert!(exact > -0.01 && exact <= stack.count as f64 * stack.max_usecs + 0.01, "{line}");
        assert!(exact < 0.01 || stack.max_usecs > 0.0, "{line}");
        assert!(!stack.preempted || stack.state == "R", "{line}");
        stack
    }

    /// A function of the program waits in it.
    #[must_use]
    pub fn is_in(&self, function: &str) -> bool {
        self.user.iter().any(|frame| frame == function)
    }

    /// `inner` is called by `outer`: they are neighbours, the inner one first.
    #[track_caller]
    pub fn assert_called(&self, inner: &str, outer: &str) {
        let at = self.user.iter().position(|frame| frame == inner);
        let at = at.unwrap_or_else(|| panic!("no {inner} in {self:?}"));
        assert_eq!(self.user.get(at + 1).map(String::as_str), Some(outer), "{self:?}");
    }

    /// Or it was not seen, which some hypervisors bring about.
    #[must_use]
    pub fn kernel_may_have(&self, part: &str) -> bool {
        self.kernel_has(part) || self.kernel == ["[kernel stack not seen]"]
    }

    #[must_use]
    pub fn kernel_has(&self, part: &str) -> bool {
        self.kernel.iter().any(|frame| frame.contains(part))
    }
}

#[track_caller]
fn frames(record: &Record, name: &str) -> Vec<String> {
    let frame = |frame: &Value| {
        let frame = frame.as_str().expect("a frame is text").to_owned();
        assert!(!frame.is_empty() && !frame.starts_with("0x"), "never a bare address: {}", record.line());
        frame
    };
    let list = record.get(name).as_array().unwrap_or_else(|| panic!("{name}: {}", record.line()));
    list.iter().map(frame).collect()
}

/// All of them; not what `--top` has left out.
#[must_use]
#[track_caller]
pub fn stacks(ended: &Ended) -> Vec<Stack> {
    let is_stack = |record: &&Record| record.str("type") == "stack" && !record.0.contains_key("others");
    ended.records().iter().filter(is_stack).map(Stack::from).collect()
}

#[must_use]
pub fn usecs<'a>(stacks: impl IntoIterator<Item = &'a Stack>) -> f64 {
    stacks.into_iter().map(|stack| stack.usecs).sum()
}

/// Those in which a function of the program waits.
#[must_use]
pub fn within<'a>(stacks: &'a [Stack], function: &str) -> Vec<&'a Stack> {
    stacks.iter().filter(|stack| stack.is_in(function)).collect()
}

#[must_use]
pub fn waits<'a>(stacks: impl IntoIterator<Item = &'a Stack>) -> u64 {
    stacks.into_iter().map(|stack| stack.count).sum()
}
