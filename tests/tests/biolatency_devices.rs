//! biolatency on devices whose latency, errors and layers are known: made of modules, so in guests only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod vm {
    use std::fs;
    use std::path::PathBuf;
    use std::thread;
    use std::time::Duration;

    use tracebelt_tests::disk::{BLOCK, Direct, assert_all, module, run, set};
    use tracebelt_tests::{Cgroup, Ended, Histogram, Record, Tool, env, eventually, skip, total};

    /// Ends a test that is not in a guest.
    macro_rules! in_guests_only {
        () => {
            if !env::is_tcg() {
                skip!("it changes the machine's disks: for guests only");
            }
        };
    }

    /// A module that is taken out again, with its disks.
    struct Module(&'static str);

    impl Module {
        fn load(name: &'static str, parameters: &str) -> Result<Module, String> {
            let _ = run("modprobe", &format!("-r {name}"));
            module(name, parameters).map(|()| Module(name))
        }
    }

    impl Drop for Module {
        fn drop(&mut self) {
            eventually(env::patience(), || run("modprobe", &format!("-r {}", self.0)).ok());
        }
    }

    fn null_blk(parameters: &str) -> Result<(Module, String), String> {
        let loaded =
            Module::load("null_blk", &format!("nr_devices=1 queue_mode=2 gb=1 bs=512 {parameters}"))?;
        Ok((loaded, "nullb0".to_owned()))
    }

    /// Its disk, once it has been scanned.
    fn scsi_debug(parameters: &str) -> Result<(Module, String), String> {
        module("sd_mod", "")?; // what udev would do
        let loaded = Module::load("scsi_debug", &format!("dev_size_mb=16 {parameters}"))?;
        let disk = eventually(env::patience(), || {
            fs::read_dir("/sys/block").unwrap().flatten().find_map(|entry| {
                let model = fs::read_to_string(entry.path().join("device/model")).ok()?;
                model.starts_with("scsi_debug").then(|| entry.file_name().into_string().unwrap())
            })
        });
        let disk = disk.ok_or("scsi_debug brings no disk")?;
        eventually(env::patience(), || PathBuf::from(format!("/dev/{disk}")).exists().then_some(()));
        Ok((loaded, disk))
    }

    fn direct(disk: &str, most: usize) -> Direct {
        Direct::open(format!("/dev/{disk}"), most)
    }

    fn biolatency(disk: &str, args: &str) -> Tool {
        Tool::new("biolatency").args(["--json", "-d", disk]).words(args)
    }

    fn of<'a>(hists: &'a [Histogram], span: &str) -> Vec<&'a Histogram> {
        hists.iter().filter(|hist| hist.key.str("span") == span).collect()
    }

    fn mean(ended: &Ended, span: &str) -> f64 {
        let (count, sum) = total(of(&ended.histograms(), span));
        sum / count as f64
    }

    /// None is shorter than this, in milliseconds, and half of them are no longer than that: a timer of an emulated
    /// machine is late now and then, never early.
    #[track_caller]
    fn within(ended: &Ended, span: &str, from: f64, to: f64) {
        let records = ended.records().iter().filter(|record| record.str("type") == "histogram");
        for record in records.filter(|record| record.get("key")["span"] == span) {
            let (min, half) = (record.num("min") / 1000.0, record.num("p50") / 1000.0);
            assert!(min >= from && half <= to, "{min} ms at least, {half} in the middle\n{}", ended.story());
        }
    }

    #[test]
    fn a_device_of_20_ms_takes_20_ms() {
        in_guests_only!();
        let (_module, disk) = match null_blk("irqmode=2 completion_nsec=20000000 hw_queue_depth=64") {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        for scheduler in ["none", "mq-deadline"] {
            if let Err(why) = set(&disk, "scheduler", scheduler) {
                eprintln!("not tried: {why}");
                continue;
            }
            let (plain, split) = (biolatency(&disk, "").start(), biolatency(&disk, "--split").start());
            let queued = biolatency(&disk, "-Q").start();
            let rows = biolatency(&disk, "--slower 19ms").start();
            direct(&disk, BLOCK).reads(53);
            let [plain, split, queued, rows] = [plain, split, queued, rows].map(|tool| tool.stop().expect(0));
            for ended in [&plain, &split, &queued, &rows] {
                assert_all(ended.end().events(), ended, 53);
            }
            within(&plain, "device", 20.0, 22.0);
            let both = mean(&split, "queue") + mean(&split, "device");
            assert!((both / mean(&queued, "total") - 1.0).abs() < 0.02, "{both} us, {}", queued.story());
            for row in rows.rows() {
                let parts = row.num("queue_usecs") + row.num("device_usecs");
                assert!((parts - row.num("total_usecs")).abs() < 0.01, "{}", row.line());
            }
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
        if let Err(why) =
            set(&disk, "scheduler", "mq-deadline").and_then(|()| set(&disk, "nr_requests", "64"))
        {
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
        if let Err(why) =
            set(&disk, "scheduler", "mq-deadline").and_then(|()| set(&disk, "nr_requests", "64"))
        {
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
        let tool = biolatency(&disk, "-o read").start();
        direct(&disk, BLOCK).reads(31);
        let ended = tool.stop().expect(0);
        assert_all(ended.end().events(), &ended, 31);
        within(&ended, "device", 50.0, 55.0);
    }

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
        let parameters = PathBuf::from("/sys/bus/pseudo/drivers/scsi_debug");
        let mut direct = direct(&disk, BLOCK);
        let tool = biolatency(&disk, "--split").start();
        // The fifth, tenth, ... command is aborted by the transport.
        if let Err(why) = fs::write(parameters.join("every_nth"), "5")
            .and_then(|()| fs::write(parameters.join("opts"), "16"))
        {
            skip!("scsi_debug: {why}");
        }
        direct.reads(101);
        fs::write(parameters.join("opts"), "0").unwrap();
        let ended = tool.stop().expect(0);
        assert_all(ended.end().events(), &ended, 101);
        let record = &ended.records()[0];
        let requeued = record.get("requeued").as_u64().unwrap();
        assert!((15..=40).contains(&requeued), "{}", ended.story());
        assert!(record.get("errors").as_object().unwrap().is_empty(), "{}", ended.story());
        // What was sent twice took twice as long.
        let longest = of(&ended.histograms(), "device")[0].max;
        assert!(longest >= 10_000.0, "{}", ended.story());
    }

    /// 50 ms are added by a layer that has no requests.
    #[test]
    fn a_stacked_device_is_seen_by_its_bios() {
        in_guests_only!();
        let (_module, disk) =
            match null_blk("irqmode=0").and_then(|made| module("dm-delay", "").map(|()| made)) {
                Ok(made) => made,
                Err(why) => skip!("{why}"),
            };
        for (target, from, to) in [("delay", 50.0, 60.0), ("linear", 0.0, 20.0)] {
            let rest = if target == "delay" { "0 50" } else { "0" };
            let table = format!("0 65536 {target} /dev/{disk} {rest}");
            let name = format!("test-{target}");
            let made =
                std::process::Command::new("dmsetup").args(["create", &name, "--table", &table]).output();
            match made {
                Ok(output) if output.status.success() => {}
                other => skip!("dmsetup: {other:?}"),
            }
            let _ = run("dmsetup", "mknodes");
            let number = run("dmsetup", &format!("info -c --noheadings -o major,minor {name}")).unwrap();
            // Bios by itself; nothing else is asked for.
            let upper = Tool::new("biolatency").args(["--json", "-d", &number]).start();
            let lower = biolatency(&disk, "").start();
            let all = Tool::new("biolatency").words("--json --bio").start();
            Direct::open(format!("/dev/mapper/{name}"), BLOCK).reads(23);
            let (upper, lower, all) = (upper.stop().expect(0), lower.stop().expect(0), all.stop().expect(0));
            assert_all(upper.end().events(), &upper, 23);
            assert!(upper.err().contains("has no requests, so its bios are traced"), "{}", upper.story());
            within(&upper, "total", from, to);
            assert_all(lower.end().events(), &lower, 23);
            within(&lower, "device", 0.0, 20.0);
            // One at each level, each under the name of its own.
            let hists = all.histograms();
            let of = |name: &str| total(hists.iter().filter(|hist| hist.key.str("disk") == name)).0;
            assert_all(of(&disk), &all, 23);
            assert_all(
                hists
                    .iter()
                    .filter(|hist| hist.key.str("disk").starts_with("dm-"))
                    .map(|hist| hist.count)
                    .sum(),
                &all,
                23,
            );
            Tool::new("biolatency")
                .args(["-d", &number, "--split"])
                .run()
                .expect_error(2, &["--split", &disk]);
            eventually(env::patience(), || run("dmsetup", &format!("remove {name}")).ok());
        }
    }

    /// A write goes to both disks of a mirror, and is one of the mirror's own.
    #[test]
    fn a_mirror_is_no_double_count() {
        in_guests_only!();
        let loaded =
            Module::load("null_blk", "nr_devices=2 queue_mode=2 gb=1 bs=512 irqmode=0 memory_backed=1");
        let _module = match loaded.and_then(|made| module("raid1", "").map(|()| made)) {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        let made = run(
            "mdadm",
            "--build /dev/md77 --level=1 --raid-devices=2 --assume-clean /dev/nullb0 /dev/nullb1",
        );
        if let Err(why) = made {
            skip!("{why}");
        }
        let tool = Tool::new("biolatency").words("--json --bio -o write").start();
        let disks = Tool::new("biolatency").words("--json -D -o write").start();
        direct("md77", BLOCK).writes(29);
        let (bios, requests) = (tool.stop().expect(0), disks.stop().expect(0));
        let of = |ended: &Ended, name: &str| {
            let hists = ended.histograms();
            total(hists.iter().filter(|hist| hist.key.str("disk") == name)).0
        };
        for (name, ended) in [
            ("md77", &bios),
            ("nullb0", &bios),
            ("nullb1", &bios),
            ("nullb0", &requests),
            ("nullb1", &requests),
        ] {
            assert_all(of(ended, name), ended, 29);
        }
        eventually(env::patience(), || run("mdadm", "--stop /dev/md77").ok());
    }

    /// I/O is the group's that it is charged to, and that of all above it.
    #[test]
    fn groups_have_their_own() {
        in_guests_only!();
        let (_module, disk) = match null_blk("irqmode=0") {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        let root = tracebelt_tests::cgroup::mount().unwrap();
        if let Err(why) = fs::write(root.join("cgroup.subtree_control"), "+io") {
            skip!("no io controller in cgroup v2: {why}");
        }
        let outer = Cgroup::new().unwrap();
        fs::write(outer.dir().join("cgroup.subtree_control"), "+io").unwrap();
        let (inner, other) = (outer.child("inner"), Cgroup::new().unwrap());
        let cgroup = |group: &Cgroup| {
            Tool::new("biolatency").args(["--json", "-d", &disk]).arg("-c").arg(group.dir()).start()
        };
        let tools = [cgroup(&outer), cgroup(&inner), cgroup(&other)];
        let by = biolatency(&disk, "--by cgroup").start();
        let bios = biolatency(&disk, "--bio --by cgroup").start();
        for (group, reads) in [(&inner, 37), (&other, 23)] {
            let count = format!("if=/dev/{disk} of=/dev/null bs=4096 iflag=direct count={reads}");
            let script = format!("echo $$ >{}/cgroup.procs && exec dd {count}", group.dir().display());
            let done = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
        for (tool, done) in tools.into_iter().zip([37, 37, 23]) {
            let ended = tool.stop().expect(0);
            assert_all(ended.end().events(), &ended, done);
        }
        for ended in [by.stop().expect(0), bios.stop().expect(0)] {
            let hists = ended.histograms();
            let of =
                |group: &Cgroup| total(hists.iter().filter(|hist| hist.key.str("cgroup") == group.path())).0;
            assert_all(of(&inner), &ended, 37);
            assert_all(of(&other), &ended, 23);
        }
        let plain = outer.child("plain");
        fs::write(outer.dir().join("cgroup.subtree_control"), "-io").unwrap();
        let refused = Tool::new("biolatency").arg("-c").arg(plain.dir()).run();
        refused.expect_error(1, &["no io controller", "echo +io > "]);
        drop((inner, plain));
    }
}
