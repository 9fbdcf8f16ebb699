mod bpf {
    include!(concat!(env!("OUT_DIR"), "/bpf.rs"));
}
fn main() {}
