//! biolatency: which I/O is counted, and what is kept apart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

/// Usage errors need no privilege.
#[test]
fn a_process_is_refused_with_what_to_use_instead() {
    for args in ["-p 1", "--pid 1", "-p"] {
        let ended = tracebelt_tests::Tool::new("biolatency").words(args).run();
        ended.expect_error(2, &["-p", "--slower", "-c CGROUP"]);
    }
}

#[test]
fn what_excludes_each_other_is_said() {
    for args in
        ["--by disk,partition", "-F --by op", "--split -Q", "--bio --split", "--size -m", "--slower 1ms -D"]
    {
        let ended = tracebelt_tests::Tool::new("biolatency").words(args).run().expect(2);
        assert!(ended.stdout.is_empty() && ended.err_lines().len() == 1, "{}", ended.story());
    }
}

mod root {
    use tracebelt_tests::disk::{BLOCK, Direct, Loop, assert_all};
    use tracebelt_tests::latency::{self, biolatency};
    use tracebelt_tests::{Ended, Histogram, Tool, skip, total};

    fn count(ended: &Ended) -> u64 {
        total(&ended.histograms()).0
    }

    fn key<'a>(hist: &'a Histogram, name: &str) -> &'a str {
        hist.key.str(name)
    }

    fn disk() -> Result<Loop, String> {
        Loop::new(1)
    }

    #[test]
    fn a_disk_has_many_names() {
        let (one, other) = match (disk(), disk()) {
            (Ok(one), Ok(other)) => (one, other),
            (Err(why), _) | (_, Err(why)) => skip!("{why}"),
        };
        let number = std::fs::read_to_string(format!("/sys/block/{}/dev", one.name())).unwrap();
        let link = format!("{}.link", one.image().display());
        std::os::unix::fs::symlink(&one.device, &link).unwrap();
        let names = [one.name(), one.path(), number.trim(), &link];
        let tools = names.map(|name| Tool::new("biolatency").args(["--json", "--disk", name]).start());
        let both = Tool::new("biolatency").args(["--json", "-d", one.path(), "-d", other.name()]).start();
        Direct::open(&one.device, BLOCK).reads(101);
        Direct::open(&other.device, BLOCK).reads(53);
        for tool in tools {
            let ended = tool.stop().expect(0);
            assert_all(count(&ended), &ended, 101);
        }
        let ended = both.stop().expect(0);
        assert_all(count(&ended), &ended, 101 + 53);
    }

    #[test]
    fn a_disk_that_is_not_there_is_named_with_those_that_are() {
        let one = match disk() {
            Ok(one) => one,
            Err(why) => skip!("{why}"),
        };
        for name in ["no-such-disk", "/dev/null", "4095:1"] {
            let ended = Tool::new("biolatency").args(["-d", name]).run();
            drop(ended.expect_error(1, &[name, one.name()]));
        }
    }

    #[test]
    fn a_partition_is_its_sectors() {
        let one = match Loop::partitioned() {
            Ok(one) => one,
            Err(why) => skip!("{why}"),
        };
        if !one.partition(2).exists() {
            skip!("this kernel does not look for partitions on {}", one.path());
        }
        let parts = [one.partition(1), one.partition(2)];
        let tools =
            parts.each_ref().map(|part| Tool::new("biolatency").arg("--json").arg("-d").arg(part).start());
        let bios = Tool::new("biolatency").words("--json --bio -d").arg(&parts[1]).start();
        let by = Tool::new("biolatency").args(["--json", "--by", "partition", "-d", one.path()]).start();
        for (part, reads) in parts.iter().zip([101, 53]) {
            Direct::open(part, BLOCK).reads(reads);
        }
        // On the whole disk, below and within the second one's sectors.
        let mut whole = Direct::open(&one.device, BLOCK);
        assert_eq!(whole.read(0, BLOCK).unwrap(), BLOCK);
        for _ in 0..7 {
            assert_eq!(whole.read(4 << 20, BLOCK).unwrap(), BLOCK);
        }
        let [first, second] = tools.map(|tool| tool.stop().expect(0));
        assert_all(count(&first), &first, 101);
        assert_all(count(&second), &second, 53 + 7);
        let ended = bios.stop().expect(0);
        assert_all(count(&ended), &ended, 53 + 7);
        let ended = by.stop().expect(0);
        let of = |name: &str| {
            let hists = ended.histograms();
            total(hists.iter().filter(|hist| key(hist, "partition") == name)).0
        };
        let name = |i: usize| parts[i].file_name().unwrap().to_str().unwrap();
        // Before 5.12 a bio does not keep the partition: then it is that of the sector.
        let by_sector = of(name(1)) > 53;
        assert_all(of(name(0)), &ended, 101);
        assert_all(of(name(1)), &ended, if by_sector { 60 } else { 53 });
        assert_all(of(one.name()), &ended, if by_sector { 1 } else { 8 });
    }

    #[test]
    fn operations_are_chosen_by_name() {
        let one = match disk() {
            Ok(one) => one,
            Err(why) => skip!("{why}"),
        };
        let ops = ["read", "WRITE", "flush", "write,read", "discard"];
        for mode in ["", "--bio"] {
            let tool = |op| Tool::new("biolatency").args(["--json", "-d", one.path(), "-o", op]).words(mode);
            let tools = ops.map(|op| tool(op).start());
            let by = biolatency(one.path(), &format!("--by op {mode}")).start();
            let mut direct = Direct::open(&one.device, BLOCK);
            direct.reads(101);
            direct.writes(53);
            (0..7).for_each(|_| direct.flush());
            for (tool, done) in tools.into_iter().zip([101, 53, 7, 101 + 53, 0]) {
                let ended = tool.stop().expect(0);
                assert_all(count(&ended), &ended, done);
            }
            let by = by.stop().expect(0);
            for (op, done) in [("Read", 101), ("Write", 53), ("Flush", 7)] {
                assert_all(latency::count(&by.histograms(), "op", op), &by, done);
            }
        }
        Tool::new("biolatency").words("-o trim").run().expect_error(2, &["--op", "'trim'", "discard"]);
    }

    #[test]
    fn kinds_combine() {
        let (one, other) = match (disk(), disk()) {
            (Ok(one), Ok(other)) => (one, other),
            (Err(why), _) | (_, Err(why)) => skip!("{why}"),
        };
        let tool = Tool::new("biolatency").args(["--json", "-D", "-F", "--by", "size"]).start();
        let (mut a, mut b) = (Direct::open(&one.device, 4 * BLOCK), Direct::open(&other.device, 4 * BLOCK));
        a.reads(101);
        b.writes(53);
        for _ in 0..17 {
            assert_eq!(b.read(0, 4 * BLOCK).unwrap(), 4 * BLOCK);
        }
        let ended = tool.stop().expect(0);
        let hists = ended.histograms();
        let of = |disk: &Loop, op: &str, size: i64| {
            let matches = |hist: &&Histogram| {
                key(hist, "disk") == disk.name()
                    && key(hist, "flags").ends_with(op)
                    && hist.key.int("size") == size
            };
            total(hists.iter().filter(matches)).0
        };
        assert_all(of(&one, "Read", 4096), &ended, 101);
        assert_all(of(&other, "Sync-Write", 4096), &ended, 53);
        assert_all(of(&other, "Read", 16384), &ended, 17);
        assert!(hists.iter().all(|hist| hist.key.names() == ["disk", "flags", "size", "span"]));
    }

    #[test]
    fn sizes_are_exact() {
        let one = match disk() {
            Ok(one) => one,
            Err(why) => skip!("{why}"),
        };
        let tool = Tool::new("biolatency").args(["--json", "--size", "-d", one.path()]).start();
        let mut direct = Direct::open(&one.device, 4 * BLOCK);
        direct.reads(13);
        for _ in 0..5 {
            assert_eq!(direct.read(0, 4 * BLOCK).unwrap(), 4 * BLOCK);
        }
        let ended = tool.stop().expect(0);
        let hist = &ended.histograms()[0];
        assert_eq!(hist.unit, "bytes");
        assert_all(hist.count, &ended, 18);
        assert_eq!((hist.min, hist.max), (4096.0, 16384.0));
        if hist.count == 18 {
            assert!((hist.sum - (13.0 * 4096.0 + 5.0 * 16384.0)).abs() < 0.5, "{}", ended.story());
        }
    }

    #[test]
    fn rows_say_which_io_it_was_and_whose() {
        let one = match disk() {
            Ok(one) => one,
            Err(why) => skip!("{why}"),
        };
        for mode in ["", "--bio"] {
            let tool = Tool::new("biolatency")
                .args(["--json", "--slower", "1ns", "-d", one.path()])
                .words(mode)
                .start();
            let mut direct = Direct::open(&one.device, 2 * BLOCK);
            direct.reads(23);
            assert_eq!(direct.write(3 * BLOCK as u64, 2 * BLOCK).unwrap(), 2 * BLOCK);
            let ended = tool.stop().expect(0);
            let rows = ended.rows();
            assert_all(rows.len() as u64, &ended, 24);
            for (i, row) in rows.iter().filter(|row| row.str("op") == "Read").enumerate() {
                assert_eq!((row.str("disk"), row.int("bytes")), (one.name(), 4096), "{}", row.line());
                assert!(row.int("sector") >= i as i64 * 8, "{}", row.line());
                assert_eq!(row.pid(), Some(std::process::id().into()), "{}", row.line());
                assert!(row.str("comm").len() > 1 && row.get("error").is_null(), "{}", row.line());
                if mode.is_empty() {
                    let parts = row.num("queue_usecs") + row.num("device_usecs");
                    assert!((parts - row.num("total_usecs")).abs() < 0.01, "{}", row.line());
                }
            }
            if let Some(write) = rows.iter().find(|row| row.str("op") == "Write") {
                assert_eq!((write.int("sector"), write.int("bytes")), (24, 8192));
                assert!(write.str("flags").ends_with("Sync-Write") || write.str("flags").contains("Sync"));
            }
        }
    }

    /// All of its I/O, and then the run is over.
    #[test]
    fn a_command_is_the_length_of_the_run() {
        let disk = match Loop::new(1) {
            Ok(disk) => disk,
            Err(why) => skip!("{why}"),
        };
        let read = format!("dd if={} of=/dev/null iflag=direct bs=4096 count=101; exit 7", disk.path());
        let ended = biolatency(disk.path(), "-o read -- sh -c").arg(&read).run().expect(7);
        assert_all(ended.end().events(), &ended, 101);
    }
}
