//! runqlat against the kernel's own account of the same tasks: `/proc/PID/task/TID/schedstat` and the
//! switch counts of `status`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use std::collections::BTreeSet;

    use tracebelt_tests::cpu::{self, Account};
    use tracebelt_tests::{Ended, Histogram, Tool, Work, Workload, env, total};

    /// The kernel's account is by a clock that stands still now and then, ours by one that does not.
    const CLOSE: f64 = 0.07;

    #[track_caller]
    fn assert_close(ours: f64, theirs: f64, what: &str) {
        let off = (ours - theirs).abs() / theirs.max(1.0);
        eprintln!("{what}: ours {ours:.0} us, the kernel's {theirs:.0} us, {:.2}% apart", off * 100.0);
        // Emulated, a switch itself takes a while; what is short is all switch.
        assert!(off < CLOSE || env::is_tcg() && off < 0.25, "{what}: ours {ours}, the kernel's {theirs}");
    }

    /// Two that are always busy and two that nap, on one CPU.
    fn crowd() -> Vec<Workload> {
        let work = ["spin 1.5", "spin 1.5", "nap 211 2000", "nap 97 5000"];
        work.iter().map(|words| Work::new(words).on_cpu(cpu::last()).hold().start().unwrap()).collect()
    }

    fn list(work: &[Workload]) -> String {
        work.iter().map(|w| w.pid().to_string()).collect::<Vec<_>>().join(",")
    }

    /// The accounts of what each did from its gate to its end.
    fn run_all(work: &mut [Workload]) -> Vec<Account> {
        let before: Vec<Account> = work.iter().map(|w| Account::of(w.pid())).collect();
        work.iter_mut().for_each(Workload::go);
        work.iter().for_each(Workload::wait_done);
        work.iter().zip(before).map(|(w, before)| Account::of(w.pid()).since(before)).collect()
    }

    fn sum(accounts: &[Account]) -> Account {
        accounts.iter().copied().fold(Account::default(), Account::plus)
    }

    fn of_pid(hists: &[Histogram], pid: u32) -> Vec<&Histogram> {
        hists.iter().filter(|hist| hist.key.int("pid") == i64::from(pid)).collect()
    }

    /// Nothing but what cannot be matched when a kernel leaves out a switch.
    #[track_caller]
    fn lost(ended: &Ended) -> u64 {
        let end = ended.end();
        assert_eq!(end.all_lost(), end.lost("unmatched"), "{}", end.0.line());
        end.all_lost()
    }

    #[test]
    fn counts_and_sums_are_the_kernels() {
        let mut work = crowd();
        let tool = Tool::new("runqlat").args(["--json", "-p", &list(&work)]).start();
        let spent = sum(&run_all(&mut work));
        let ended = tool.stop().expect(0).silent_but_for_losses();
        let hists = ended.histograms();
        let (count, waited) = total(&hists);
        cpu::assert_all(count, lost(&ended), spent.arrivals);
        assert_eq!(ended.end().events(), count);
        assert_close(waited, spent.delay, "all waits");
        assert!(spent.delay > 500_000.0, "four on one CPU wait: {spent:?}");
    }

    #[test]
    fn wakeups_and_preemptions_are_told_apart() {
        let mut work = crowd();
        let tool = Tool::new("runqlat").args(["--json", "-p", &list(&work)]).start();
        let spent = sum(&run_all(&mut work));
        let ended = tool.stop().expect(0);
        let hists = ended.histograms();
        let of = |why: &str| total(hists.iter().filter(|hist| hist.why() == Some(why))).0;
        let (woken, put_off) = (of("wakeup"), of("preempted"));
        cpu::assert_all(woken + put_off, lost(&ended), spent.arrivals);
        // One that is woken while it is being switched out is either, and the kernel may see it the other way.
        let close = |ours: u64, booked: u64| cpu::assert_all(ours.min(booked), lost(&ended), booked);
        let more = if env::is_tcg() { 1 + spent.arrivals / 100 } else { 0 };
        assert!(woken <= spent.voluntary + more && put_off <= spent.involuntary + more, "{spent:?}");
        close(woken + more, spent.voluntary);
        close(put_off + more, spent.involuntary);
        let preempted = if env::is_tcg() { 5 } else { 100 };
        assert!(spent.voluntary > 300 && spent.involuntary > preempted, "{spent:?}");
        assert!(hists.iter().all(|hist| hist.why().is_some()));
    }

    #[test]
    fn each_process_gets_its_own() {
        let mut work = crowd();
        let tool = Tool::new("runqlat").words("--json -P").start();
        let spent = run_all(&mut work);
        let ended = tool.stop().expect(0);
        let hists = ended.histograms();
        for (work, spent) in work.iter().zip(&spent) {
            let own = of_pid(&hists, work.pid());
            let (count, waited) = total(own.iter().copied());
            cpu::assert_all(count, lost(&ended), spent.arrivals);
            // A few microseconds each: of many short waits that is more than a few in a hundred.
            let slack = if env::is_tcg() { 500.0 } else { 50.0 } * spent.arrivals as f64;
            if (waited - spent.delay).abs() > slack {
                assert_close(waited, spent.delay, "one process");
            }
            assert!(own.iter().all(|hist| hist.key.str("comm") == "workload"));
        }
        assert!(hists.iter().all(|hist| hist.key.int("pid") > 0), "the idle task waits for nothing");
        assert_eq!(total(&hists).0, ended.end().events());
    }

    #[test]
    fn each_thread_gets_its_own() {
        let mut work = Work::new("spin 1 3").on_cpu(cpu::last()).hold().start().unwrap();
        let tids = cpu::tids(work.pid());
        let before: Vec<Account> = tids.iter().map(|tid| Account::of_thread(work.pid(), *tid)).collect();
        let pid = work.pid().to_string();
        let all = Tool::new("runqlat").args(["--json", "-L", "-p", &pid]).start();
        let one = Tool::new("runqlat").args(["--json", "-t", &tids[1].to_string()]).start();
        let two = Tool::new("runqlat").args(["--json", "-t", &format!("{},{}", tids[0], tids[2])]).start();
        work.go();
        work.wait_done();
        let spent: Vec<Account> = tids
            .iter()
            .zip(before)
            .map(|(tid, before)| Account::of_thread(work.pid(), *tid).since(before))
            .collect();
        let ended = all.stop().expect(0);
        let hists = ended.histograms();
        for (tid, spent) in tids.iter().zip(&spent) {
            let own = hists.iter().filter(|hist| hist.key.int("tid") == i64::from(*tid));
            cpu::assert_all(total(own).0, lost(&ended), spent.arrivals);
            assert!(spent.arrivals > 2, "{spent:?}");
        }
        for (ended, spent) in
            [(ended, sum(&spent)), (one.stop(), spent[1]), (two.stop(), spent[0].plus(spent[2]))]
        {
            let ended = ended.expect(0);
            cpu::assert_all(total(&ended.histograms()).0, lost(&ended), spent.arrivals);
        }
    }

    #[test]
    fn known_wakeups_are_counted() {
        for (words, at_least) in [("nap 211 1000", 211), ("pingpong 1009", 1009)] {
            let mut work = Work::new(words).on_cpu(cpu::last()).hold().start().unwrap();
            let before = Account::of(work.pid());
            let tool = Tool::new("runqlat").args(["--json", "-p", &work.pid().to_string()]).start();
            work.go();
            work.wait_done();
            let ended = tool.stop().expect(0);
            let (hists, lost) = (ended.histograms(), lost(&ended));
            let woken = total(hists.iter().filter(|hist| hist.why() == Some("wakeup"))).0;
            assert!(woken + lost + at_least / 25 + 4 >= at_least, "{words}: {woken}, lost {lost}");
            cpu::assert_all(total(&hists).0, lost, Account::of(work.pid()).since(before).arrivals);
        }
    }

    #[test]
    fn intervals_add_up_to_the_run() {
        let mut work = crowd();
        let pids = list(&work);
        let cut = Tool::new("runqlat").args(["--json", "-p", &pids, "0.1"]).start();
        let keyed = Tool::new("runqlat").args(["--json", "-L", "-p", &pids, "0.1"]).start();
        let spent = sum(&run_all(&mut work));
        for ended in [cut.stop().expect(0), keyed.stop().expect(0)] {
            let hists = ended.histograms();
            let times: BTreeSet<&str> = hists.iter().map(|hist| hist.time.as_str()).collect();
            assert!(times.len() >= 10, "{} intervals of 0.1 s in 1.5 s", times.len());
            let (count, waited) = total(&hists);
            cpu::assert_all(count, lost(&ended), spent.arrivals);
            assert_close(waited, spent.delay, "all intervals");
            assert_eq!(ended.end().events(), count);
        }
    }

    /// 30,011 threads that live for a millisecond, twice what a small table of any kind would hold.
    #[test]
    fn thousands_of_short_threads_are_all_there() {
        // Emulated, a thread takes ten milliseconds.
        let threads_made: u64 = if env::is_tcg() { 2_003 } else { 30_011 };
        let mut work = Work::new(&format!("threads {threads_made}")).hold().start().unwrap();
        let tool = Tool::new("runqlat").args(["--json", "-L", "-p", &work.pid().to_string()]).start();
        work.go();
        work.wait_done();
        let ended = tool.stop().expect(0);
        let (hists, end) = (ended.histograms(), ended.end());
        // Every thread is woken, so the histograms of the wakeups know them all: shown, or let go as dead
        // with its waits kept.
        let woken = || hists.iter().filter(|hist| hist.why() == Some("wakeup"));
        let shown: BTreeSet<i64> = woken().filter_map(|hist| hist.key.0.get("tid")?.as_i64()).collect();
        let evicted: i64 = woken().filter_map(|hist| hist.key.0.get("evicted")?.as_i64()).sum();
        let (threads, count) = (shown.len() as u64 + evicted as u64, total(&hists).0);
        eprintln!("{} threads shown, {evicted} evicted, {count} waits, lost {:?}", shown.len(), end.losses());
        // Each is new once and wakes once, and the main thread is one more.
        let lost = end.all_lost();
        assert!(
            count + lost >= 2 * threads_made,
            "{count} waits of {} at least, lost {lost}",
            2 * threads_made
        );
        assert_eq!(count, end.events());
        assert!(threads + lost > threads_made, "{threads} threads, lost {lost}");
        // One that waits again after it was let go is let go again.
        assert!(threads < threads_made + threads_made / 100, "{threads} threads");
    }
}
