//! The kernel's types from a file (`--btf`), as on a kernel that has none itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use std::fs;

    use tracebelt_tests::{TempDir, Tool, env};

    const OWN: &str = "/sys/kernel/btf/vmlinux";

    /// The whole of what is different: a way that needs nothing but the places of fields.
    #[test]
    fn a_copy_of_its_own_types_will_do() {
        let dir = TempDir::new();
        let copy = dir.join("types");
        fs::copy(OWN, &copy).unwrap();
        for tool in env::tools() {
            let check = Tool::new(&tool).args(["--check", "--btf", &copy]).run();
            if env::probe().is_some_and(|probe| probe != "raw_tp") {
                // A forced way that wants more is refused.
                continue;
            }
            if check.status.code() == Some(3) {
                // It needs more than the places of fields, and says so.
                check.expect(3);
                Tool::new(&tool).args(["--btf", &copy]).run().expect_error(3, &["--btf"]);
                continue;
            }
            let text = check.expect(0).silent().out();
            assert!(!text.lines().any(|line| line.contains("tp_btf") && line.contains("chosen")), "{text}");
            let running = Tool::new(&tool).args(["--json", "--btf", &copy]).start();
            let ended = running.stop().expect(0);
            let hooks = ended.end().0.get("hooks").to_string();
            assert!(hooks.contains("raw_tp") && !hooks.contains("tp_btf"), "{hooks}");
        }
    }

    #[test]
    fn a_file_without_types_is_named() {
        let dir = TempDir::new();
        let plain = dir.plain("plain");
        for tool in env::tools() {
            for path in ["/nowhere/at/all", "/", &plain] {
                Tool::new(&tool).args(["--btf", path]).run().expect_error(1, &["--btf", path]);
            }
        }
    }

    /// Another kernel's types: everything would be read from a wrong place.
    #[test]
    fn types_of_another_kernel_are_refused() {
        let dir = TempDir::new();
        let mut types = fs::read(OWN).unwrap();
        move_members(&mut types, "tgid");
        let other = dir.join("other");
        fs::write(&other, types).unwrap();
        for tool in env::tools() {
            Tool::new(&tool).args(["--btf", &other]).run().expect_error(1, &[&other, "not the types"]);
        }
    }

    /// Moves every member of this name by 8 bytes. Documentation/bpf/btf.rst: a struct btf_member is three
    /// u32: the name's place among the strings, the type, and the place in bits.
    fn move_members(types: &mut [u8], name: &str) {
        let word = |types: &[u8], at: usize| u32::from_ne_bytes(types[at..at + 4].try_into().unwrap());
        let [header, type_at, type_size, text_at, text_size] =
            [4, 8, 12, 16, 20].map(|at| word(types, at) as usize);
        let text = &types[header + text_at..][..text_size];
        let place =
            text.windows(name.len() + 2).position(|w| w == format!("\0{name}\0").as_bytes()).unwrap() + 1;
        let mut at = header + type_at;
        let mut moved = 0;
        while at < header + type_at + type_size {
            let info = word(types, at + 4);
            let (count, kind) = ((info & 0xffff) as usize, info >> 24 & 0x1f);
            let tail = match kind {
                1 | 14 | 17 => 4,              // INT, VAR, DECL_TAG
                3 => 12,                       // ARRAY
                4 | 5 | 15 | 19 => 12 * count, // STRUCT, UNION, DATASEC, ENUM64
                6 | 13 => 8 * count,           // ENUM, FUNC_PROTO
                _ => 0,
            };
            if matches!(kind, 4 | 5) {
                for member in (0..count).map(|i| at + 12 + 12 * i) {
                    if word(types, member) as usize == place {
                        let bits = word(types, member + 8) + 64;
                        types[member + 8..member + 12].copy_from_slice(&bits.to_ne_bytes());
                        moved += 1;
                    }
                }
            }
            at += 12 + tail;
        }
        assert!(moved > 0, "no member is named {name}");
    }
}
