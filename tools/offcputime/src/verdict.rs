//! What is to be said of a thread that programs have left in their table.

use common::proc::Schedstat;

use crate::bpf::types::offcpu_task;
use crate::times::Times;

/// What came of a wait that no program saw the end of.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is over, or all of it was counted.
    Over,
    /// It lasts, so much of it in this run.
    Still(u64),
    /// The thread has run since: its switch-in was not seen. `once`: it was one wait.
    Recovered {
        ns: u64,
        whole: u64,
        once: bool,
    },
    Unmatched,
}

/// As `sweep_end()` and `recover()` of the BPF programs have it. `account`: none if the thread has gone.
pub fn verdict(task: &offcpu_task, account: Option<Schedstat>, times: Times) -> Verdict {
    if task.at == 0 || task.at >= times.until {
        return Verdict::Over;
    }
    let wait = times.until.saturating_sub(task.at.max(times.began));
    let Some(account) = account else { return Verdict::Unmatched };
    let runs = (account.slices as u32).wrapping_sub(task.arrivals);
    let ran = account.run_ns.saturating_sub(task.exec_ns);
    match () {
        () if wait == 0 => Verdict::Over,
        () if runs == 0 => Verdict::Still(wait),
        () if wait <= ran => Verdict::Unmatched,
        () => {
            let whole = (times.until - task.left).saturating_sub(ran);
            Verdict::Recovered { ns: wait - ran, whole, once: runs == 1 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_judged_by_the_schedulers_account() {
        let times = Times { began: 1000, until: 5000, forgot: 0 };
        let judge = |at, slices, run_ns| {
            let task = offcpu_task { at, left: at, exec_ns: 70, arrivals: 3, ..offcpu_task::default() };
            verdict(&task, Some(Schedstat { run_ns, wait_ns: 0, slices }), times)
        };
        assert_eq!(judge(0, 3, 70), Verdict::Over);
        assert_eq!(judge(5000, 3, 70), Verdict::Over, "counted up to the end");
        assert_eq!(judge(2000, 3, 70), Verdict::Still(3000));
        assert_eq!(judge(500, 3, 70), Verdict::Still(4000), "from the run's begin on");
        assert_eq!(judge(2000, (1 << 32) + 3, 70), Verdict::Still(3000), "programs have 32 bits");
        assert_eq!(judge(2000, 4, 100), Verdict::Recovered { ns: 2970, whole: 2970, once: true });
        assert_eq!(judge(500, 5, 100), Verdict::Recovered { ns: 3970, whole: 4470, once: false });
        assert_eq!(judge(2000, 4, 3070), Verdict::Unmatched, "it has run all the time");
        let gone = offcpu_task { at: 2000, ..offcpu_task::default() };
        assert_eq!(verdict(&gone, None, times), Verdict::Unmatched);
    }
}
