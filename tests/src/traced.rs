//! Counted work under a tool, from the one's gate to the other's last line.

use std::ffi::OsStr;

use crate::{Ended, Record, Tool, Work, env};

/// A workload that has run, and what the tool that watched it has said.
pub struct Traced {
    pub pid: u32,
    /// What the workload said after its process id.
    pub said: Vec<String>,
    pub ended: Ended,
}

impl Traced {
    /// The workload's own rows.
    #[must_use]
    #[track_caller]
    pub fn rows(&self) -> Vec<Record> {
        self.ended.rows().into_iter().filter(|row| row.pid() == Some(self.pid.into())).collect()
    }

    /// The same, which have to be `count`, but for those that the tool says it missed where that cannot be
    /// helped: see [`skipped`].
    #[must_use]
    #[track_caller]
    pub fn all_rows(&self, count: u64) -> Vec<Record> {
        let rows = self.rows();
        let (seen, end) = (rows.len() as u64, self.ended.end());
        let skipped = skipped(&self.ended);
        assert!(seen <= count && seen + skipped >= count, "{seen} of {count}\n{}", self.ended.story());
        let others = end.losses().into_iter().filter(|(why, _)| skipped == 0 || why != "skipped");
        assert_eq!(others.count(), 0, "{}", self.ended.story());
        rows
    }

    /// Their paths.
    #[must_use]
    #[track_caller]
    pub fn paths(&self) -> Vec<String> {
        self.rows().iter().map(|row| row.str("path").to_owned()).collect()
    }
}

/// How many calls may be missing. Since 7.0 programs at raw tracepoints can be preempted, and what comes meanwhile
/// is skipped and counted (`Kernel::preempts_tracepoints`). opensnoop takes classic tracepoints there, if it is not
/// told otherwise; where it does not, none may.
#[must_use]
#[track_caller]
pub fn skipped(ended: &Ended) -> u64 {
    let end = ended.end();
    if end.0.get("hooks")["system calls"] == "tracepoint" {
        return 0;
    }
    let own_choice = Tool::at(&ended.tool, env::program(&ended.tool).as_os_str()).arg("--check").run().out();
    let classic = |line: &str| line.starts_with("  tracepoint ") && line.contains("chosen");
    if own_choice.lines().any(classic) { end.lost("skipped") } else { 0 }
}

/// Runs the work under a tool that looks at nothing else (`-p`).
///
/// # Errors
/// This machine cannot do the work; why.
#[track_caller]
pub fn trace(tool: &str, args: &[&str], work: Work) -> Result<Traced, String> {
    let work = work.start()?;
    let pid = work.pid();
    let tool = Tool::new(tool).args(args).args(["-p", &pid.to_string()]).start();
    let said = work.run()?;
    Ok(Traced { pid, said, ended: tool.stop().expect(0) })
}

/// Runs several pieces of work one after the other under a tool that looks at everything.
///
/// # Errors
/// This machine cannot do one of them; why.
#[track_caller]
pub fn trace_all<A: AsRef<OsStr>>(
    tool: &str,
    args: &[A],
    work: impl IntoIterator<Item = Work>,
) -> Result<(Vec<u32>, Ended), String> {
    let work = work.into_iter().map(Work::start).collect::<Result<Vec<_>, _>>()?;
    let tool = Tool::new(tool).args(args).start();
    let mut pids = Vec::new();
    for work in work {
        pids.push(work.pid());
        drop(work.run()?);
    }
    Ok((pids, tool.stop().expect(0)))
}
