//! biolatency on devices whose latency is known: made of modules, so in guests only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod vm {
    use std::sync::Barrier;
    use std::thread;
    use std::time::Duration;

    use tracebelt_tests::disk::{BLOCK, assert_all, schedule, set};
    use tracebelt_tests::latency::{assert_within, biolatency, count, direct, mean, of};
    use tracebelt_tests::modules::{NullDisks, null_blk, scsi_debug};
    use tracebelt_tests::{Ended, Histogram, Tool, in_guests_only, skip, total};

    /// The mean is the device's latency, and at most a twentieth more. A timer of an emulated machine that has other
    /// work is late at times: then it may try again, twice.
    #[track_caller]
    fn assert_mean(millis: f64, mut once: impl FnMut() -> Ended) {
        let mut means = Vec::new();
        for _ in 0..3 {
            let ended = once();
            assert_within(&ended, "device", millis, millis * 1.1);
            let found = mean(&ended, "device") / 1000.0;
            eprintln!("mean {found:.2} ms of a device of {millis} ms");
            if (found / millis - 1.0).abs() < 0.05 {
                return;
            }
            means.push(found);
        }
        panic!("means of {means:?} ms from a device of {millis} ms");
    }

    /// Ends with why it cannot run here.
    fn device_of_20_ms(scheduler: &str) -> Result<(), String> {
        let (_module, disk) = null_blk("irqmode=2 completion_nsec=20000000 hw_queue_depth=64")?;
        schedule(&disk, scheduler)?;
        let (split, queued) = (biolatency(&disk, "--split").start(), biolatency(&disk, "-Q").start());
        let rows = biolatency(&disk, "--slower 19ms").start();
        direct(&disk, BLOCK).reads(53);
        let [split, queued, rows] = [split, queued, rows].map(|tool| tool.stop().expect(0));
        for ended in [&split, &queued, &rows] {
            assert_all(ended.end().events(), ended, 53);
        }
        let both = mean(&split, "queue") + mean(&split, "device");
        assert!((both / mean(&queued, "total") - 1.0).abs() < 0.02, "{both} us, {}", queued.story());
        for row in rows.rows() {
            let parts = row.num("queue_usecs") + row.num("device_usecs");
            assert!((parts - row.num("total_usecs")).abs() < 0.01, "{}", row.line());
        }
        assert_mean(20.0, || {
            let plain = biolatency(&disk, "").start();
            direct(&disk, BLOCK).reads(53);
            let plain = plain.stop().expect(0);
            assert_all(plain.end().events(), &plain, 53);
            plain
        });
        Ok(())
    }

    #[test]
    fn a_device_of_20_ms_takes_20_ms() {
        in_guests_only!();
        if let Err(why) = device_of_20_ms("none") {
            skip!("{why}");
        }
    }

    #[test]
    fn a_device_of_20_ms_takes_20_ms_under_mq_deadline() {
        in_guests_only!();
        if let Err(why) = device_of_20_ms("mq-deadline") {
            skip!("{why}");
        }
    }

    /// Thirty-two at once for a device that takes one at a time: they wait in the scheduler.
    #[test]
    fn a_shallow_device_makes_a_queue() {
        in_guests_only!();
        let (_module, disk) =
            match null_blk("irqmode=2 completion_nsec=20000000 hw_queue_depth=1 submit_queues=1") {
                Ok(made) => made,
                Err(why) => skip!("{why}"),
            };
        if let Err(why) = schedule(&disk, "mq-deadline").and_then(|()| set(&disk, "nr_requests", "64")) {
            skip!("{why}");
        }
        let (split, bios) = (biolatency(&disk, "--split -i").start(), biolatency(&disk, "--bio").start());
        thread::scope(|scope| {
            for i in 0..32 {
                let disk = &disk;
                scope.spawn(move || {
                    let mut direct = direct(disk, BLOCK);
                    for j in 0..3 {
                        // Far from each other: nothing to merge.
                        assert_eq!(direct.read((i * 3 + j) << 20, BLOCK).unwrap(), BLOCK);
                    }
                });
            }
        });
        let (split, bios) = (split.stop().expect(0), bios.stop().expect(0));
        assert_all(split.end().events(), &split, 96);
        assert_all(bios.end().events(), &bios, 96);
        let (queue, device) = (mean(&split, "queue"), mean(&split, "device"));
        eprintln!("queue {queue:.0} us, device {device:.0} us");
        assert!(queue > 5.0 * device && device < 30_000.0, "queue {queue} us, device {device} us");
        assert_eq!(split.records()[0].get("inflight")["max"], 1, "{}", split.story());
        assert!((mean(&bios, "total") / (queue + device) - 1.0).abs() < 0.1, "{}", bios.story());
    }

    /// While the device has one and the driver another, three reads side by side become one request. What it has
    /// taken over was inserted and never ends: nothing is left of it.
    #[test]
    fn what_is_merged_leaves_nothing_behind() {
        in_guests_only!();
        let (_module, disk) =
            match null_blk("irqmode=2 completion_nsec=900000000 hw_queue_depth=1 submit_queues=1") {
                Ok(made) => made,
                Err(why) => skip!("{why}"),
            };
        if let Err(why) = schedule(&disk, "mq-deadline").and_then(|()| set(&disk, "nr_requests", "64")) {
            skip!("{why}");
        }
        let (split, bios) =
            (biolatency(&disk, "--split --by size").start(), biolatency(&disk, "--bio").start());
        thread::scope(|scope| {
            for (i, offset) in (0..).zip([100, 50, 0, 2, 1]) {
                let disk = &disk;
                scope.spawn(move || {
                    let mut direct = direct(disk, BLOCK);
                    thread::sleep(Duration::from_millis(150 * i)); // in this order, all during the first
                    assert_eq!(direct.read(offset * BLOCK as u64, BLOCK).unwrap(), BLOCK);
                });
            }
        });
        let (split, bios) = (split.stop().expect(0), bios.stop().expect(0));
        assert_all(bios.end().events(), &bios, 5);
        assert_eq!(split.end().0.get("in_flight")["at_end"], 0, "{}", split.story());
        let of = |size: i64| {
            let hists = split.histograms();
            total(
                hists.iter().filter(|hist| hist.key.int("size") == size && hist.key.str("span") == "device"),
            )
            .0
        };
        if of(4096) != 2 {
            skip!("the kernel did not merge them: {} of a block, {} larger", of(4096), of(8192));
        }
        assert_eq!((of(8192), split.end().events(), split.end().all_lost()), (1, 3, 0), "{}", split.story());
    }

    #[test]
    fn a_disk_of_50_ms_takes_50_ms() {
        in_guests_only!();
        let (_module, disk) = match scsi_debug("ndelay=50000000") {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        assert_mean(50.0, || {
            let tool = biolatency(&disk, "-o read").start();
            direct(&disk, BLOCK).reads(31);
            let ended = tool.stop().expect(0);
            assert_all(ended.end().events(), &ended, 31);
            ended
        });
    }

    /// Twelve disks, each slower than the one before, one request at a time. Of three at once one finds the disk idle
    /// and the others wait for each other, so that the queue's histogram has several buckets for each operation.
    #[test]
    fn many_disks_and_operations_have_all_their_buckets() {
        in_guests_only!();
        let millis = |i: u64| 4 + 3 * i;
        // A cache, so that there are flushes; memory, so that there is a cache.
        let settings = |i: u64| {
            format!(
                "size=16 blocksize=4096 submit_queues=1 hw_queue_depth=1 memory_backed=1 cache_size=1 irqmode=2 \
                 completion_nsec={}",
                millis(i) * 1_000_000
            )
        };
        let settings: Vec<String> = (0..12).map(settings).collect();
        let _disks = match NullDisks::new(&settings) {
            Ok(disks) => disks,
            Err(why) => skip!("{why}"),
        };
        for i in 0..12 {
            let disk = format!("nullb{i}");
            if let Err(why) = schedule(&disk, "mq-deadline").and_then(|()| set(&disk, "nr_requests", "64")) {
                skip!("{why}");
            }
        }
        let tools = ["-D --by op", "-D --by op --split"];
        let tools = tools.map(|args| Tool::new("biolatency").arg("--json").words(args).start());
        let (reads, writes, flushes) = (|i| 5 + i, |i| 3 + i, |i| 1 + i % 3);
        let idle: Vec<Barrier> = (0..12).map(|_| Barrier::new(3)).collect();
        thread::scope(|scope| {
            for (i, idle) in (0..12).zip(&idle) {
                for part in 0..3 {
                    scope.spawn(move || {
                        let mut direct = direct(&format!("nullb{i}"), BLOCK);
                        // Far from each other: nothing to merge.
                        for j in 0..reads(i) {
                            assert_eq!(direct.read((3 * j + part) << 18, BLOCK).unwrap(), BLOCK);
                        }
                        idle.wait();
                        for j in 0..writes(i) {
                            assert_eq!(direct.write((3 * j + part) << 18, BLOCK).unwrap(), BLOCK);
                        }
                        // Of one thread: flushes that come together are one.
                        if part == 0 {
                            (0..flushes(i)).for_each(|_| direct.flush());
                        }
                    });
                }
            }
        });
        let [plain, split] = tools.map(|tool| tool.stop().expect(0));
        let mut own = Vec::new();
        for ended in [&plain, &split] {
            let hists = ended.histograms();
            for i in 0..12 {
                let disk = format!("nullb{i}");
                let on: Vec<Histogram> = of(&hists, "disk", &disk).into_iter().cloned().collect();
                for (op, done) in [("Read", 3 * reads(i)), ("Write", 3 * writes(i)), ("Flush", flushes(i))] {
                    let here: Vec<Histogram> = of(&on, "op", op).into_iter().cloned().collect();
                    assert_all(count(&here, "span", "device"), ended, done);
                    for hist in of(&here, "span", "device") {
                        assert!(hist.min >= millis(i) as f64 * 1000.0, "{disk} {op}: {}", ended.story());
                    }
                    own.push(here);
                }
            }
        }
        for hists in &own[36..] {
            let (device, queue) = (count(hists, "span", "device"), count(hists, "span", "queue"));
            assert_eq!(device, queue, "{}", split.story());
            let buckets = of(hists, "span", "queue")[0].buckets.iter().filter(|bucket| bucket.2 > 0).count();
            let op = hists[0].key.str("op");
            assert!(op == "Flush" || buckets > 1, "{}", hists[0].key.line());
        }
    }
}
