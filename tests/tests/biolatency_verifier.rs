//! biolatency: the kernel takes its programs with every combination of settings.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic here is a failed test")]

mod root {
    use tracebelt_tests::{Cgroup, Tool};

    #[test]
    fn every_setting_is_taken() {
        let modes = [
            "",
            "-Q",
            "--split",
            "--size",
            "-i",
            "-D -F",
            "--by op,size",
            "-m --split --by partition",
            "--ns -i -F",
            "--slower 1ms",
            "--bio",
            "--bio --size --by flags,partition,size",
            "--bio --slower 1ms",
        ];
        // One that has requests: the others go with --bio only.
        let disk =
            std::fs::read_dir("/sys/block").unwrap().flatten().find(|disk| disk.path().join("mq").exists());
        let disk = disk.map(|entry| format!("-d {}", entry.file_name().to_str().unwrap().replace('!', "/")));
        let mut filters = vec![String::new(), "-o read,write,flush".to_owned(), "-- true".to_owned()];
        match disk {
            Some(disk) => filters.push(disk),
            None => eprintln!("biolatency: no disk with requests here, so not tried: --disk"),
        }
        let group = Cgroup::new().ok().filter(|group| {
            let list = std::fs::read_to_string(group.dir().join("cgroup.controllers")).unwrap_or_default();
            list.contains("io")
        });
        let mut modes: Vec<String> = modes.map(str::to_owned).into();
        match &group {
            Some(group) => {
                filters.insert(0, format!("-c {}", group.dir().display()));
                modes.extend(["--by cgroup".to_owned(), "--bio --by cgroup,disk,op".to_owned()]);
            }
            None => eprintln!("biolatency: no io controller in cgroup v2 here, so not tried: --cgroup"),
        }
        let mut refused = Vec::new();
        for mode in &modes {
            for filter in &filters {
                let ended = Tool::new("biolatency").words(&format!("--check {mode} {filter}")).run();
                if !ended.status.success() {
                    refused.push(ended.story());
                }
            }
        }
        eprintln!("biolatency: {} settings", modes.len() * filters.len());
        assert!(refused.is_empty(), "{} refused\n{}", refused.len(), refused.join("\n"));
    }
}
