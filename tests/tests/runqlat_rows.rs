//! runqlat --slower: a row for each wait; and what it says of a run that saw nothing or was throttled.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use tracebelt_tests::cpu::{self, Account};
    use tracebelt_tests::{Cgroup, Noise, Tool, Work, env, skip, total};

    #[test]
    fn every_wait_can_be_a_row() {
        let mut work = Work::new("nap 211 1000").on_cpu(cpu::last()).hold().start().unwrap();
        let before = Account::of(work.pid());
        let tool =
            Tool::new("runqlat").args(["--json", "--slower", "1ns", "-p", &work.pid().to_string()]).start();
        work.go();
        work.wait_done();
        let ended = tool.stop().expect(0);
        let spent = Account::of(work.pid()).since(before);
        let rows = ended.rows();
        cpu::assert_all(rows.len() as u64, ended.end().all_lost(), spent.arrivals);
        assert_eq!(ended.end().events(), rows.len() as u64);
        for row in &rows {
            assert_eq!((row.int("pid"), row.int("tid")), (work.pid().into(), work.pid().into()));
            assert_eq!((row.str("comm"), row.int("cpu")), ("workload", cpu::last() as i64));
            assert!(row.num("usecs") >= 0.0 && ["wakeup", "preempted"].contains(&row.str("why")));
        }
        let times: Vec<u64> = rows.iter().map(tracebelt_tests::Record::micros_of_day).collect();
        assert!(
            times.is_sorted() || times.windows(2).any(|two| two[0] > 80_000_000_000),
            "in the order of time"
        );
    }

    /// Two on one CPU take turns: whoever waited was put off by the other.
    #[test]
    fn a_row_names_who_was_in_the_way() {
        // A tenth of a second each, and nobody else gets a turn, on a busy machine either.
        let start = || {
            let work = Work::new("spin 2").option("--round-robin", "1");
            work.on_cpu(cpu::last()).hold().start().unwrap()
        };
        let mut work = [start(), start()];
        let pids: Vec<String> = work.iter().map(|w| w.pid().to_string()).collect();
        let pids = pids.join(",");
        let slow = Tool::new("runqlat").args(["--json", "--slower", "2048us", "-p", &pids]).start();
        let hist = Tool::new("runqlat").args(["--json", "-p", &pids]).start();
        work.iter_mut().for_each(tracebelt_tests::Workload::go);
        work.iter().for_each(tracebelt_tests::Workload::wait_done);
        let (rows, hists) = (slow.stop().expect(0).rows(), hist.stop().expect(0).histograms());
        let buckets = hists.iter().flat_map(|hist| &hist.buckets);
        let long: u64 = buckets.filter(|(lo, _, _)| *lo >= 2048.0).map(|(_, _, n)| n).sum();
        assert!(long > 8, "two spinners wait for each other: {long}");
        // Two tools read the clock one after the other: a wait at the very edge may be on either side.
        let off = (rows.len() as i64 - long as i64).abs();
        assert!(off <= 2 + long as i64 / 50, "{} rows, {long} long waits in the histogram", rows.len());
        assert!(rows.iter().all(|row| row.num("usecs") >= 2048.0));
        let [one, other] = [0, 1].map(|i| i64::from(work[i].pid()));
        let by_other = rows.iter().filter(|row| {
            let expected = if row.int("pid") == one { other } else { one };
            row.int("prev_pid") == expected && row.str("prev_comm") == "workload"
        });
        let by_other = by_other.count();
        let most = if env::is_rt() { 2 } else { rows.len() / 2 };
        assert!(by_other > most, "{by_other} of {} waits end when the other goes", rows.len());
        let preempted = rows.iter().filter(|row| row.str("why") == "preempted").count();
        assert!(preempted * 10 > rows.len() * 8, "{preempted} of {} were preempted", rows.len());
    }

    #[test]
    fn rows_have_their_columns() {
        let noise = Noise::new();
        let tool = Tool::new("runqlat").args(["--slower", "1ns", "-p", &noise.pid().to_string()]).start();
        let lines = tool.lines(20);
        drop(tool.stop().expect(0));
        let header = lines.iter().position(|line| line.starts_with("TIME")).expect("a header");
        let names: Vec<&str> = lines[header].split_whitespace().collect();
        assert_eq!(names, ["TIME", "COMM", "PID", "TID", "CPU", "USECS", "WHY", "PREV-COMM", "PREV-PID"]);
        for line in &lines[header + 1..] {
            let cells: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(
                cells[1..4],
                ["workload", &noise.pid().to_string(), &noise.pid().to_string()],
                "{line}"
            );
            assert!(cells[5].parse::<f64>().is_ok() && ["wakeup", "preempted"].contains(&cells[6]), "{line}");
        }
    }

    #[test]
    fn rows_that_did_not_fit_are_counted() {
        let mut work = Work::new("pingpong 60013").hold().start().unwrap();
        let pid = work.pid().to_string();
        let tool = Tool::new("runqlat").args(["--json", "--strict", "--slower", "1ns", "-p", &pid]).start();
        let before = Account::of(work.pid());
        tool.freeze(); // nobody reads: the ring has to overflow
        work.go();
        work.wait_done();
        tool.thaw();
        let ended = tool.stop().expect(5);
        let lost = ended.end().lost("ring");
        let arrivals = Account::of(work.pid()).since(before).arrivals;
        cpu::assert_all(ended.rows().len() as u64 + lost, ended.end().lost("unmatched"), arrivals);
        assert!(lost > 0);
        assert!(ended.err().contains(&lost.to_string()), "the loss is said\n{}", ended.err());
    }

    #[test]
    fn a_run_that_matched_nothing_says_so() {
        let asleep = Work::new("nap 1 1").start().unwrap();
        for more in [&["0.1", "3"][..], &["-P", "0.1", "3"], &["--slower", "1ns", "-d", "0.3"]] {
            let ended =
                Tool::new("runqlat").args(["-p", &asleep.pid().to_string()]).args(more).run().expect(0);
            assert_eq!(ended.err_lines().len(), 1, "{}", ended.story());
        }
        let noise = Noise::new();
        Tool::new("runqlat")
            .args(["-p", &noise.pid().to_string(), "0.1", "3"])
            .run()
            .expect(0)
            .silent_but_for_losses();
    }

    #[test]
    fn throttling_is_told_from_contention() {
        let group = match Cgroup::new() {
            Ok(group) => group,
            Err(why) => skip!("{why}"),
        };
        if let Err(why) = group.limit_cpu(20_000, 100_000) {
            skip!("{why}");
        }
        let inner = group.child("inner");
        let mut work = Work::new("spin 1").hold().start().unwrap();
        inner.add(work.pid());
        let limited = Tool::new("runqlat").arg("--json").arg("-c").arg(group.dir()).start();
        let single = Tool::new("runqlat").args(["--json", "-p", &work.pid().to_string()]).start();
        work.go();
        work.wait_done();
        for ended in [limited.stop().expect(0), single.stop().expect(0)] {
            assert!(ended.err().contains("throttled"), "{}", ended.story());
            assert!(ended.end().0.line().contains("throttled_usec"), "{}", ended.end().0.line());
            let hists = ended.histograms();
            assert!(total(&hists).1 > 400_000.0, "a fifth of a CPU makes it wait: {:?}", total(&hists));
        }
        let free = Noise::new();
        let ended = Tool::new("runqlat").args(["--json", "-p", &free.pid().to_string(), "0.1", "3"]).run();
        assert!(!ended.expect(0).err().contains("throttled"));
    }
}
