//! offcputime against programs that wait in known functions for known times, and against the kernel's own
//! account: what a thread does not run it is off its CPU.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use std::collections::BTreeSet;

    use tracebelt_tests::cpu::{self, Account};
    use tracebelt_tests::{
        Ended, Running, Stack, TempDir, Tool, Work, Workload, env, program, skip, usecs,
    };

    fn offcputime(args: &[&str], pid: u32) -> Running {
        Tool::new("offcputime").args(["--json", "-p", &pid.to_string()]).args(args).start()
    }

    fn of<'a>(stacks: &'a [Stack], function: &str) -> Vec<&'a Stack> {
        stacks.iter().filter(|stack| stack.has(function)).collect()
    }

    /// A program whose threads wait in functions of known names; the names, and how long in microseconds.
    fn waits(dir: &TempDir) -> Result<Workload, String> {
        Work::program(&program::compile("waits", dir)?).start()
    }

    const KNOWN: [(&str, f64); 3] =
        [("sleeps_37_times_20_ms", 740_000.0), ("waits_for_the_lock", 1_300_000.0), ("waits_for_a_byte", 1_700_000.0)];

    /// What the scheduler added to the waits of one thread, or to those it depends on.
    fn delays(pid: u32) -> f64 {
        cpu::tids(pid).iter().map(|tid| Account::of_thread(pid, *tid).delay).sum()
    }

    #[track_caller]
    fn check_known(stacks: &[Stack], delay: f64) {
        for (function, nominal) in KNOWN {
            let found = usecs(of(stacks, function));
            // Emulated, a timer comes late.
            let late = if env::is_tcg() { 0.15 * nominal } else { 0.01 * nominal };
            eprintln!("{function}: {found:.0} us, {nominal} asked for, run queues up to {delay:.0}");
            assert!(found >= nominal, "{function}: {found} of {nominal}");
            assert!(found <= nominal + late + delay, "{function}: {found}, {nominal} asked for");
        }
        let sleeps = of(stacks, KNOWN[0].0);
        assert_eq!(sleeps.iter().map(|stack| stack.count).sum::<u64>(), 37, "{sleeps:?}");
    }

    #[test]
    fn functions_have_the_time_they_wait() {
        let dir = TempDir::new();
        let mut work = match waits(&dir) {
            Ok(work) => work,
            Err(why) => skip!("{why}"),
        };
        let exact = offcputime(&["--exact"], work.pid());
        let pooled = offcputime(&[], work.pid());
        let before = delays(work.pid());
        work.go();
        work.wait_done();
        let delay = delays(work.pid()) - before;
        for tool in [exact, pooled] {
            check_known(&tool.stop().expect(0).stacks(), delay);
        }
    }

    /// Scheduler functions, which bpf_get_task_stack() leaves out, are what names the wait.
    #[test]
    fn kernel_stacks_begin_in_the_scheduler() {
        let dir = TempDir::new();
        let mut work = match waits(&dir) {
            Ok(work) => work,
            Err(why) => skip!("{why}"),
        };
        let tool = offcputime(&[], work.pid());
        work.go();
        work.wait_done();
        let stacks = tool.stop().expect(0).stacks();
        let seen = |stack: &&&Stack| !stack.kernel.iter().any(|frame| frame.starts_with('['));
        for (function, inner) in [(KNOWN[0].0, "do_nanosleep"), (KNOWN[2].0, "schedule")] {
            let found = of(&stacks, function);
            let found: Vec<_> = found.iter().filter(seen).collect();
            assert!(!found.is_empty(), "{stacks:?}");
            for stack in found {
                assert_eq!(stack.kernel[..2], ["__schedule", "schedule"], "{}", stack.record.line());
                assert!(stack.kernel.iter().any(|frame| frame == inner), "{}", stack.record.line());
                let noise = |frame: &&String| frame.starts_with("bpf_") || frame.starts_with("__traceiter");
                assert_eq!(stack.kernel.iter().find(noise), None, "the tracer's own frames");
            }
        }
    }

    #[test]
    fn a_thread_that_hangs_all_the_time_is_there() {
        let dir = TempDir::new();
        let work = match waits(&dir) {
            Ok(work) => work,
            Err(why) => skip!("{why}"),
        };
        let ended = Tool::new("offcputime").args(["--json", "-p", &work.pid().to_string(), "0.5"]).run().expect(0);
        let (stacks, seconds) = (ended.stacks(), ended.end().0.num("seconds"));
        let hung: Vec<&Stack> = stacks.iter().filter(|stack| stack.record.str("comm") == "hung").collect();
        let [hung] = hung.as_slice() else { panic!("one stack: {hung:?}") };
        assert!(hung.is("still_blocked") && hung.count == 1, "{}", hung.record.line());
        assert!((hung.usecs / 1e6 / seconds - 1.0).abs() < 0.01, "{} of {seconds} s", hung.usecs);
        if ended.end().0.get("hooks")["waits under way"] == "iter.s" {
            assert!(hung.has("polls_forever"), "its user stack was read while it slept: {hung:?}");
        } else {
            assert_eq!(hung.user, ["[user stack not seen]"]);
        }
        // And so are the others, each by itself.
        let tids: BTreeSet<i64> = stacks.iter().map(|stack| stack.record.int("tid")).collect();
        assert_eq!(tids.len(), cpu::tids(work.pid()).len(), "{stacks:?}");
    }

    /// Σ = wall - on CPU, of threads that are there all the time.
    #[test]
    fn what_threads_do_not_run_they_are_off_their_cpu() {
        let words = ["spin 1 3", "nap 211 2000", "pingpong 5003"];
        let mut work: Vec<Workload> = words
            .iter()
            .map(|words| Work::new(words).on_cpu(cpu::last()).hold().start().unwrap())
            .collect();
        let pids: Vec<String> = work.iter().map(|work| work.pid().to_string()).collect();
        let run = |work: &[Workload]| work.iter().map(|w| Account::of(w.pid()).run).sum::<f64>();
        let before = run(&work);
        let tool =
            Tool::new("offcputime").args(["--json", "--preempted", "-p", &pids.join(",")]).start();
        let threads: usize = work.iter().map(|work| cpu::tids(work.pid()).len()).sum();
        work.iter_mut().for_each(Workload::go);
        work.iter().for_each(Workload::wait_done);
        let ended = tool.stop().expect(0);
        let ran = run(&work) - before;
        let expected = threads as f64 * ended.end().0.num("seconds") * 1e6 - ran;
        let found = usecs(&ended.stacks());
        let apart = found / expected - 1.0;
        eprintln!("{found:.0} us found, {expected:.0} expected, {:.2}% apart", apart * 100.0);
        assert!(apart.abs() < if env::is_tcg() { 0.05 } else { 0.01 }, "{found} of {expected}");
        let preempted: Vec<Stack> =
            ended.stacks().into_iter().filter(|stack| stack.is("preempted")).collect();
        assert!(usecs(&preempted) > 1_500_000.0, "three spin for a second on one CPU: {preempted:?}");
        assert!(preempted.iter().all(|stack| stack.record.str("state") == "R"), "{preempted:?}");
    }

    #[test]
    fn threads_that_could_go_on_are_left_out() {
        let mut work = Work::new("spin 0.5 3").on_cpu(cpu::last()).hold().start().unwrap();
        let tool = offcputime(&[], work.pid());
        work.go();
        work.wait_done();
        let stacks = tool.stop().expect(0).stacks();
        assert!(stacks.iter().all(|stack| !stack.is("preempted")), "{stacks:?}");
        assert!(stacks.iter().all(|stack| stack.record.str("state") != "R"), "{stacks:?}");
    }

    #[test]
    fn no_thread_is_missing_however_short_it_lives() {
        const THREADS: usize = 5003;
        let mut work = Work::new(&format!("threads {THREADS}")).hold().start().unwrap();
        let tool = offcputime(&[], work.pid());
        work.go();
        work.wait_done();
        let ended = tool.stop().expect(0);
        let stacks = ended.stacks();
        // Each slept a millisecond; the first thread waits for the others.
        let slept = |stack: &&Stack| stack.kernel.iter().any(|frame| frame.contains("nanosleep"));
        let tids: BTreeSet<i64> = stacks
            .iter()
            .filter(|stack| stack.record.int("tid") != i64::from(work.pid()))
            .map(|stack| stack.record.int("tid"))
            .collect();
        let unseen = ended.end().all_lost() as usize;
        assert!(tids.len() + unseen >= THREADS && tids.len() <= THREADS, "{} threads", tids.len());
        let sum = usecs(stacks.iter().filter(slept).collect::<Vec<_>>());
        assert!(sum > 0.9 * THREADS as f64 * 1000.0, "{sum} us asleep");
        let counted: u64 = stacks.iter().map(|stack| stack.count).sum();
        assert_eq!(counted, ended.end().events());
        assert_eq!(ended.end().lost("ring") + ended.end().lost("map_full"), 0);
    }

    /// A shared stack is charged in proportion to time, though the waits are too short for their own.
    #[test]
    fn short_waits_are_shared_out_by_their_time() {
        let dir = TempDir::new();
        let path = match program::compile("alternate", &dir) {
            Ok(path) if cpu::allowed().len() > 1 && !env::is_tcg() => path,
            Ok(_) => skip!("two CPUs that are not emulated are needed"),
            Err(why) => skip!("{why}"),
        };
        let mut work = Work::program(&path).arg("6007").start().unwrap();
        // Long waits are exact in both.
        let exact = offcputime(&["--exact", "-M", "100"], work.pid());
        let pooled = offcputime(&["-M", "100"], work.pid());
        work.go();
        work.wait_done();
        let share = |tool: Running| {
            let ended = tool.stop().expect(0);
            let stacks = ended.stacks();
            let (short, long) = (usecs(of(&stacks, "short_wait")), usecs(of(&stacks, "long_wait")));
            (short / (short + long), short + long)
        };
        let ((exact, total), (drawn, drawn_total)) = (share(exact), share(pooled));
        let draws = drawn_total / 100.0;
        let error = (exact * (1.0 - exact) / draws).sqrt();
        let off = (drawn - exact) / error;
        eprintln!("{exact:.4} exact, {drawn:.4} drawn {draws:.0} times: {off:.2} standard errors");
        assert!(draws > 500.0 && (0.2..0.45).contains(&exact), "{draws} draws, {exact}");
        assert!(off.abs() < 4.0, "{drawn} for {exact}: {off} standard errors");
        // Both see the same waits, one after the other: the second is a little longer.
        assert!((drawn_total / total - 1.0).abs() < 0.1, "{drawn_total} of {total}");
    }

    #[test]
    fn intervals_add_up_to_the_run() {
        let dir = TempDir::new();
        let mut work = match waits(&dir) {
            Ok(work) => work,
            Err(why) => skip!("{why}"),
        };
        let tool = offcputime(&["-i", "0.3"], work.pid());
        let before = delays(work.pid());
        work.go();
        work.wait_done();
        let delay = delays(work.pid()) - before;
        let ended = tool.stop().expect(0);
        let stacks = ended.stacks();
        let times: BTreeSet<&str> = stacks.iter().map(|stack| stack.record.str("time")).collect();
        assert!(times.len() >= 5, "{times:?}");
        for (function, nominal) in &KNOWN[1..] {
            let found = of(&stacks, function);
            assert!(found.iter().filter(|stack| stack.is("still_blocked")).count() >= 3, "{found:?}");
            let found = usecs(found);
            let late = if env::is_tcg() { 0.15 * nominal } else { 0.01 * nominal };
            assert!(found >= *nominal && found <= nominal + late + delay, "{function}: {found}");
        }
        let hung = usecs(stacks.iter().filter(|stack| stack.record.str("comm") == "hung"));
        let seconds = ended.end().0.num("seconds");
        assert!((hung / 1e6 / seconds - 1.0).abs() < 0.01, "{hung} us of {seconds} s");
    }

    #[test]
    fn who_wakes_a_thread_is_named() {
        let dir = TempDir::new();
        let mut work = match waits(&dir) {
            Ok(work) => work,
            Err(why) => skip!("{why}"),
        };
        let tool = offcputime(&["--waker"], work.pid());
        work.go();
        work.wait_done();
        let stacks = tool.stop().expect(0).stacks();
        let found = of(&stacks, "waits_for_a_byte");
        let [stack] = found.as_slice() else { panic!("{found:?}") };
        let waker = stack.record.get("waker");
        assert_eq!(waker["pid"], work.pid(), "{}", stack.record.line());
        assert_eq!(waker["comm"], "waits");
        let frames = |name: &str| waker[name].as_array().unwrap().clone();
        assert!(frames("user").iter().any(|frame| frame == "main"), "{}", stack.record.line());
        let wrote = |frame: &serde_json::Value| frame.as_str().unwrap().contains("pipe_write");
        assert!(frames("kernel").iter().any(wrote), "{}", stack.record.line());
    }

    #[test]
    fn nothing_is_lost_in_a_plain_run() {
        let mut work = Work::new("nap 211 1000").hold().start().unwrap();
        let tool = offcputime(&["--strict"], work.pid());
        work.go();
        work.wait_done();
        let ended: Ended = tool.stop();
        assert!(matches!(ended.status.code(), Some(0 | 5)), "{}", ended.story());
        assert_eq!(ended.end().lost("ring") + ended.end().lost("map_full"), 0, "{}", ended.story());
        let count: u64 = ended.stacks().iter().map(|stack| stack.count).sum();
        assert!(count >= 211, "{count}");
    }
}
