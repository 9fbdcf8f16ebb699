//! biolatency on disks that stand on others: made of modules, so in guests only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod vm {
    use tracebelt_tests::disk::{BLOCK, Direct, assert_all, module, run, set};
    use tracebelt_tests::latency::{assert_within, biolatency, count, direct};
    use tracebelt_tests::modules::{Module, null_blk, scsi_debug};
    use tracebelt_tests::{Ended, Tool, env, eventually, in_guests_only, skip, total};

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
            assert_within(&upper, "total", from, to);
            assert_all(lower.end().events(), &lower, 23);
            assert_within(&lower, "device", 0.0, 20.0);
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

    /// dm multipath takes requests and makes requests of them: one at each level, told apart without being asked.
    #[test]
    fn a_path_is_told_from_its_multipath() {
        in_guests_only!();
        let made = null_blk("irqmode=0").and_then(|made| {
            module("dm-multipath", "").and_then(|()| module("dm-round-robin", "")).map(|()| made)
        });
        let (_module, disk) = match made {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        let name = "test-multipath";
        let table = format!("0 65536 multipath 0 0 1 1 round-robin 0 1 1 /dev/{disk} 1");
        let made = std::process::Command::new("dmsetup").args(["create", name, "--table", &table]).output();
        match made {
            Ok(output) if output.status.success() => {}
            other => skip!("dmsetup: {other:?}"),
        }
        let _ = run("dmsetup", "mknodes");
        let all = Tool::new("biolatency").words("--json -o read").start();
        Direct::open(format!("/dev/mapper/{name}"), BLOCK).reads(23);
        let all = all.stop().expect(0);
        let (upper, lower): (Vec<_>, Vec<_>) =
            all.histograms().into_iter().partition(|hist| hist.key.str("disk").starts_with("dm-"));
        for level in [&upper, &lower] {
            assert_all(total(level).0, &all, 23);
        }
        assert_eq!(lower.iter().map(|hist| hist.key.str("disk")).collect::<Vec<_>>(), [&disk]);
        eventually(env::patience(), || run("dmsetup", &format!("remove {name}")).ok());
    }

    /// Eight parts, each with a request of its own, and one bio, which ends with the last of them.
    #[test]
    fn a_bio_that_is_split_is_one() {
        in_guests_only!();
        let (_module, disk) = match null_blk("irqmode=2 completion_nsec=5000000") {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        if let Err(why) = set(&disk, "max_sectors_kb", "64") {
            skip!("{why}");
        }
        let mut direct = direct(&disk, 512 << 10);
        let (bios, requests) = (biolatency(&disk, "--bio").start(), biolatency(&disk, "-Q").start());
        for i in 0..7 {
            assert_eq!(direct.read(i << 20, 512 << 10).unwrap(), 512 << 10);
        }
        let (bios, requests) = (bios.stop().expect(0), requests.stop().expect(0));
        assert_all(bios.end().events(), &bios, 7);
        assert_all(requests.end().events(), &requests, 7 * 8);
        assert_within(&bios, "total", 5.0, 20.0);
    }

    /// In whichever order its parts end.
    #[test]
    fn a_bio_ends_with_the_last_of_its_parts() {
        in_guests_only!();
        let (module, disk) = match scsi_debug("ndelay=9000000 random=1") {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        if !module.has("random") {
            skip!("this kernel's scsi_debug has no random delays");
        }
        if let Err(why) = set(&disk, "max_sectors_kb", "64") {
            skip!("{why}");
        }
        let mut direct = direct(&disk, 512 << 10);
        let (bios, rows) =
            (biolatency(&disk, "--bio -o read").start(), biolatency(&disk, "-o read --slower 1ns").start());
        for i in 0..23 {
            assert_eq!(direct.read((i % 8) << 20, 512 << 10).unwrap(), 512 << 10);
        }
        let (bios, rows) = (bios.stop().expect(0), rows.stop().expect(0));
        assert_all(bios.end().events(), &bios, 23);
        assert_all(rows.end().events(), &rows, 23 * 8);
        // Each is at least as long as the longest of its parts.
        let longest: f64 = rows
            .rows()
            .chunks(8)
            .map(|parts| parts.iter().map(|row| row.num("total_usecs")).fold(0.0, f64::max))
            .sum();
        let sum = total(&bios.histograms()).1;
        assert!(rows.end().all_lost() > 0 || sum >= longest, "{sum} us, {longest} of the longest parts");
    }

    type Made = Result<(Module, String), String>;

    /// Zeroes are written by several bios that wait for each other, each submitted by itself; also on a disk that ends
    /// its requests in any order.
    #[test]
    fn bios_that_are_chained_are_all_there() {
        in_guests_only!();
        let disks: [fn() -> Made; 2] =
            [|| null_blk("irqmode=2 completion_nsec=5000000"), || scsi_debug("ndelay=9000000 random=1")];
        for made in disks {
            let (_module, disk) = match made() {
                Ok(made) => made,
                Err(why) => skip!("{why}"),
            };
            // Not by a command of SCSI's own.
            for entry in std::fs::read_dir(format!("/sys/block/{disk}/device/scsi_disk"))
                .into_iter()
                .flatten()
                .flatten()
            {
                std::fs::write(entry.path().join("max_write_same_blocks"), "0").unwrap();
            }
            for parts in [None, Some("64")] {
                if let Some(Err(why)) = parts.map(|size| set(&disk, "max_sectors_kb", size)) {
                    skip!("{why}");
                }
                let tool = biolatency(&disk, "--bio --size -o write").start();
                if let Err(why) = run("blkdiscard", &format!("--zeroout --length {} /dev/{disk}", 16 << 20)) {
                    skip!("{why}");
                }
                let ended = tool.stop().expect(0);
                let (count, bytes) = total(&ended.histograms());
                eprintln!("{disk}: 16 MiB of zeroes in {count} bios, {parts:?}");
                assert_eq!(bytes, f64::from(16 << 20), "{}", ended.story());
                assert_all(ended.end().events(), &ended, count);
                assert_eq!(ended.end().all_lost(), ended.end().lost("skipped"), "{}", ended.story());
            }
        }
    }

    const MIRROR: &str = "/sys/block/md77/md";

    /// md77, a mirror without metadata (Documentation/admin-guide/md.rst).
    struct Mirror;

    impl Mirror {
        fn of(one: &str, other: &str) -> Result<Mirror, String> {
            let write = |file: &str, value: &str| {
                std::fs::write(file, value).map_err(|e| format!("{file}: {value}: {e}"))
            };
            write("/sys/module/md_mod/parameters/new_array", "md77")?;
            let made = Mirror;
            let number = |disk: &str| std::fs::read_to_string(format!("/sys/block/{disk}/dev")).unwrap();
            for (file, value) in [
                ("metadata_version", "none"),
                ("level", "raid1"),
                ("raid_disks", "2"),
                ("component_size", "65536"),
                ("new_dev", number(one).trim()),
                ("new_dev", number(other).trim()),
                (&format!("dev-{one}/slot"), "0"),
                (&format!("dev-{other}/slot"), "1"),
                ("resync_start", "none"),
                ("array_state", "active"),
            ] {
                write(&format!("{MIRROR}/{file}"), value)?;
            }
            Ok(made)
        }
    }

    impl Drop for Mirror {
        fn drop(&mut self) {
            eventually(env::patience(), || std::fs::write(format!("{MIRROR}/array_state"), "clear").ok());
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
        let _mirror = match Mirror::of("nullb0", "nullb1") {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
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
    }

    /// Memory that looks like a disk, and ends its bios itself.
    #[test]
    fn a_disk_without_requests_is_seen_by_its_bios() {
        in_guests_only!();
        let _module = match Module::load("zram", "num_devices=1") {
            Ok(module) => module,
            Err(why) => skip!("{why}"),
        };
        if let Err(why) = std::fs::write("/sys/block/zram0/disksize", "16M") {
            skip!("zram0: {why}");
        }
        eventually(env::patience(), || std::path::Path::new("/dev/zram0").exists().then_some(()));
        let mut direct = direct("zram0", BLOCK);
        let (tool, all) =
            (biolatency("zram0", "--by op").start(), Tool::new("biolatency").words("--json -D").start());
        direct.writes(29);
        direct.reads(31);
        let (ended, all) = (tool.stop().expect(0), all.stop().expect(0));
        assert!(ended.err().contains("zram0 has no requests, so its bios are traced"), "{}", ended.story());
        for (op, done) in [("Read", 31), ("Write", 29)] {
            assert_all(count(&ended.histograms(), "op", op), &ended, done);
        }
        assert_all(ended.end().events(), &ended, 60);
        assert_eq!(count(&all.histograms(), "disk", "zram0"), 0, "it has no requests: {}", all.story());
    }
}
