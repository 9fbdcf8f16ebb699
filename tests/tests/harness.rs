//! The harness itself: what it says of work and of tools has to be right before it is used as a measure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

use std::ffi::OsStr;

use tracebelt_tests::{TempDir, Tool, Work, cpu};

fn shell(script: &str) -> Tool {
    Tool::at("sh", OsStr::new("/bin/sh")).args(["-c", script])
}

#[test]
fn every_route_opens_as_often_as_it_says() {
    let dir = TempDir::new();
    let there = dir.plain("there");
    for route in ["openat", "openat2", "openat-dirfd"] {
        let said = Work::opens(route, 7, &there).start().unwrap().run().unwrap();
        assert_eq!(said, ["opened 7 failed 0"], "{route}");
    }
    let said = Work::opens("openat", 7, dir.join("missing")).start().unwrap().run().unwrap();
    assert_eq!(said, ["opened 0 failed 7"]);
}

#[test]
fn threads_share_nothing_but_the_gate() {
    let dir = TempDir::new();
    let work = Work::opens("openat", 11, dir.plain("f")).arg("--threads").arg("3").hold();
    let mut work = work.start().unwrap();
    assert_eq!(cpu::tids(work.pid()).len(), 4, "three workers and the one that waits");
    work.go();
    work.wait_done();
    assert_eq!(work.finish().unwrap(), ["opened 33 failed 0", "done"]);
}

#[test]
fn paths_are_bytes() {
    let dir = TempDir::new();
    let said = Work::opens("openat", 2, dir.file(b"a\xff\x1b[31m\nb")).start().unwrap().run().unwrap();
    assert_eq!(said, ["opened 2 failed 0"]);
}

#[test]
fn the_kernels_account_counts_each_nap() {
    let mut work = Work::new("nap 101 1000").hold().start().unwrap();
    let before = cpu::Account::of(work.pid());
    work.go();
    work.wait_done();
    let spent = cpu::Account::of(work.pid()).since(before);
    assert!(spent.arrivals > 101, "{spent:?}");
    assert_eq!(
        spent.arrivals,
        spent.voluntary + spent.involuntary,
        "each arrival has its departure: {spent:?}"
    );
}

#[test]
fn a_pinned_process_stays_on_its_cpu() {
    let work = Work::new("nap 1 1").on_cpu(cpu::last()).start().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", work.pid())).unwrap();
    assert!(status.contains(&format!("Cpus_allowed_list:\t{}\n", cpu::last())), "{status}");
}

#[test]
fn a_tool_is_ready_when_it_says_so_and_what_it_prints_is_kept() {
    let dir = TempDir::new();
    let script = dir.join("tool");
    let text = "#!/bin/bash\ntrap 'echo bye; exit 5' INT\n[ \"$1\" = --ready-fd ] && eval \"echo ready >&$2; exec $2>&-\"\n\
                echo here; echo oops >&2; while :; do read -t 1 x </dev/zero 2>/dev/null || :; done\n";
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let tool = Tool::at("tool", OsStr::new(&script)).start();
    assert_eq!(tool.lines(1), ["here"]);
    tool.freeze();
    tool.thaw();
    let ended = tool.stop().expect(5);
    assert_eq!((ended.out().as_str(), ended.err().as_str()), ("here\nbye\n", "oops\n"));
}

#[test]
fn a_closed_reader_is_seen_by_the_writer() {
    let ended = shell("trap '' PIPE; while echo x 2>/dev/null; do :; done; exit 9").head(1).run();
    assert_eq!(ended.status.code(), Some(9), "{}", ended.story());
}

mod root {
    use super::*;
    use tracebelt_tests::{Cgroup, bpf, skip};

    #[test]
    fn a_group_holds_what_is_put_into_it() {
        let group = match Cgroup::new() {
            Ok(group) => group,
            Err(why) => skip!("{why}"),
        };
        let inner = group.child("inner");
        let work = Work::new("nap 1 1").start().unwrap();
        inner.add(work.pid());
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", work.pid())).unwrap();
        assert!(groups.contains(&format!("0::{}\n", inner.path())), "{groups}");
        drop(work);
        let dir = inner.dir().to_owned();
        drop(inner);
        assert!(!dir.exists());
    }

    #[test]
    fn nobody_has_nothing_and_capabilities_are_what_was_given() {
        let status = |tool: Tool| {
            let text = tool.run().expect(0).out();
            let field = |name: &str| {
                let line = text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
                line.split_whitespace().nth(1).unwrap().to_owned()
            };
            (field("Uid:"), field("CapEff:"))
        };
        let script = "cat /proc/self/status";
        assert_eq!(status(shell(script).as_nobody()), ("65534".to_owned(), "0000000000000000".to_owned()));
        assert_eq!(
            status(shell(script).as_powerless_root()),
            ("0".to_owned(), "0000000000000000".to_owned())
        );
        let bits = format!("{:016x}", 1_u64 << 38 | 1 << 39);
        assert_eq!(status(shell(script).with_bpf_capabilities()), ("65534".to_owned(), bits));
    }

    /// By Debian's runqlat, where it is installed.
    #[test]
    fn the_objects_of_a_process_are_found_and_found_gone() {
        let peer = OsStr::new("/usr/sbin/runqlat");
        if !std::path::Path::new(peer).exists() {
            return;
        }
        let peer = Tool::at("peer", peer).launch_only();
        let links = || bpf::held_by(peer.pid()).into_iter().filter(|(kind, _)| *kind == "link").count();
        tracebelt_tests::wait_until("three links", || (links() == 3).then_some(()));
        let held = bpf::held_by(peer.pid());
        assert!(held.iter().all(|object| bpf::is_there(*object)), "{held:?}");
        peer.signal(libc::SIGKILL);
        drop(peer.wait());
        tracebelt_tests::wait_until("the objects are gone", || {
            (!held.iter().any(|object| bpf::is_there(*object))).then_some(())
        });
    }
}
