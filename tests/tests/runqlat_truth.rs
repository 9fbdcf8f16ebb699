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

    #[track_caller]
    fn assert_nothing_lost(ended: &Ended) {
        let end = ended.end();
        assert_eq!(end.losses(), [], "{}", end.0.line());
    }

    #[test]
    fn counts_and_sums_are_the_kernels() {
        let mut work = crowd();
        let tool = Tool::new("runqlat").args(["--json", "-p", &list(&work)]).start();
        let spent = sum(&run_all(&mut work));
        let ended = tool.stop().expect(0).silent();
        let hists = ended.histograms();
        let (count, waited) = total(&hists);
        assert_eq!(count, spent.arrivals, "each wait once: {spent:?}");
        assert_eq!(ended.end().events(), count);
        assert_close(waited, spent.delay, "all waits");
        assert!(spent.delay > 500_000.0, "four on one CPU wait: {spent:?}");
        assert_nothing_lost(&ended);
    }

    #[test]
    fn wakeups_and_preemptions_are_told_apart() {
        let mut work = crowd();
        let tool = Tool::new("runqlat").args(["--json", "-p", &list(&work)]).start();
        let spent = sum(&run_all(&mut work));
        let hists = tool.stop().expect(0).histograms();
        let of = |why: &str| total(hists.iter().filter(|hist| hist.why() == Some(why))).0;
        assert_eq!(of("wakeup"), spent.voluntary, "{spent:?}");
        assert_eq!(of("preempted"), spent.involuntary, "{spent:?}");
        assert!(spent.voluntary > 300 && spent.involuntary > 100, "{spent:?}");
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
            assert_eq!(count, spent.arrivals, "{spent:?}");
            assert_close(waited, spent.delay, "one process");
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
        let hists = all.stop().expect(0).histograms();
        for (tid, spent) in tids.iter().zip(&spent) {
            let own = hists.iter().filter(|hist| hist.key.int("tid") == i64::from(*tid));
            assert_eq!(total(own).0, spent.arrivals, "{spent:?}");
            assert!(spent.arrivals > 10, "{spent:?}");
        }
        assert_eq!(total(&hists).0, sum(&spent).arrivals);
        assert_eq!(total(&one.stop().expect(0).histograms()).0, spent[1].arrivals);
        assert_eq!(total(&two.stop().expect(0).histograms()).0, spent[0].plus(spent[2]).arrivals);
    }

    #[test]
    fn known_wakeups_are_counted() {
        for (words, at_least) in [("nap 211 1000", 211), ("pingpong 1009", 2018)] {
            let mut work = Work::new(words).on_cpu(cpu::last()).hold().start().unwrap();
            let before = Account::of(work.pid());
            let tool = Tool::new("runqlat").args(["--json", "-p", &work.pid().to_string()]).start();
            work.go();
            work.wait_done();
            let hists = tool.stop().expect(0).histograms();
            let woken = total(hists.iter().filter(|hist| hist.why() == Some("wakeup"))).0;
            assert!(woken >= at_least, "{words}: {woken}");
            assert_eq!(total(&hists).0, Account::of(work.pid()).since(before).arrivals, "{words}");
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
            assert_eq!(count, spent.arrivals, "{spent:?}");
            assert_close(waited, spent.delay, "all intervals");
            assert_eq!(ended.end().events(), count);
            assert_nothing_lost(&ended);
        }
    }

    /// 30,011 threads that live for a millisecond, twice what a small table of any kind would hold.
    #[test]
    fn thousands_of_short_threads_are_all_there() {
        const THREADS: u64 = 30_011;
        let mut work = Work::new(&format!("threads {THREADS}")).hold().start().unwrap();
        let tool = Tool::new("runqlat").args(["--json", "-L", "-p", &work.pid().to_string()]).start();
        work.go();
        work.wait_done();
        let ended = tool.stop().expect(0);
        let (hists, end) = (ended.histograms(), ended.end());
        let tids: BTreeSet<i64> = hists.iter().map(|hist| hist.key.int("tid")).collect();
        let count = total(&hists).0;
        eprintln!("{} threads, {count} waits, lost {:?}", tids.len(), end.losses());
        // Each is new once and wakes once, and the main thread is one more.
        let lost: u64 = end.losses().iter().map(|(_, n)| n).sum();
        assert!(count + lost >= 2 * THREADS, "{count} waits of {} at least, lost {lost}", 2 * THREADS);
        assert_eq!(count, end.events());
        assert!(lost > 0 || tids.len() as u64 == THREADS + 1, "{} threads and nothing lost", tids.len());
    }
}
