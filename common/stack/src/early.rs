//! User stacks that end before the thread's entry, for want of frame pointers.

use std::collections::HashMap;

use crate::frame::Frame;
use crate::frame::Named;

/// Where threads begin, in glibc, musl, bionic and Go; and `main`, which glibc's start code calls without
/// keeping the chain up.
const ENTRIES: &[&str] = &[
    "main",
    "_start",
    "_start_c",
    "_dl_start",
    "_dl_start_user",
    "start_thread",
    "__start_thread",
    "__pthread_start",
    "clone",
    "clone3",
    "__clone",
    "__clone3",
    "libc_start_main_stage2",
    "runtime.mstart",
    "runtime.rt0_go",
];
const ENTRY_STARTS: &[&str] = &["__libc_start", "__libc_init", "runtime.goexit", "_rt0_"];

/// How far from the outermost frame an entry may be: what follows it is whatever lay on the stack.
const NEAR: usize = 4;

/// What is in the C library's files, by their names: a thread's start code has no symbol in them once they
/// are stripped.
const C_LIBRARY: &[&str] = &["libc.so", "libc-2.", "libpthread", "ld-linux", "ld-musl", "libc.musl"];

/// Did the walk over a user stack end before the thread's entry? Then the binary in which it did, which has
/// no frame pointers there. Frames are innermost first; a stack that was cut at the depth limit is not this
/// function's matter.
#[must_use]
pub fn ended_early(frames: &[Named]) -> Option<&str> {
    let last = frames.last()?;
    let mut near = frames.iter().rev().take(NEAR);
    if near.any(|frame| frame.name.as_deref().is_some_and(is_entry)) {
        return None;
    }
    let elsewhere = || frames.iter().any(|frame| frame.module.is_some() && !in_c_library(frame));
    if last.name.is_none() && in_c_library(last) && elsewhere() {
        return None; // out of the program, into the library's start code
    }
    // What follows the last true frame is no code: a register that held something else.
    let last = frames.iter().rev().find_map(|frame| frame.binary());
    Some(last.unwrap_or("[unknown]"))
}

fn is_entry(name: &str) -> bool {
    let name = name.split('@').next().unwrap_or(name);
    ENTRIES.contains(&name) || ENTRY_STARTS.iter().any(|start| name.starts_with(start))
}

fn in_c_library(frame: &Frame) -> bool {
    frame.binary().is_some_and(|name| C_LIBRARY.iter().any(|start| name.starts_with(start)))
}

/// Counts them over a run.
#[derive(Debug, Default)]
pub struct Early {
    stacks: u64,
    early: u64,
    binaries: HashMap<String, u64>,
}

/// Binaries named in the line.
const NAMED: usize = 3;

impl Early {
    /// A user stack; none without frames, and none that was cut at the depth limit.
    pub fn add(&mut self, frames: &[Named]) {
        if frames.is_empty() {
            return;
        }
        self.stacks += 1;
        if let Some(binary) = ended_early(frames) {
            self.early += 1;
            *self.binaries.entry(binary.to_owned()).or_default() += 1;
        }
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.early
    }

    /// How many, where, and what to do about it; none if all were whole.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        if self.early == 0 {
            return None;
        }
        let mut binaries: Vec<(&String, &u64)> = self.binaries.iter().collect();
        binaries.sort_by(|(a, m), (b, n)| n.cmp(m).then(a.cmp(b)));
        let shown = binaries.iter().take(NAMED).map(|(name, count)| format!("{name} ({count})"));
        let mut shown: Vec<String> = shown.collect();
        if binaries.len() > NAMED {
            shown.push(format!("{} more", binaries.len() - NAMED));
        }
        Some(format!(
            "{} of {} user stacks ended early, in {}: no frame pointers there; build with \
             -fno-omit-frame-pointer (Rust: -C force-frame-pointers=yes), or take a distribution that does",
            self.early,
            self.stacks,
            common::text::escape(shown.join(", ").as_bytes()),
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;
    use crate::frame::Space;

    /// `name@module`, `@module` or nothing, innermost first.
    fn stack(frames: &[&str]) -> Vec<Named> {
        let frame = |text: &&str| {
            let (name, module) = text.split_once('@').unwrap_or((text, ""));
            Rc::new(Frame {
                name: (!name.is_empty()).then(|| name.to_owned()),
                module: (!module.is_empty()).then(|| Arc::from(module)),
                ..Frame::unknown(Space::User)
            })
        };
        frames.iter().map(frame).collect()
    }

    #[test]
    fn a_stack_that_reaches_the_entry_is_whole() {
        let whole: [&[&str]; 6] = [
            &["clock_nanosleep@libc.so.6", "work@app", "main@app", "@libc.so.6", "_start@app"],
            &["read@libc.so.6", "start_thread@libc.so.6", "clone3@libc.so.6"],
            // Stripped: __libc_start_call_main and start_thread are local symbols.
            &["clock_nanosleep@/lib/libc.so.6", "work@app", "@/lib/libc.so.6"],
            &["runtime.futex@app", "runtime.goexit.abi0@app"],
            // Beyond main the chain is whatever lay there.
            &["work@app", "main@app", "@libc.so.6", ""],
            &[],
        ];
        for frames in whole {
            assert_eq!(ended_early(&stack(frames)), None, "{frames:?}");
        }
    }

    #[test]
    fn a_stack_that_does_not_says_where_it_ended() {
        assert_eq!(ended_early(&stack(&["poll@/lib/libc.so.6"])), Some("libc.so.6"));
        assert_eq!(ended_early(&stack(&["poll@/lib/libc.so.6", "@/lib/libc.so.6"])), Some("libc.so.6"));
        assert_eq!(ended_early(&stack(&["poll@/lib/libc.so.6", "loop@/opt/app", ""])), Some("app"));
        assert_eq!(ended_early(&stack(&[""])), Some("[unknown]"));
    }

    #[test]
    fn the_line_names_the_worst_first() {
        let mut early = Early::default();
        assert_eq!(early.line(), None);
        for frames in
            [&["poll@libc.so.6"][..], &["f@b"], &["f@a"], &["poll@libc.so.6"], &["f@c"], &["main@a"]]
        {
            early.add(&stack(frames));
        }
        early.add(&[]);
        let line = early.line().unwrap();
        assert!(
            line.starts_with("5 of 6 user stacks ended early, in libc.so.6 (2), a (1), b (1), 1 more: "),
            "{line}"
        );
    }
}
