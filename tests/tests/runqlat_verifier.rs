//! runqlat: the kernel takes its programs with every combination of settings.

mod root {
    #[test]
    fn every_setting_is_taken() {
        let modes = ["", "--slower 1ms", "-P", "-L", "--pidnss", "--by cgroup", "--by cpu -m"];
        tracebelt_tests::settings::all_are_taken("runqlat", &[], &modes);
    }
}
