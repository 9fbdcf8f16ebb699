//! opensnoop: the kernel takes its programs with every combination of settings.

mod root {
    #[test]
    fn every_setting_is_taken() {
        let modes =
            ["", "-x", "-f O_CREAT", "--slower 1ms", "--latency -e", "-F", "-F -x -f O_RDONLY --slower 1ms"];
        tracebelt_tests::settings::all_are_taken("opensnoop", &["-u 0"], &modes);
    }
}
