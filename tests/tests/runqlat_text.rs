//! runqlat's text output: what scripts that were written for the peers read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use std::time::Instant;

    use tracebelt_tests::cpu::{self, Account};
    use tracebelt_tests::{Block, Ended, Noise, Tool, Work, blocks, env};

    const BANNER: &str = "Tracing run queue latency... Hit Ctrl-C to end.";

    /// What a run prints beside counted naps and two that are always busy.
    fn crowded(args: &[&str]) -> (Ended, Account) {
        let work = ["spin 0.7", "spin 0.7", "nap 101 1000"];
        let mut work = work.map(|words| Work::new(words).on_cpu(cpu::last()).hold().start().unwrap());
        let pids: Vec<String> = work.iter().map(|w| w.pid().to_string()).collect();
        let before: Vec<Account> = work.iter().map(|w| Account::of(w.pid())).collect();
        let tool = Tool::new("runqlat").args(["-p", &pids.join(",")]).args(args).start();
        work.iter_mut().for_each(tracebelt_tests::Workload::go);
        work.iter().for_each(tracebelt_tests::Workload::wait_done);
        let spent = work.iter().zip(before).map(|(w, before)| Account::of(w.pid()).since(before));
        let spent = spent.fold(Account::default(), Account::plus);
        (tool.stop().expect(0).silent_but_for_losses(), spent)
    }

    fn noise_run(args: &[&str]) -> Ended {
        let noise = Noise::new();
        Tool::new("runqlat")
            .args(["-p", &noise.pid().to_string()])
            .args(args)
            .run()
            .expect(0)
            .silent_but_for_losses()
    }

    #[track_caller]
    fn check(block: &Block, unit: &str) {
        assert_eq!(block.raw, block.by_the_book());
        assert_eq!(block.unit, unit);
        assert!(block.rows.last().unwrap().2 > 0, "no empty rows at the end\n{}", block.raw);
        let names: Vec<&str> = block.summary.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["count", "min", "mean", "p50", "p90", "p99", "p99.9", "max"]);
        assert_eq!(block.field("count") as u64, block.count(), "{}", block.raw);
        let ranks = ["min", "p50", "p90", "p99", "p99.9", "max"].map(|name| block.field(name));
        assert!(ranks.is_sorted(), "{ranks:?}");
        // Exact but for the rounding, so they lie in the first and the last row that is not empty.
        let filled: Vec<&(u64, u64, u64)> = block.rows.iter().filter(|row| row.2 > 0).collect();
        let (first, last) = (filled[0], filled[filled.len() - 1]);
        let (min, max) = (block.field("min"), block.field("max"));
        assert!(first.0 as f64 - 0.06 <= min && min < first.1 as f64 + 1.06, "min {min}\n{}", block.raw);
        assert!(last.0 as f64 - 0.06 <= max && max < last.1 as f64 + 1.06, "max {max}\n{}", block.raw);
    }

    #[test]
    fn the_block_is_the_peers_to_the_byte() {
        let (ended, spent) = crowded(&[]);
        let text = ended.out();
        assert!(text.starts_with(&format!("{BANNER}\n\n     usecs ")), "{text}");
        let found = blocks(&text);
        assert_eq!(found.len(), 1, "{text}");
        check(&found[0], "usecs");
        cpu::assert_all(found[0].count(), ended.said_lost(), spent.arrivals);
        let last = text.lines().rfind(|line| !line.is_empty()).unwrap();
        assert!(last.starts_with(&format!("# count={} min=", found[0].count())), "{last}");
        assert!(last.ends_with(" (usecs)"), "{last}");
        // Nothing else: the banner, an empty line, header, rows, summary.
        assert_eq!(text.lines().filter(|line| !line.is_empty()).count(), 3 + found[0].rows.len(), "{text}");
    }

    #[test]
    fn awk_finds_the_count_in_the_fifth_field() {
        let (ended, spent) = crowded(&[]);
        let text = ended.out();
        let rows = text.lines().filter(|line| line.contains(" -> "));
        let sum: u64 = rows.map(|row| row.split_whitespace().nth(4).unwrap().parse::<u64>().unwrap()).sum();
        cpu::assert_all(sum, ended.said_lost(), spent.arrivals);
    }

    #[test]
    fn units_are_said_and_meant() {
        let means: Vec<f64> = [(&["--ns"][..], "nsecs"), (&[], "usecs"), (&["-m"], "msecs")]
            .into_iter()
            .map(|(args, unit)| {
                let (ended, _) = crowded(args);
                let text = ended.out();
                let block = blocks(&text).remove(0);
                check(&block, unit);
                assert!(text.contains(&format!(" ({unit})\n")), "{text}");
                block.field("mean")
            })
            .collect();
        let ratio = |small: f64, large: f64| (300.0..3000.0).contains(&(small / large));
        assert!(
            ratio(means[0], means[1]) && ratio(means[1], means[2]),
            "a thousand apart, roughly: {means:?}"
        );
    }

    #[test]
    fn sections_are_labelled_and_the_longest_wait_comes_first() {
        let (ended, spent) = crowded(&["-P"]);
        let text = ended.out();
        let found = blocks(&text);
        assert_eq!(found.len(), 3, "{text}");
        found.iter().for_each(|block| check(block, "usecs"));
        for block in &found {
            let words: Vec<&str> = block.label.split(' ').collect();
            assert!(words[..2] == ["pid", "="] && words[3..] == ["workload"], "{}", block.label);
            assert!(text.contains(&format!("\n\n{}\n     usecs ", block.label)), "{text}");
        }
        cpu::assert_all(found.iter().map(Block::count).sum(), ended.said_lost(), spent.arrivals);
        let waited: Vec<f64> = found.iter().map(|block| block.field("count") * block.field("mean")).collect();
        assert!(waited.windows(2).all(|two| two[0] >= two[1] * 0.99), "sorted by total wait: {waited:?}");
    }

    #[test]
    fn other_sections_have_other_labels() {
        for (args, label) in
            [("-L", "tid = "), ("--pidnss", "pidns = "), ("--by cpu", "cpu = "), ("--by why", "why = ")]
        {
            let mut words: Vec<&str> = args.split(' ').collect();
            words.extend(["0.2", "1"]);
            let text = noise_run(&words).out();
            let found = blocks(&text);
            assert!(
                !found.is_empty() && found.iter().all(|block| block.label.starts_with(label)),
                "{args}\n{text}"
            );
        }
    }

    #[test]
    fn top_shows_the_longest_only() {
        let (ended, spent) = crowded(&["-P", "--top", "2"]);
        let found = blocks(&ended.out());
        assert_eq!(found.len(), 3, "{}", ended.out());
        assert!(
            found[2].label.starts_with("others = 1 "),
            "what is not shown is not dropped: {}",
            found[2].label
        );
        cpu::assert_all(found.iter().map(Block::count).sum(), ended.said_lost(), spent.arrivals);
    }

    #[test]
    fn a_timestamp_stands_before_each_report() {
        // Emulated, printing one takes so long that the next may be due: then two are one.
        let interval = if env::is_tcg() { "2" } else { "0.1" };
        let text = noise_run(&["-T", interval, "3"]).out();
        let clock = |line: &&str| {
            line.len() == 8
                && line.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).eq("00:00:00".chars())
        };
        assert_eq!(text.lines().filter(clock).count(), 3, "{text}");
        assert_eq!(blocks(&text).len(), 3, "{text}");
        let after_clock: Vec<&str> = text
            .lines()
            .zip(text.lines().skip(1))
            .filter(|(line, _)| clock(line))
            .map(|(_, next)| next)
            .collect();
        assert!(after_clock.iter().all(|line| line.trim_start().starts_with("usecs")), "{text}");
    }

    #[test]
    fn a_count_ends_the_run_and_intervals_do_not_drift() {
        let noise = Noise::new();
        let tool = Tool::new("runqlat").args(["--json", "-p", &noise.pid().to_string(), "0.2", "7"]).start();
        let start = Instant::now();
        let ended = tool.wait().expect(0);
        let took = start.elapsed().as_secs_f64();
        let mut times: Vec<u64> = ended
            .records()
            .iter()
            .filter(|record| record.str("type") == "histogram")
            .map(tracebelt_tests::Record::micros_of_day)
            .collect();
        times.dedup();
        if env::is_tcg() {
            return; // printing takes so long that two may be one
        }
        assert_eq!(times.len(), 7, "{times:?}");
        assert!(ended.histograms().iter().all(|hist| (hist.seconds - 0.2).abs() < 0.1));
        assert!((1.3..2.5).contains(&took), "7 times 0.2 s took {took}");
        // The last one against the first: what each is late does not add up.
        let span = times[6].wrapping_sub(times[0]) as f64 / 1e6;
        assert!((span - 1.2).abs() < 0.1, "six intervals of 0.2 s took {span}");
    }

    #[test]
    fn a_duration_ends_the_run() {
        for args in [&["-d", "0.3"][..], &["--duration", "300ms"], &["-d", "0.3", "0.1"]] {
            let start = Instant::now();
            let ended = noise_run(args);
            assert!(start.elapsed().as_secs_f64() >= 0.3, "{}", ended.story());
            assert!(!blocks(&ended.out()).is_empty(), "{}", ended.story());
        }
    }

    /// A pipe gets each report when it is due, not when some buffer is full.
    #[test]
    fn each_report_comes_at_once() {
        let noise = Noise::new();
        let tool = Tool::new("runqlat").args(["-p", &noise.pid().to_string(), "0.1"]).start();
        let lines = tool.lines(60);
        assert!(blocks(&lines.join("\n")).len() > 1, "reports come while it runs: {lines:?}");
        drop(tool.stop().expect(0));
    }
}
