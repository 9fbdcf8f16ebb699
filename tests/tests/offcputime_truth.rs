//! offcputime against waits of known length, each by the program's own clock, and against the kernel's
//! account of the same threads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use std::collections::BTreeSet;

    use tracebelt_tests::cpu::Account;
    use tracebelt_tests::{
        Program, Running, Stack, Tool, Waker, Work, cpu, env, stacks, usecs, waits, within,
    };

    fn offcputime(program: &Program, args: &str) -> Running {
        Tool::new("offcputime").words("--json").words(args).args(["-p", &program.pid().to_string()]).start()
    }

    #[track_caller]
    fn assert_close(ours: f64, truth: f64, what: &str) {
        let off = (ours - truth).abs() / truth.max(1.0);
        eprintln!("{what}: ours {ours:.0} us, in truth {truth:.0} us, {:.3}% apart", off * 100.0);
        assert!(off < 0.01 || env::is_tcg() && off < 0.1, "{what}: ours {ours}, in truth {truth}");
    }

    /// Emulated, a timer may fire before its thread is switched out: then it does not wait.
    fn may_not_wait(count: u64) -> u64 {
        if env::is_tcg() { count.div_ceil(50) } else { 0 }
    }

    /// Function, its caller, what the program calls it, microseconds asked for, waits, part of the kernel's stack.
    const KNOWN: [(&str, &str, &str, f64, u64, &str); 3] = [
        ("nap_inner", "nap_outer", "nap", 740_000.0, 37, "nanosleep"),
        ("lock_inner", "lock_outer", "lock", 1_300_000.0, 1, "futex"),
        ("read_inner", "read_outer", "read", 1_700_000.0, 1, "pipe_read"),
    ];
    const THREADS: &str = "nap:37:20000 hold:1300000 lock feed:1700000 read";

    /// A wait is measured from outside of it by the program, and from the inside by the tool.
    #[test]
    fn each_wait_has_its_length_and_its_names() {
        let mut program = Program::waits(THREADS);
        let tools = ["", "--exact"].map(|args| offcputime(&program, args));
        let before = program.spent();
        let said = program.run();
        let after = program.spent();
        // What the scheduler added is in the program's time, but no wait.
        let added = after.0 - before.0 + after.1 - before.1;
        for tool in tools {
            let ended = tool.stop().expect(0);
            let (all, lost) = (stacks(&ended), ended.end().all_lost());
            assert!(all.iter().all(|stack| stack.pid == program.pid()), "{}", ended.story());
            // Those that waited before the run began, too.
            assert!(all.iter().all(|stack| !stack.kernel.is_empty()), "{}", ended.story());
            for (inner, outer, what, nominal, count, kernel) in KNOWN {
                let found = within(&all, inner);
                let (sum, truth) = (usecs(found.iter().copied()), said.of(what));
                eprintln!("{what}: ours {sum:.0}, in truth {truth:.0}, of it up to {added:.0} added");
                assert!(
                    sum <= truth && sum > truth * 0.99 - added,
                    "{what}: {sum} of {truth}, {added} added"
                );
                // A nap is counted from when the program asks for it, some microseconds before it leaves its CPU.
                let least = if env::is_tcg() { 0.96 } else { 0.99 };
                assert!(sum > nominal * least, "{what}: {sum} of {nominal}");
                let waited = waits(found.iter().copied());
                let missing = if count > 1 { lost + may_not_wait(count) } else { lost };
                assert!(waited >= count - missing.min(count), "{what}: {waited} of {count} waits");
                for stack in found {
                    stack.assert_called(inner, outer);
                    assert!(stack.state == "S" && !stack.still_blocked && !stack.preempted, "{stack:?}");
                    assert!(stack.comm == what && stack.tid == program.tid(what), "{stack:?}");
                    assert!(stack.kernel_may_have(kernel), "{stack:?}");
                }
            }
        }
    }

    /// Scheduler functions, which `bpf_get_task_stack()` leaves out, are what names the wait.
    #[test]
    fn kernel_stacks_begin_in_the_scheduler() {
        let mut program = Program::waits("nap:37:5000");
        let tool = offcputime(&program, "");
        program.run();
        let all = stacks(&tool.stop().expect(0));
        let naps = within(&all, "nap_inner");
        let seen: Vec<&&Stack> = naps.iter().filter(|stack| !stack.kernel[0].starts_with('[')).collect();
        assert!(!seen.is_empty(), "{all:?}");
        for stack in seen {
            assert_eq!(stack.kernel[..3], ["__schedule", "schedule", "do_nanosleep"], "{stack:?}");
            let tracers = |frame: &&String| frame.starts_with("bpf_") || frame.starts_with("__traceiter");
            assert_eq!(stack.kernel.iter().find(tracers), None, "{stack:?}");
        }
    }

    #[test]
    fn who_is_blocked_throughout_is_there() {
        let mut program = Program::waits("poll nap:11:20000");
        let tid = program.tid("poll");
        let tool = offcputime(&program, "");
        program.run();
        let ended = tool.stop().expect(0);
        let window = ended.end().0.num("seconds") * 1e6;
        let all = stacks(&ended);
        let found: Vec<&Stack> = all.iter().filter(|stack| stack.tid == tid).collect();
        let [stack] = found.as_slice() else { panic!("once: {found:?}") };
        assert!(stack.still_blocked && stack.count == 1 && stack.state == "S", "{stack:?}");
        assert_close(stack.usecs, window, "blocked throughout");
        assert!(stack.kernel_has("poll"), "{stack:?}");
        stack.assert_called("poll_inner", "poll_outer");
        // So are the others, each by itself; who has waited and gone on is not marked.
        let tids: BTreeSet<u32> = all.iter().map(|stack| stack.tid).collect();
        assert_eq!(tids.into_iter().collect::<Vec<_>>(), cpu::tids(program.pid()), "{}", ended.story());
        assert!(within(&all, "nap_inner").iter().all(|stack| !stack.still_blocked), "{}", ended.story());
    }

    /// Asleep before the run and after it, every thread is on a CPU or off it for all of it.
    #[test]
    fn all_waits_of_a_process_are_its_time_off_cpu() {
        for args in ["", "--preempted", "--exact --preempted"] {
            let spins = "spin:300000 spin:300000 spin:300000 spin:300000 spin:300000";
            let mut program = Program::waits(&format!("poll nap:37:20000 {spins} split:500:30"));
            let threads = cpu::tids(program.pid()).len() as f64;
            let before = program.spent();
            let tool = offcputime(&program, args);
            program.run();
            let ended = tool.stop().expect(0);
            let after = program.spent();
            let (on_cpu, queued) = (after.0 - before.0, after.1 - before.1);
            let wall = threads * ended.end().0.num("seconds") * 1e6;
            let all = stacks(&ended);
            let ours = usecs(&all);
            assert!(on_cpu > 1_500_000.0, "five have spun: {on_cpu}");
            eprintln!("{args}: wall {wall:.0}, on CPU {on_cpu:.0}, queued {queued:.0}, ours {ours:.0}");
            assert_eq!(waits(&all), ended.end().events(), "{}", ended.story());
            if args.is_empty() {
                // The queue after a wakeup is in a wait, that after a preemption is not.
                let (least, most) = (wall - on_cpu - queued, wall - on_cpu);
                // Not so one preempted on its way to sleep: schedstat leaves its queue out (cpu::Account), which
                // an emulated PREEMPT_RT kernel shows: 6% of all was seen missing.
                let off = match (env::is_tcg(), env::is_rt()) {
                    (true, true) => 0.1,
                    (true, false) => 0.03,
                    (false, _) => 0.01,
                };
                assert!(
                    ours > least * (1.0 - off) && ours < most * (1.0 + off),
                    "{ours} in {least} to {most}"
                );
                assert!(all.iter().all(|stack| !stack.preempted && stack.state != "R"), "{}", ended.story());
            } else {
                assert_close(ours, wall - on_cpu, "off CPU");
                let preempted = usecs(all.iter().filter(|stack| stack.preempted));
                // Five on at most so many CPUs.
                let least = if cpu::allowed().len() < 4 { 300_000.0 } else { 0.0 };
                assert!(preempted > least && preempted <= queued * 1.1, "{preempted} of {queued}");
            }
        }
    }

    /// Each part has what was waited in it, whether a wait ends there or not.
    #[test]
    fn intervals_add_up_to_the_run() {
        let mut program = Program::waits(&format!("{THREADS} poll"));
        let tool = offcputime(&program, "-i 0.3");
        let before = program.spent();
        let said = program.run();
        let after = program.spent();
        let added = after.0 - before.0 + after.1 - before.1;
        let ended = tool.stop().expect(0);
        let (all, seconds) = (stacks(&ended), ended.end().0.num("seconds"));
        let times: BTreeSet<&str> = ended
            .records()
            .iter()
            .filter(|record| record.str("type") == "stack")
            .map(|record| record.str("time"))
            .collect();
        // Where a report takes long, two may be one.
        let slow = env::is_tcg() || env::is_busy();
        assert!(times.len() >= if slow { 3 } else { 5 }, "{times:?}");
        for (inner, _, what, _, _, _) in KNOWN {
            let found = within(&all, inner);
            let sum = usecs(found.iter().copied());
            let truth = said.of(what);
            eprintln!("{what}: ours {sum:.0}, in truth {truth:.0}");
            assert!(sum <= truth && sum > truth * 0.99 - added, "{what}: {sum} of {truth}, {added} added");
            let blocked = found.iter().filter(|stack| stack.still_blocked).count();
            // By /proc, they count where they end.
            let parts = !ended.end().is_via("waits under way", "proc");
            let least = if !parts {
                0
            } else if slow {
                1
            } else {
                3
            };
            assert!(what == "nap" || blocked >= least, "{what}: {found:?}");
        }
        let hung = usecs(all.iter().filter(|stack| stack.tid == program.tid("poll")));
        assert_close(hung, seconds * 1e6, "blocked throughout: each microsecond once");
    }

    #[test]
    fn who_wakes_a_thread_is_named() {
        let mut program = Program::waits("feed:300000 read nap:11:5000");
        let tool = offcputime(&program, "--waker");
        let without = offcputime(&program, "");
        program.run();
        let all = stacks(&tool.stop().expect(0));
        let found = within(&all, "read_inner");
        // On PREEMPT_RT the reader may then wait for the pipe's lock, which its waker holds still.
        let stack = found.iter().max_by(|a, b| a.usecs.total_cmp(&b.usecs)).expect("a read");
        assert!(usecs(found.iter().copied()) - stack.usecs < 20_000.0, "{found:?}");
        let waker = stack.waker.as_ref().unwrap_or_else(|| panic!("{stack:?}"));
        assert_eq!((waker.pid, waker.tid), (program.pid(), program.tid("feed")), "{stack:?}");
        assert_eq!(waker.comm, "feed");
        let at = waker.user.iter().position(|frame| frame == "feed_inner");
        assert_eq!(
            at.and_then(|at| waker.user.get(at + 1)).map(String::as_str),
            Some("feed_outer"),
            "{waker:?}"
        );
        assert!(waker.kernel.iter().any(|frame| frame.contains("pipe_write")), "{waker:?}");
        // A timer wakes who naps: an interrupt, and not whom that interrupts. (Where interrupts are threads, these.)
        let naps = within(&all, "nap_inner");
        let wakers: Vec<&Waker> = naps.iter().filter_map(|stack| stack.waker.as_ref()).collect();
        assert!(!wakers.is_empty(), "{naps:?}");
        for waker in wakers.into_iter().filter(|_| !env::is_rt()) {
            assert!(waker.comm == "[interrupt]" && waker.pid == 0 && waker.user.is_empty(), "{waker:?}");
            assert!(waker.kernel.iter().any(|frame| frame.contains("hrtimer")), "{waker:?}");
        }
        assert!(stacks(&without.stop().expect(0)).iter().all(|stack| stack.waker.is_none()));
    }

    /// What a thread is when it is switched out, and how it comes back, does not cost it its place in the sum.
    #[test]
    fn thousands_of_short_threads_are_all_there() {
        let count: u64 = if env::is_tcg() { 307 } else { 30_011 };
        let mut program = Program::waits(&format!("threads:{count}:2000"));
        let tool = offcputime(&program, "");
        let said = program.run();
        let ended = tool.stop().expect(0);
        let (all, end) = (stacks(&ended), ended.end());
        let naps = within(&all, "short_life");
        let tids: BTreeSet<u32> = naps.iter().map(|stack| stack.tid).collect();
        let (waited, lost) = (waits(naps.iter().copied()), end.all_lost());
        eprintln!("{} threads, {waited} waits, lost {:?}", tids.len(), end.losses());
        assert_eq!(waits(&all), end.events(), "{}", end.0.line());
        assert_eq!(end.lost("ring") + end.lost("map_full"), 0, "{}", end.0.line());
        // Preempted on their way to sleep and back, some wait twice.
        let unseen = may_not_wait(count);
        assert!(
            waited + lost + unseen >= count && tids.len() as u64 <= count,
            "{waited} of {count}, lost {lost}"
        );
        assert!(lost <= 3 + count / 10, "{}", end.0.line());
        let missing = (lost + unseen) as f64 * said.of("threads") / count as f64;
        let ours = usecs(naps.iter().copied());
        assert!(ours > count as f64 * 2000.0 - missing && ours < said.of("threads"), "{ours} us");
        naps.iter().for_each(|stack| stack.assert_called("nap_inner", "short_life"));
    }

    #[test]
    fn nothing_is_lost_in_a_plain_run() {
        let mut work = Work::new("nap 211 1000").hold().start().unwrap();
        let before = Account::of(work.pid());
        let tool = Tool::new("offcputime").words("--json --strict -p").arg(work.pid().to_string()).start();
        work.go();
        work.wait_done();
        let left = Account::of(work.pid()).since(before).voluntary;
        let ended = tool.stop();
        let (end, counted) = (ended.end(), waits(&stacks(&ended)));
        assert_eq!(ended.status.code(), Some(if end.all_lost() == 0 { 0 } else { 5 }), "{}", ended.story());
        assert_eq!(end.lost("ring") + end.lost("map_full"), 0, "{}", ended.story());
        // As often as the kernel saw it leave.
        assert!(left + may_not_wait(211) >= 211, "{left} times");
        assert!(counted + end.all_lost() >= left && counted <= 230, "{counted} of {left}: {}", ended.story());
    }

    /// Only the command and its children, from their start to their end; nothing of the tool that starts them.
    #[test]
    fn a_command_is_traced_from_its_first_instruction() {
        let words = tracebelt_tests::program::waits_now("nap:37:5000 brief:3:20000");
        let ended = Tool::new("offcputime").words("--json --").args(words).run().expect(7);
        let all = stacks(&ended);
        let comms: BTreeSet<&str> = all.iter().map(|stack| stack.comm.as_str()).collect();
        assert_eq!(comms, BTreeSet::from(["brief", "exe", "nap", "waits"]), "{}", ended.story());
        let of = |comm: &str| {
            // By what the kernel was at: names of processes this short are the matter of another test.
            let stacks = all.iter().filter(|stack| stack.comm == comm && stack.kernel_may_have("nanosleep"));
            (waits(stacks.clone()), usecs(stacks))
        };
        let (naps, children) = (of("nap"), of("exe"));
        let most = if env::is_tcg() { 0.96 } else { 0.99 };
        eprintln!("{naps:?} {children:?}");
        assert!(
            naps.0 + ended.end().all_lost() + may_not_wait(37) >= 37 && naps.1 > 185_000.0 * most,
            "{naps:?}: {}",
            ended.story()
        );
        assert!(children.0 >= 3 && children.1 > 60_000.0 * most, "{children:?}: {}", ended.story());
    }
}
