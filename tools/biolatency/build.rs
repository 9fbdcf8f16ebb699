fn main() -> Result<(), bpf_build::Error> {
    bpf_build::skeleton("biolatency")
}
