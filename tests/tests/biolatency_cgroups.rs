//! biolatency and the groups that I/O is charged to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod vm {
    use std::fs;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use tracebelt_tests::disk::assert_all;
    use tracebelt_tests::latency::biolatency;
    use tracebelt_tests::modules::null_blk;
    use tracebelt_tests::{Cgroup, Tool, in_guests_only, skip, total};

    fn reader(disk: &str, count: u64, group: &Cgroup) -> Command {
        let count = format!("if=/dev/{disk} of=/dev/null bs=4096 iflag=direct count={count}");
        let script = format!("echo $$ >{}/cgroup.procs && exec dd {count}", group.dir().display());
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        command
    }

    /// Reads a block at a time, in this group; what dd says.
    #[track_caller]
    fn read(disk: &str, count: u64, group: &Cgroup) -> String {
        let done = reader(disk, count, group).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{said}");
        said
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
            read(&disk, reads, group);
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

    /// A disk that answers at once, and a group that gets 20 reads a second: dd's time is nearly all waiting.
    #[test]
    fn the_wait_for_a_groups_turn_is_a_bios_time() {
        in_guests_only!();
        let (_module, disk) = match null_blk("irqmode=0") {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        let group = Cgroup::new().unwrap();
        let device = fs::read_to_string(format!("/sys/block/{disk}/dev")).unwrap();
        if let Err(why) = group.limit_io(device.trim(), "riops=20") {
            skip!("{why}");
        }
        let bios = biolatency(&disk, "--bio").start();
        let rows = biolatency(&disk, "--bio --slower 20ms").start();
        let requests = biolatency(&disk, "-Q").start();
        let said = read(&disk, 41, &group);
        let (bios, rows, requests) =
            (bios.stop().expect(0), rows.stop().expect(0), requests.stop().expect(0));
        assert!(bios.end().is_via("throttled bios", "fentry"), "{}", bios.story());
        // "... copied, 2.05 s, 81 kB/s"
        let took = said.rsplit(", ").nth(1).and_then(|time| time.strip_suffix(" s")?.parse::<f64>().ok());
        let took = took.expect(&said) * 1e6;
        assert_all(bios.end().events(), &bios, 41);
        let (_, sum) = total(&bios.histograms());
        assert!(sum <= took && sum >= 0.9 * took, "{sum} of {took} us\n{}", bios.story());
        assert!(took >= 1.5e6, "{said}"); // 20 a second
        assert!(total(&requests.histograms()).1 < took / 3.0, "{}", requests.story());
        // Whoever waited, not the kernel's thread that let it go.
        let rows: Vec<_> = rows.records().iter().filter(|row| row.str("type") == "row").collect();
        assert!(rows.len() >= 20 && rows.iter().all(|row| row.str("comm") == "dd"), "{rows:?}");
        // Reads for half a minute, two a second: at any time one waits.
        group.limit_io(device.trim(), "riops=2").unwrap();
        let bios = biolatency(&disk, "--bio").start();
        let mut work = reader(&disk, 60, &group).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(1700));
        let bios = bios.stop().expect(0);
        work.kill().unwrap();
        work.wait().unwrap();
        assert_eq!(bios.end().0.get("in_flight")["at_end"], 1, "{}", bios.story());
        assert_eq!(bios.end().all_lost(), 0, "{}", bios.story());
    }
}
