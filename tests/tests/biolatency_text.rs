//! biolatency's text output: what scripts that were written for the peers read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use tracebelt_tests::disk::{BLOCK, Direct, Loop};
    use tracebelt_tests::{Ended, Tool, blocks, skip};

    fn run(args: &[&str], disk: &Loop) -> Ended {
        let tool = Tool::new("biolatency").args(["-d", disk.path()]).args(args).start();
        let mut direct = Direct::open(&disk.device, BLOCK);
        direct.reads(101);
        direct.writes(53);
        tool.stop().expect(0).silent_but_for_losses()
    }

    #[test]
    fn the_block_is_the_peers_to_the_byte() {
        let disk = match Loop::new(1) {
            Ok(disk) => disk,
            Err(why) => skip!("{why}"),
        };
        for (args, unit) in [(&[][..], "usecs"), (&["-Q"], "usecs"), (&["-m"], "msecs"), (&["--ns"], "nsecs")]
        {
            let text = run(args, &disk).out();
            assert!(text.starts_with("Tracing block device I/O ("), "{text}");
            assert!(text.lines().next().unwrap().ends_with(")... Hit Ctrl-C to end."), "{text}");
            let found = blocks(&text);
            assert_eq!(found.len(), 1, "{text}");
            assert_eq!(found[0].raw, found[0].by_the_book());
            assert_eq!(found[0].unit, unit);
            assert!(found[0].count() > 140 && found[0].field("count") as u64 == found[0].count(), "{text}");
        }
    }

    #[test]
    fn sections_are_labelled_and_the_most_time_comes_first() {
        let disk = match Loop::new(1) {
            Ok(disk) => disk,
            Err(why) => skip!("{why}"),
        };
        let text = run(&["-D", "-F"], &disk).out();
        let found = blocks(&text);
        assert_eq!(found.len(), 2, "{text}");
        for block in &found {
            let label = format!("disk = {} flags = ", disk.name());
            assert!(block.label.starts_with(&label), "{}", block.label);
            assert!(text.contains(&format!("\n\n{}\n     usecs ", block.label)), "{text}");
        }
        let time: Vec<f64> = found.iter().map(|block| block.field("count") * block.field("mean")).collect();
        assert!(time[0] >= time[1] * 0.99, "{time:?}");
        let text = run(&["-D"], &disk).out();
        assert!(text.contains(&format!("\n\n\ndisk = {}\n     usecs ", disk.name())), "{text}");
    }

    #[test]
    fn queue_and_device_stand_side_by_side() {
        let disk = match Loop::new(1) {
            Ok(disk) => disk,
            Err(why) => skip!("{why}"),
        };
        let text = run(&["--split"], &disk).out();
        let sum = |field: usize| {
            let rows = text.lines().filter(|line| line.contains(" -> "));
            rows.map(|row| row.split_whitespace().nth(field).unwrap().parse::<u64>().unwrap()).sum::<u64>()
        };
        assert!(sum(4) == sum(5) && sum(4) > 140, "{text}");
        let figures: Vec<&str> = text.lines().filter(|line| line.starts_with("# ")).collect();
        assert!(
            figures[0].starts_with("# queue  count=") && figures[1].starts_with("# device count="),
            "{text}"
        );
        let widths: Vec<usize> = text.lines().filter(|line| line.ends_with('|')).map(str::len).collect();
        assert!(widths.windows(2).all(|two| two[0] == two[1]), "{text}");
    }

    #[test]
    fn what_is_added_stands_below() {
        let disk = match Loop::new(1) {
            Ok(disk) => disk,
            Err(why) => skip!("{why}"),
        };
        let text = run(&["-e", "-i", "-T"], &disk).out();
        let last = text.lines().last().unwrap();
        assert!(
            last.starts_with("avg = ") && last.contains(" usecs, total: ") && last.contains(", count: 1"),
            "{text}"
        );
        assert!(text.contains("\n# in flight at issue: mean=1.0 max=1\n"), "{text}");
        let clock = |line: &str| line.len() == 8 && line.bytes().filter(u8::is_ascii_digit).count() == 6;
        assert_eq!(text.lines().filter(|line| clock(line)).count(), 1, "{text}");
    }

    #[test]
    fn averages_of_a_split_are_two() {
        let disk = match Loop::new(1) {
            Ok(disk) => disk,
            Err(why) => skip!("{why}"),
        };
        let text = run(&["-e", "--split"], &disk).out();
        let last: Vec<&str> = text.lines().rev().take(2).collect();
        assert!(last[1].starts_with("queue  avg = ") && last[0].starts_with("device avg = "), "{text}");
    }

    #[test]
    fn rows_have_a_header_and_columns() {
        let disk = match Loop::new(1) {
            Ok(disk) => disk,
            Err(why) => skip!("{why}"),
        };
        let text = run(&["--slower", "1us"], &disk).out();
        let head: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let columns =
            ["TIME", "DISK", "OP", "SECTOR", "KB", "QUEUE", "DEVICE", "TOTAL", "PID", "COMM", "ERR"];
        assert_eq!(head, columns);
        let row = text.lines().nth(2).unwrap();
        assert!(row.contains(&format!(" {} ", disk.name())) && row.ends_with(" -"), "{row}");
    }

    #[test]
    fn no_io_is_said_with_what_it_may_be() {
        let disk = match Loop::new(1) {
            Ok(disk) => disk,
            Err(why) => skip!("{why}"),
        };
        let ended = Tool::new("biolatency").args(["-d", disk.path(), "0.1", "1"]).run().expect(0);
        let said = "biolatency: no request that matches -d ended: the disk may be idle, ";
        assert!(ended.err().starts_with(said) && ended.err().contains("page cache"), "{}", ended.story());
        assert!(blocks(&ended.out()).is_empty());
    }

    #[test]
    fn short_json_is_json() {
        let disk = match Loop::new(1) {
            Ok(disk) => disk,
            Err(why) => skip!("{why}"),
        };
        let ended = Tool::new("biolatency").args(["-j", "-d", disk.path(), "0.1", "2"]).run().expect(0);
        assert_eq!(ended.histograms().len(), 2, "{}", ended.story());
        assert_eq!(ended.histograms()[0].key.str("span"), "device");
    }
}
