//! biolatency and what is neither read nor written: zones, and commands that bypass the file systems. In guests only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod vm {
    use std::path::Path;

    use tracebelt_tests::commands::{Commands, Zone};
    use tracebelt_tests::disk::{BLOCK, assert_all, module};
    use tracebelt_tests::latency::{biolatency, count, direct, errors, of};
    use tracebelt_tests::modules::{null_blk, scsi_debug};
    use tracebelt_tests::{Ended, Histogram, Tool, in_guests_only, skip, total};

    /// The operations that were seen are these, each as often as it was done.
    #[track_caller]
    fn assert_operations(ended: &Ended, done: &[(&str, u64)]) {
        let hists = ended.histograms();
        for (op, times) in done {
            assert_all(count(&hists, "op", op), ended, *times);
        }
        assert_eq!(hists.len(), done.len(), "{}", ended.story());
        assert_all(ended.end().events(), ended, done.iter().map(|(_, times)| times).sum());
    }

    #[test]
    fn zones_have_operations_of_their_own() {
        in_guests_only!();
        // Zones of 4 MiB.
        let (_module, disk) = match null_blk("zoned=1 zone_size=4 irqmode=0") {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        let zoned = std::fs::read_to_string(format!("/sys/block/{disk}/queue/zoned")).unwrap_or_default();
        if zoned.trim() != "host-managed" {
            skip!("this kernel's null_blk has no zones: {zoned:?}");
        }
        let device = format!("/dev/{disk}");
        let (commands, mut direct) = (Commands::open(&device).unwrap(), direct(&disk, BLOCK));
        let zone = |i: u64| (i * 8192, 8192_u64);
        let by = biolatency(&disk, "--by op").start();
        let flags = biolatency(&disk, "-F").start();
        let resets = biolatency(&disk, "-o zone-reset").start();
        let bios = biolatency(&disk, "--bio --by op").start();
        // In the first zone, where its write pointer is.
        for i in 0..13 {
            assert_eq!(direct.write(i * BLOCK as u64, BLOCK).unwrap(), BLOCK);
        }
        assert_eq!(direct.read(0, BLOCK).unwrap(), BLOCK);
        for (what, times) in [(Zone::Open, 7), (Zone::Close, 5), (Zone::Finish, 3), (Zone::Reset, 11)] {
            for i in 0..times {
                let (sector, sectors) = zone(i);
                commands.zone(what, sector, sectors).unwrap_or_else(|e| panic!("{what:?} of zone {i}: {e}"));
            }
        }
        let done = [
            ("Write", 13),
            ("Read", 1),
            ("ZoneOpen", 7),
            ("ZoneClose", 5),
            ("ZoneFinish", 3),
            ("ZoneReset", 11),
        ];
        let [by, flags, resets, bios] = [by, flags, resets, bios].map(|tool| tool.stop().expect(0));
        assert_operations(&by, &done);
        assert_operations(&bios, &done);
        assert_all(resets.end().events(), &resets, 11);
        let hists = flags.histograms();
        let of_op = |op: &str| {
            total(hists.iter().filter(|hist| {
                let flags = hist.key.str("flags");
                flags == op || flags.ends_with(&format!("-{op}"))
            }))
            .0
        };
        for (op, times) in done {
            assert_all(of_op(op), &flags, times);
        }
    }

    /// What is passed through to a SCSI disk has an operation of its own; before 5.14 another than that of other
    /// drivers.
    #[test]
    fn scsi_commands_are_no_reads_and_writes() {
        in_guests_only!();
        let (_module, disk) = match scsi_debug("ndelay=100000") {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        let commands = Commands::open(format!("/dev/{disk}")).unwrap();
        let mut direct = direct(&disk, BLOCK);
        commands.test_unit_ready().unwrap(); // it may have something to say first
        let tool = biolatency(&disk, "--by op").start();
        let reads = biolatency(&disk, "-o read,write").start();
        for _ in 0..13 {
            commands.test_unit_ready().unwrap();
        }
        for i in 0..5 {
            commands.scsi_write(i).unwrap();
        }
        direct.reads(11);
        let (ended, reads) = (tool.stop().expect(0), reads.stop().expect(0));
        let has = |op: &str| !of(&ended.histograms(), "op", op).is_empty();
        let names = if has("ScsiIn") { ("ScsiIn", "ScsiOut") } else { ("DrvIn", "DrvOut") };
        assert_operations(&ended, &[(names.0, 13), (names.1, 5), ("Read", 11)]);
        assert_all(reads.end().events(), &reads, 11);
        assert_eq!(errors(&ended), [], "{}", ended.story());
    }

    /// The admin queue of an NVMe controller has no disk.
    #[test]
    fn nvme_commands_are_no_reads_and_writes() {
        in_guests_only!();
        drop(module("nvme", "")); // built in here and there
        if !Path::new("/dev/nvme0n1").exists() {
            skip!("no NVMe disk here");
        }
        let controller = match Commands::open("/dev/nvme0") {
            Ok(controller) => controller,
            Err(why) => skip!("{why}"),
        };
        let (disk, mut direct) = (Commands::open("/dev/nvme0n1").unwrap(), direct("nvme0n1", BLOCK));
        let tool = Tool::new("biolatency").words("--json -D --by op").start();
        let own = biolatency("nvme0n1", "--by op").start();
        for _ in 0..7 {
            controller.identify().unwrap();
        }
        for i in 0..5 {
            disk.nvme_read(i).unwrap();
        }
        direct.reads(11);
        let (ended, own) = (tool.stop().expect(0), own.stop().expect(0));
        let hists = ended.histograms();
        let of_disk =
            |disk: &str| -> Vec<Histogram> { of(&hists, "disk", disk).into_iter().cloned().collect() };
        assert_all(count(&of_disk("?"), "op", "DrvIn"), &ended, 7);
        assert_all(count(&of_disk("nvme0n1"), "op", "DrvIn"), &ended, 5);
        assert_all(count(&of_disk("nvme0n1"), "op", "Read"), &ended, 11);
        assert_operations(&own, &[("DrvIn", 5), ("Read", 11)]);
    }
}
