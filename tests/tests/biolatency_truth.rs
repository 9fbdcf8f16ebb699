//! biolatency against I/O that was counted and timed by whoever did it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use std::fs::File;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use tracebelt_tests::disk::{BLOCK, Direct, Loop, assert_all, set};
    use tracebelt_tests::latency::{biolatency, count, errors, hist_records, of};
    use tracebelt_tests::{Ended, Histogram, Tool, env, eventually, skip, total, wait_until};

    /// Ends with why it cannot run here.
    fn each_operation(scheduler: &str) -> Result<(), String> {
        let disk = Loop::new(1)?;
        disk.schedule(scheduler)?;
        let mut direct = Direct::open(&disk.device, BLOCK);
        let tools = ["--by op", "--by op -Q", "--by op --split"];
        let tools = tools.map(|args| biolatency(disk.path(), args).start());
        direct.reads(211);
        direct.writes(101);
        for _ in 0..13 {
            direct.flush();
        }
        for tool in tools {
            let ended = tool.stop().expect(0).silent_but_for_losses();
            let hists = ended.histograms();
            let spans = if ended.line.contains("--split") { 2 } else { 1 };
            for (op, done) in [("Read", 211), ("Write", 101), ("Flush", 13)] {
                assert_all(count(&hists, "op", op) / spans, &ended, done);
            }
            assert_eq!(hists.len() as u64, 3 * spans, "{scheduler}: {}", ended.story());
            assert_all(ended.end().events(), &ended, 211 + 101 + 13);
        }
        Ok(())
    }

    /// A test for each, so that it is told apart which could not run.
    macro_rules! under {
        ($($name:ident: $scheduler:literal;)*) => {$(
            #[test]
            fn $name() {
                if let Err(why) = each_operation($scheduler) {
                    skip!("{why}");
                }
            }
        )*};
    }

    under! {
        each_operation_is_counted_once_under_none: "none";
        each_operation_is_counted_once_under_mq_deadline: "mq-deadline";
        each_operation_is_counted_once_under_kyber: "kyber";
        each_operation_is_counted_once_under_bfq: "bfq";
    }

    /// Queue and device time make the total, which is less than what a program waits for, by the layers above.
    #[test]
    fn times_are_what_the_program_measures_less_the_way_there() {
        let disk = match Loop::new(1) {
            Ok(disk) => disk,
            Err(why) => skip!("{why}"),
        };
        if let Err(why) = disk.schedule("none") {
            eprintln!("with another scheduler: {why}");
        }
        let mut direct = Direct::open(&disk.device, BLOCK);
        direct.reads(23);
        let tools = ["-Q", "--split", ""].map(|args| biolatency(disk.path(), args).start());
        let mut waited: Vec<f64> = direct.reads(509).iter().map(|d| d.as_nanos() as f64 / 1000.0).collect();
        let [whole, split, device] = tools.map(|tool| tool.stop().expect(0));
        // Emulated, the three tools' programs take as long as part of the I/O, one after the other; and the machine
        // is halted now and then between the clocks that two of them read, which is in the sum, not in the middle.
        let emulated = env::is_tcg();
        let time = |ended: &Ended, span: &str| {
            let record = hist_records(ended).find(|record| record.get("key")["span"] == span).unwrap();
            record.num(if emulated { "p50" } else { "sum" })
        };
        let close = if emulated { 0.25 } else { 0.03 };
        let (queue, device_part) = (time(&split, "queue"), time(&split, "device"));
        let (both, entire) = (queue + device_part, time(&whole, "total"));
        assert!((entire / both - 1.0).abs() < close, "total {entire}, queue and device {both}");
        let alone = time(&device, "device");
        assert!((alone / device_part - 1.0).abs() < close, "device {device_part}, {alone} alone");
        let (all, seen) = (waited.iter().sum::<f64>(), total(&whole.histograms()).1);
        assert!(seen < all, "{seen} us of {all}");
        if emulated {
            return; // entering the kernel takes longer than the I/O
        }
        // The fastest: others may have the CPU between an end and the program that waits for it.
        waited.sort_by(f64::total_cmp);
        let record = &whole.records()[0];
        for (name, rank) in [("min", 0), ("p50", 254), ("p99", 503)] {
            let (ours, theirs) = (record.num(name), waited[rank]);
            eprintln!("{name}: {ours:.1} us of {theirs:.1}");
            assert!(ours < theirs * 1.04, "{name}: {ours} of {theirs}");
        }
        assert!(record.num("min") > 0.3 * waited[0], "{} of {}", record.num("min"), waited[0]);
    }

    /// The file that a loop device stands on ends in the middle of a read: the driver completes what there is,
    /// requeues the request, and fails the rest.
    #[test]
    fn parts_and_requeues_are_one_request() {
        let disk = match Loop::new(1) {
            Ok(disk) => disk,
            Err(why) => skip!("{why}"),
        };
        File::options().write(true).open(disk.image()).unwrap().set_len(5 * BLOCK as u64).unwrap();
        let mut direct = Direct::open(&disk.device, 8 * BLOCK);
        let tools = ["", "--split", "--by op,size"].map(|args| biolatency(disk.path(), args).start());
        let failed = (0..7).filter(|_| direct.read(0, 8 * BLOCK).ok() != Some(8 * BLOCK)).count();
        if failed == 0 {
            skip!("the loop driver fills up what is not there: no direct I/O on this file system");
        }
        assert_eq!(failed, 7, "reads beyond the end of the file fail");
        direct.reads(0);
        assert_eq!(direct.read(0, BLOCK).unwrap(), BLOCK);
        for tool in tools {
            let ended = tool.stop().expect(0).silent();
            assert_all(ended.end().events(), &ended, 7 + 1);
            let hists: Vec<_> =
                ended.records().iter().filter(|record| record.str("type") == "histogram").collect();
            let big = hists.iter().find(|hist| hist.get("key").get("size").is_none_or(|size| size == 32768));
            let big = big.unwrap();
            assert_all(big.get("errors")["EIO"].as_u64().unwrap(), &ended, 7);
            assert_eq!(big.get("requeued"), 7, "{}", ended.story());
        }
        let text = Tool::new("biolatency").args(["-d", disk.path()]).start();
        assert!(direct.read(0, 8 * BLOCK).ok() != Some(8 * BLOCK));
        let out = text.stop().expect(0).out();
        assert!(out.ends_with("\n# errors: EIO=1\n# requeued=1\n"), "{out}");
    }

    #[test]
    fn nothing_depends_on_the_kernels_own_statistics() {
        let disk = match Loop::new(1) {
            Ok(disk) => disk,
            Err(why) => skip!("{why}"),
        };
        let mut direct = Direct::open(&disk.device, BLOCK);
        direct.reads(101); // in the requests stands now when these were submitted
        set(disk.name(), "iostats", "0").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(500));
        for args in ["", "-Q", "--split"] {
            let tool = biolatency(disk.path(), args).start();
            let longest = direct.reads(101).into_iter().max().unwrap();
            let ended = tool.stop().expect(0);
            assert_all(ended.end().events(), &ended, 101);
            for hist in ended.histograms() {
                assert!(hist.max <= longest.as_nanos() as f64 / 1000.0, "{longest:?}\n{}", ended.story());
            }
        }
    }

    /// More pairs of disk and operation than the peers' tables hold.
    #[test]
    fn many_disks_and_operations_are_all_there() {
        let disks: Vec<Loop> = match (0..12).map(|_| Loop::new(1)).collect() {
            Ok(disks) => disks,
            Err(why) => skip!("{why}"),
        };
        let tool = Tool::new("biolatency").words("--json -D --by op").start();
        let split = Tool::new("biolatency").words("--json -D -F --split").start();
        for (i, disk) in (0..).zip(&disks) {
            let mut direct = Direct::open(&disk.device, BLOCK);
            direct.reads(31 + i);
            direct.writes(17 + i);
            direct.flush();
        }
        let (ended, split) = (tool.stop().expect(0), split.stop().expect(0));
        let hists = ended.histograms();
        for (i, disk) in (0..).zip(&disks) {
            let own: Vec<Histogram> = of(&hists, "disk", disk.name()).into_iter().cloned().collect();
            for (op, done) in [("Read", 31 + i), ("Write", 17 + i), ("Flush", 1)] {
                assert_all(count(&own, "op", op), &ended, done);
            }
            let both = total(of(&split.histograms(), "disk", disk.name())).0;
            assert_all(both / 2, &split, 31 + i + 17 + i + 1);
        }
    }

    /// Detached while it is read: what is read until its last reader has gone is its own, and has its name.
    #[test]
    fn a_disk_that_is_pulled_out_keeps_its_name() {
        let disk = match Loop::new(1) {
            Ok(disk) => disk,
            Err(why) => skip!("{why}"),
        };
        let backing = format!("/sys/block/{}/loop/backing_file", disk.name());
        assert!(std::path::Path::new(&backing).exists(), "{backing}");
        let tools = ["-D", "-D --split"].map(|args| biolatency(disk.path(), args).start());
        let (reads, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut direct = Direct::open(&disk.device, BLOCK);
                while !is_over.load(Ordering::Relaxed) && direct.read(0, BLOCK).is_ok_and(|n| n == BLOCK) {
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
            let more = |than: u64| {
                let enough = || (reads.load(Ordering::Relaxed) > than).then_some(());
                eventually(env::patience(), enough)
            };
            let before = more(100);
            disk.unplug();
            // Kernels differ: it goes on to the last close, or fails at once.
            let until = reads.load(Ordering::Relaxed) + 100;
            eventually(std::time::Duration::from_secs(1), || {
                (reads.load(Ordering::Relaxed) > until).then_some(())
            });
            is_over.store(true, Ordering::Relaxed);
            assert!(before.is_some(), "{} is not read", disk.path());
        });
        wait_until("the disk has gone", || (!std::path::Path::new(&backing).exists()).then_some(()));
        for tool in tools {
            let ended = tool.stop().expect(0);
            let spans = if ended.line.contains("--split") { 2 } else { 1 };
            let counted = count(&ended.histograms(), "disk", disk.name()) / spans;
            let failed: u64 = errors(&ended).iter().map(|(_, n)| n).sum::<u64>() / spans;
            assert_all(counted - failed, &ended, reads.load(Ordering::Relaxed));
        }
    }

    /// Each part of the run has what ended in it, and together they have all.
    #[test]
    fn intervals_add_up() {
        let disk = match Loop::new(1) {
            Ok(disk) => disk,
            Err(why) => skip!("{why}"),
        };
        for args in ["0.1", "-D 0.1"] {
            let tool = biolatency(disk.path(), args).start();
            Direct::open(&disk.device, BLOCK).reads(2003);
            let ended = tool.stop().expect(0);
            assert_all(total(&ended.histograms()).0, &ended, 2003);
            assert!(ended.histograms().len() > 1);
        }
    }
}
