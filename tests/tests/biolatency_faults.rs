//! biolatency when devices fail, hang, or go away: made of modules, so in guests only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod vm {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;
    use std::time::Duration;

    use tracebelt_tests::disk::{BLOCK, assert_all, schedule, set};
    use tracebelt_tests::latency::{biolatency, direct, errors, figure, of};
    use tracebelt_tests::modules::{Faults, NullDisks, null_blk, scsi_debug};
    use tracebelt_tests::{Ended, Record, env, eventually, in_guests_only, skip};

    /// A read over a bad place: the sectors before it end well, the rest fails. That is one request.
    #[test]
    fn a_bad_sector_is_one_failed_request() {
        in_guests_only!();
        let (_module, disk) = match scsi_debug("opts=2 ndelay=100000") {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        let mut direct = direct(&disk, 16 * BLOCK);
        let tool = biolatency(&disk, "--by op,size -o read").start();
        for _ in 0..7 {
            // Its first bad sector is 4660.
            assert_ne!(direct.read(4640 * 512, 16 * BLOCK).ok(), Some(16 * BLOCK));
        }
        direct.reads(13);
        let ended = tool.stop().expect(0);
        let big: Vec<&Record> = ended.records().iter().filter(|record| is_of_size(record, 65536)).collect();
        assert!(big.len() == 1 && big[0].get("count") == 7, "{}", ended.story());
        let errors = big[0].get("errors").as_object().unwrap();
        assert_eq!(
            errors.values().filter_map(serde_json::Value::as_u64).sum::<u64>(),
            7,
            "{}",
            ended.story()
        );
        assert!(errors.contains_key("ENODATA") || errors.contains_key("EIO"), "{}", ended.story());
        assert_all(ended.end().events(), &ended, 7 + 13);
    }

    /// Of four parts the first fails, and the last does not.
    #[test]
    fn a_bio_with_a_bad_sector_in_a_part_has_failed() {
        in_guests_only!();
        let (_module, disk) = match scsi_debug("opts=2 ndelay=100000") {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        if let Err(why) = set(&disk, "max_sectors_kb", "16") {
            skip!("{why}");
        }
        let mut direct = direct(&disk, 16 * BLOCK);
        let tool = biolatency(&disk, "--bio -o read").start();
        for _ in 0..7 {
            assert_ne!(direct.read(4640 * 512, 16 * BLOCK).ok(), Some(16 * BLOCK));
        }
        let ended = tool.stop().expect(0);
        let counted = ended.end().events();
        assert_all(counted, &ended, 7);
        assert_eq!(errors(&ended).iter().map(|(_, times)| times).sum::<u64>(), counted, "{}", ended.story());
    }

    fn is_of_size(record: &Record, size: u64) -> bool {
        record.str("type") == "histogram" && record.get("key")["size"] == size
    }

    /// Commands that are aborted are sent again: still the same request, from its first time on.
    #[test]
    fn what_is_tried_again_is_counted_once() {
        in_guests_only!();
        let (_module, disk) = match scsi_debug("ndelay=5000000") {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        let mut direct = direct(&disk, BLOCK);
        let tool = biolatency(&disk, "--split").start();
        // The fifth, tenth, ... command is aborted by the transport.
        let faults = match Faults::every(5, 16) {
            Ok(faults) => faults,
            Err(why) => skip!("{why}"),
        };
        direct.reads(101);
        drop(faults);
        let ended = tool.stop().expect(0);
        assert_all(ended.end().events(), &ended, 101);
        let record = &ended.records()[0];
        let requeued = record.get("requeued").as_u64().unwrap();
        assert!((15..=40).contains(&requeued), "{}", ended.story());
        assert!(record.get("errors").as_object().unwrap().is_empty(), "{}", ended.story());
        // What was sent twice took twice as long.
        let longest = of(&ended.histograms(), "span", "device")[0].max;
        assert!(longest >= 10_000.0, "{}", ended.story());
    }

    /// Seconds after which the SCSI layer gives a command up.
    fn set_timeout(disk: &str, seconds: u32) -> Result<(), String> {
        let file = format!("/sys/block/{disk}/device/timeout");
        fs::write(&file, seconds.to_string()).map_err(|e| format!("{file}: {e}"))
    }

    /// A command that the disk never answers is aborted after a second and sent again, which works: one request, that
    /// took that long.
    #[test]
    fn what_timed_out_and_then_worked_is_one_request() {
        in_guests_only!();
        let (_module, disk) = match scsi_debug("ndelay=1000000") {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        let mut direct = direct(&disk, BLOCK);
        let tool = biolatency(&disk, "-Q -o read").start();
        let faults = match set_timeout(&disk, 1).and_then(|()| Faults::every(5, 128)) {
            Ok(faults) => faults,
            Err(why) => skip!("{why}"),
        };
        direct.reads(13); // the 5th and the 10th command, and what is sent for them counts too
        drop(faults);
        let ended = tool.stop().expect(0);
        assert_all(ended.end().events(), &ended, 13);
        assert_eq!(errors(&ended), [], "{}", ended.story());
        let requeued = figure(&ended, "requeued");
        assert!((1..=6).contains(&requeued), "{}", ended.story());
        let hists = ended.histograms();
        let slow: u64 = hists[0].buckets.iter().filter(|(lo, ..)| *lo >= 500_000.0).map(|(.., n)| n).sum();
        assert!((1..=requeued).contains(&slow) && hists[0].max >= 990_000.0, "{}", ended.story());
    }

    /// No try is answered: one request, that failed once, after all tries.
    #[test]
    fn what_times_out_for_good_is_one_failed_request() {
        in_guests_only!();
        let (_module, disk) = match scsi_debug("ndelay=1000000") {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        let mut direct = direct(&disk, BLOCK);
        direct.reads(3);
        let tool = biolatency(&disk, "--by op -o read").start();
        direct.reads(7);
        let faults = match set_timeout(&disk, 1).and_then(|()| Faults::every(1, 128)) {
            Ok(faults) => faults,
            Err(why) => skip!("{why}"),
        };
        let failed = direct.read(0, BLOCK);
        drop(faults);
        assert!(failed.is_err(), "no command is answered");
        let ended = tool.stop().expect(0);
        let reads = of(&ended.histograms(), "op", "Read").iter().map(|hist| hist.count).sum();
        assert_all(reads, &ended, 7 + 1);
        let errors = errors(&ended);
        // The SCSI layer turns a timeout into EIO.
        assert!(
            errors.len() == 1 && errors[0].1 == 1 && ["EIO", "ETIMEDOUT"].contains(&errors[0].0.as_str()),
            "{}",
            ended.story()
        );
        assert!(figure(&ended, "requeued") >= 1, "{}", ended.story());
        assert!(of(&ended.histograms(), "op", "Read")[0].max >= 1_980_000.0, "{}", ended.story());
    }

    /// null_blk's own timeout: the block layer gives the request up while the device still has it, and it ends as timed
    /// out when the device is done. Before 5.11 the driver then ended it twice, which is not for the tool to mend.
    #[test]
    fn a_timeout_has_its_errno() {
        in_guests_only!();
        let (module, disk) = match null_blk("irqmode=2 completion_nsec=3000000000 hw_queue_depth=64") {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        let types = fs::read("/sys/kernel/btf/null_blk").unwrap_or_default();
        if !types.windows(12).any(|name| name == b"fake_timeout") {
            skip!("this kernel's null_blk does not live through a timeout, or its BTF does not tell");
        }
        if let Err(why) = set(&disk, "io_timeout", "500") {
            skip!("{why}");
        }
        let tool = biolatency(&disk, "").start();
        let failed = thread::scope(|scope| {
            let readers: Vec<_> = (0..5_u64)
                .map(|i| {
                    let disk = &disk;
                    scope.spawn(move || direct(disk, BLOCK).read(i << 20, BLOCK).is_err())
                })
                .collect();
            readers.into_iter().filter_map(|reader| reader.join().ok()).filter(|failed| *failed).count()
        });
        let ended = tool.stop().expect(0);
        drop(module);
        let counted = ended.end().events();
        assert_all(counted, &ended, 5);
        assert_eq!(failed, 5, "{}", ended.story());
        assert_eq!(errors(&ended), [("ETIMEDOUT".to_owned(), counted)], "{}", ended.story());
    }

    /// With CONFIG_BLK_DEV_NULL_BLK_FAULT_INJECTION: "interval,probability,space,times" of requests whose end never
    /// comes. None of Debian's kernels has it.
    #[test]
    fn injected_timeouts_are_counted() {
        in_guests_only!();
        let (module, disk) = match null_blk("irqmode=0 timeout=5,100,0,-1") {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        if !module.has("timeout") {
            skip!("this kernel's null_blk injects no timeouts (CONFIG_BLK_DEV_NULL_BLK_FAULT_INJECTION)");
        }
        if let Err(why) = set(&disk, "io_timeout", "500") {
            skip!("{why}");
        }
        let mut direct = direct(&disk, BLOCK);
        let tool = biolatency(&disk, "").start();
        let failed = (0..23).filter(|i| direct.read(i << 20, BLOCK).is_err()).count() as u64;
        let ended = tool.stop().expect(0);
        assert_all(ended.end().events(), &ended, 23);
        assert!(failed > 0, "{}", ended.story());
        assert_eq!(errors(&ended), [("ETIMEDOUT".to_owned(), failed)], "{}", ended.story());
    }

    /// With the same: the driver is busy at every other request, before it has issued it or after.
    #[test]
    fn injected_requeues_are_one_request() {
        in_guests_only!();
        let (module, disk) = match null_blk("irqmode=0 requeue=2,100,0,-1") {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        if !module.has("requeue") {
            skip!("this kernel's null_blk injects no requeues (CONFIG_BLK_DEV_NULL_BLK_FAULT_INJECTION)");
        }
        let tools = ["", "--split"].map(|args| biolatency(&disk, args).start());
        direct(&disk, BLOCK).reads(101);
        for tool in tools {
            let ended = tool.stop().expect(0);
            eprintln!("{} requeued", figure(&ended, "requeued"));
            assert_all(ended.end().events(), &ended, 101);
            assert_eq!(ended.end().0.get("in_flight")["at_end"], 0, "{}", ended.story());
            assert_eq!(errors(&ended), [], "{}", ended.story());
        }
    }

    /// The run ends while the device has one request and others wait: in flight, all of them, and none is missing. The
    /// kernel's own count has neither those that wait nor a flush.
    #[test]
    fn what_waits_at_the_end_is_in_flight() {
        in_guests_only!();
        let settings = "size=16 blocksize=4096 submit_queues=1 hw_queue_depth=1 memory_backed=1 cache_size=1 \
                        irqmode=2 completion_nsec=2000000000";
        let _disks = match NullDisks::new(&[settings.to_owned()]) {
            Ok(disks) => disks,
            Err(why) => skip!("{why}"),
        };
        let disk = "nullb0";
        if let Err(why) = schedule(disk, "mq-deadline").and_then(|()| set(disk, "nr_requests", "64")) {
            skip!("{why}");
        }
        let at_end = |ended: &Ended, number: u64| {
            let found = ended.end().0.get("in_flight")["at_end"].as_u64().unwrap();
            let skipped = ended.end().lost("skipped"); // by the kernel: those are missing
            assert!(found <= number && found + skipped >= number, "{}", ended.story());
            assert_eq!((ended.end().all_lost(), ended.end().events()), (skipped, 0), "{}", ended.story());
        };
        let tools = ["--split", "-Q", "--bio"].map(|args| biolatency(disk, args).start());
        thread::scope(|scope| {
            for i in 0..4 {
                scope.spawn(move || direct(disk, BLOCK).read(i << 20, BLOCK).unwrap());
            }
            thread::sleep(Duration::from_millis(700)); // all are there, and none has ended
            tools.iter().for_each(|tool| tool.signal(libc::SIGINT));
            for tool in tools {
                at_end(&tool.wait().expect(0), 4);
            }
        });
        let tools = ["", "--split"].map(|args| biolatency(disk, args).start());
        thread::scope(|scope| {
            scope.spawn(|| direct(disk, BLOCK).flush());
            thread::sleep(Duration::from_millis(700));
            tools.iter().for_each(|tool| tool.signal(libc::SIGINT));
            for tool in tools {
                at_end(&tool.wait().expect(0), 1);
            }
        });
    }

    /// A disk that goes away under its readers: what it had is counted under its name, and nothing stays in flight.
    #[test]
    fn a_disk_that_is_pulled_out_under_its_readers_keeps_its_name() {
        in_guests_only!();
        let (_module, disk) = match scsi_debug("ndelay=20000000") {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        let tools = ["-D -o read", "-D -o read --split"].map(|args| biolatency(&disk, args).start());
        let good = AtomicU64::new(0);
        thread::scope(|scope| {
            for i in 0..4_u64 {
                let (disk, good) = (&disk, &good);
                scope.spawn(move || {
                    let mut direct = direct(disk, BLOCK);
                    while direct.read(i << 20, BLOCK).is_ok_and(|n| n == BLOCK) {
                        good.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            eventually(env::patience(), || (good.load(Ordering::Relaxed) > 40).then_some(()));
            fs::write(format!("/sys/block/{disk}/device/delete"), "1").unwrap();
        });
        let (good, gone) = (good.into_inner(), !PathBuf::from(format!("/sys/block/{disk}")).exists());
        assert!(gone && good > 40, "{good} reads, and the disk is gone: {gone}");
        for tool in tools {
            let ended = tool.stop().expect(0);
            let hists = ended.histograms();
            let spans = if ended.line.contains("--split") { 2 } else { 1 };
            let all = of(&hists, "disk", &disk).iter().map(|hist| hist.count).sum::<u64>() / spans;
            // The last one of each reader may have failed before or after it was issued.
            let failed: u64 = errors(&ended).iter().map(|(_, n)| n).sum::<u64>() / spans;
            let unissued = figure(&ended, "unissued") / spans;
            assert_all(all + unissued, &ended, good + failed);
            assert_eq!(ended.end().0.get("in_flight")["at_end"], 0, "{}", ended.story());
        }
    }
}
