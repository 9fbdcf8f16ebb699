//! runqlat: whose waits are counted, and by what they are kept apart. The measure is the kernel's count
//! of how often each task got a CPU.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use std::collections::BTreeSet;
    use std::path::Path;

    use tracebelt_tests::cpu::{self, Account};
    use tracebelt_tests::{
        Cgroup, Histogram, Noise, Running, Tool, Work, Workload, env, skip, total, wait_until,
    };

    fn naps(count: u64, comm: &str) -> Workload {
        Work::new(&format!("nap {count} 1000")).comm(comm).on_cpu(cpu::last()).hold().start().unwrap()
    }

    fn runqlat(args: &[&str]) -> Running {
        Tool::new("runqlat").arg("--json").args(args).start()
    }

    /// How often it got a CPU while it did its work.
    fn arrivals(work: &mut Workload) -> u64 {
        let before = Account::of(work.pid());
        work.go();
        work.wait_done();
        Account::of(work.pid()).since(before).arrivals
    }

    fn histograms(tool: Running) -> Vec<Histogram> {
        tool.stop().expect(0).histograms()
    }

    /// All that these tasks waited has been counted, and nothing else.
    #[track_caller]
    fn check(tool: Running, booked: u64) {
        let ended = tool.stop().expect(0);
        cpu::assert_all(total(&ended.histograms()).0, ended.end().all_lost(), booked);
    }

    #[test]
    fn by_process_and_list_of_processes() {
        let (mut one, mut two, mut three) = (naps(101, "a"), naps(53, "a"), naps(211, "a"));
        let single = runqlat(&["-p", &one.pid().to_string()]);
        let list = runqlat(&["-p", &format!("{},{}", one.pid(), two.pid())]);
        let repeated = runqlat(&["-p", &one.pid().to_string(), "-p", &two.pid().to_string()]);
        let (a, b) = (arrivals(&mut one), arrivals(&mut two));
        // Nobody is switched away from for a nap that is over before it begins: on a slow machine many are.
        assert!(arrivals(&mut three) > if env::is_tcg() { 100 } else { 200 });
        check(single, a);
        check(list, a + b);
        check(repeated, a + b);
    }

    #[test]
    fn by_part_of_the_name() {
        // The needle at the start, in the middle, at the end of 15 characters, and not at all.
        let names = ["needle-a", "a-needle-b", "tencharac-needl", "haystack"];
        let tool = runqlat(&["-n", "needl"]);
        let end = runqlat(&["--comm", "c-needl"]);
        let mut spent = Vec::new();
        for (name, count) in names.iter().zip([101, 53, 31, 211]) {
            // Named before it is counted: until then it was "workload".
            spent.push(arrivals(&mut naps(count, name)));
        }
        let all = |tool: Running| {
            let ended = tool.stop().expect(0);
            total(&ended.histograms()).0 + ended.end().all_lost()
        };
        let (found, found_end) = (all(tool), all(end));
        let (expected, expected_end) = (spent[0] + spent[1] + spent[2], spent[2]);
        // Between its naming and its gate, and after its work, each waits a few times more; emulated, some more.
        let more = if env::is_tcg() { 60 } else { 12 };
        assert!((expected - 8..expected + more).contains(&found), "{found} of {expected}");
        assert!(
            (expected_end - 4..expected_end + more).contains(&found_end),
            "{found_end} of {expected_end}"
        );
    }

    #[test]
    fn by_group_with_those_below_and_new_ones() {
        let (Ok(group), Ok(other)) = (Cgroup::new(), Cgroup::new()) else { skip!("no cgroup v2") };
        let (mut inside, mut below, mut outside) = (naps(101, "a"), naps(53, "a"), naps(211, "a"));
        group.add(inside.pid());
        other.add(outside.pid());
        let one = Tool::new("runqlat").arg("--json").arg("-c").arg(group.dir()).start();
        let two =
            Tool::new("runqlat").arg("--json").arg("-c").arg(group.dir()).arg("--cgroup").arg(other.dir());
        let two = two.start();
        // A group two levels down that was not there when the tool started.
        let middle = group.child("middle");
        let inner = middle.child("inner");
        inner.add(below.pid());
        let (a, b, c) = (arrivals(&mut inside), arrivals(&mut below), arrivals(&mut outside));
        check(one, a + b);
        check(two, a + b + c);
        drop((inside, below, outside));
        drop(inner);
        drop(middle);
    }

    #[test]
    fn filters_have_to_hold_together() {
        let (mut one, mut two) = (naps(101, "needle"), naps(53, "other"));
        let pids = format!("{},{}", one.pid(), two.pid());
        let tool = runqlat(&["-p", &pids, "-n", "needle"]);
        let a = arrivals(&mut one);
        assert!(arrivals(&mut two) > if env::is_tcg() { 20 } else { 50 });
        check(tool, a);
    }

    #[test]
    fn kept_apart_by_cpu() {
        let mut work = naps(101, "a");
        let tool = runqlat(&["--by", "cpu", "-p", &work.pid().to_string()]);
        let spent = arrivals(&mut work);
        let ended = tool.stop().expect(0);
        let hists = ended.histograms();
        assert!(hists.iter().all(|hist| hist.key.int("cpu") == cpu::last() as i64), "{hists:?}");
        cpu::assert_all(total(&hists).0, ended.end().all_lost(), spent);
        if cpu::allowed().len() < 2 {
            return;
        }
        let all = runqlat(&["--by", "cpu"]);
        for cpu in cpu::allowed() {
            let work = Work::new("nap 31 1000").on_cpu(cpu).hold().start().unwrap();
            drop(work.run());
        }
        let hists = histograms(all);
        for cpu in cpu::allowed() {
            let of_cpu = hists.iter().filter(|hist| hist.key.int("cpu") == cpu as i64);
            assert!(total(of_cpu).0 >= 31, "CPU {cpu}: {hists:?}");
        }
    }

    #[test]
    fn kept_apart_by_group() {
        let group = match Cgroup::new() {
            Ok(group) => group,
            Err(why) => skip!("{why}"),
        };
        let inner = group.child("inner");
        let (mut one, mut two) = (naps(101, "a"), naps(53, "a"));
        group.add(one.pid());
        inner.add(two.pid());
        let tool = runqlat(&["--by", "cgroup", "-p", &format!("{},{}", one.pid(), two.pid())]);
        let (a, b) = (arrivals(&mut one), arrivals(&mut two));
        let ended = tool.stop().expect(0);
        let (hists, lost) = (ended.histograms(), ended.end().all_lost());
        let of = |path: String| total(hists.iter().filter(|hist| hist.key.str("cgroup") == path)).0;
        cpu::assert_all(of(group.path()), lost, a);
        cpu::assert_all(of(inner.path()), lost, b);
        assert_eq!(total(&hists).0, of(group.path()) + of(inner.path()), "{hists:?}");
        drop((one, two));
    }

    #[test]
    fn kept_apart_by_pid_namespace() {
        let mut work = Work::new("nap 101 1000").under("unshare --fork --pid").hold().start().unwrap();
        let link = format!("/proc/{}/ns/pid_for_children", work.outer_pid());
        let link = wait_until("its namespace", || std::fs::read_link(&link).ok());
        let inode: i64 = link.to_str().unwrap().trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
        let long = runqlat(&["--pidnss"]);
        let short = runqlat(&["--by", "pidns"]);
        work.go();
        work.wait_done();
        for ended in [long.stop().expect(0), short.stop().expect(0)] {
            let (hists, lost) = (ended.histograms(), ended.end().all_lost());
            let inside = total(hists.iter().filter(|hist| hist.key.int("pidns") == inode)).0;
            // Once more for its gate; nothing else lives in there.
            assert!(inside < 110 && inside > 90 && inside + lost > 97, "{inside} waits in namespace {inode}");
            assert!(hists.iter().any(|hist| hist.key.int("pidns") != inode), "the others are there too");
        }
    }

    #[test]
    fn the_short_flags_are_the_long_ones() {
        let noise = Noise::new();
        let pid = noise.pid().to_string();
        let keys = |args: &[&str]| {
            let ended = Tool::new("runqlat").args(["--json", "-p", &pid]).args(args).args(["0.1", "2"]).run();
            let hists = ended.expect(0).histograms();
            assert!(!hists.is_empty(), "{args:?}");
            hists[0].key.names().iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()
        };
        for (args, key) in [
            (&["-P"][..], &["pid", "comm", "why"][..]),
            (&["--pids"], &["pid", "comm", "why"]),
            (&["--by", "pid"], &["pid", "comm", "why"]),
            (&["-L"], &["tid", "comm", "why"]),
            (&["--by", "tid"], &["tid", "comm", "why"]),
            (&["--pidnss"], &["pidns", "why"]),
            (&["--by", "why"], &["why"]),
            (&[], &["why"]),
        ] {
            assert_eq!(keys(args), key, "{args:?}");
        }
        assert!(Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_command_is_traced_with_its_children() {
        let nap = |count: u64| {
            let words = Work::new(&format!("nap {count} 1000")).words();
            words.iter().map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
                + " >/dev/null"
        };
        let script = format!("{} & wait; {}; exit 3", nap(53), nap(101));
        let noise = Noise::new(); // of the same name, and not a child
        let tool = Tool::new("runqlat").words("--json -P -- /bin/sh -c").arg(&script);
        let ended = tool.run().expect(3);
        let (hists, lost) = (ended.histograms(), ended.end().all_lost());
        let pids: BTreeSet<i64> = hists.iter().map(|hist| hist.key.int("pid")).collect();
        assert!(!pids.contains(&noise.pid().into()) && pids.len() <= 4, "{hists:?}");
        let count = |pid: &i64| total(hists.iter().filter(|hist| hist.key.int("pid") == *pid)).0;
        let mut counts: Vec<u64> = pids.iter().map(count).collect();
        counts.sort_unstable();
        let [.., one, two] = counts[..] else { panic!("the shell and its two children: {hists:?}") };
        assert!(one + lost > 48 && two + lost > 96, "{one} and {two} waits, {lost} lost");
    }

    /// Not by that of whoever forked it.
    #[test]
    fn a_process_is_called_by_the_name_that_it_has_in_the_end() {
        let command = Work::new("nap 53 1000").words();
        let ended = Tool::new("runqlat").words("-P --").args(command).run().expect(0);
        let found = tracebelt_tests::blocks(&ended.out());
        assert_eq!(found.len(), 1, "{}", ended.story());
        assert!(found[0].label.ends_with(" workload"), "{}", found[0].label);
    }
}
