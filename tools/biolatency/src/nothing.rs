//! Why there was nothing to see.

use crate::args::Args;
use crate::disks::Disk;

/// A line for whoever sees an empty report and knows that there was I/O.
pub fn why(args: &Args, disks: &[Disk], bio: bool, in_flight: u64) -> String {
    let what = if bio { "bio" } else { "request" };
    let given = [("-d", !disks.is_empty()), ("-o", !args.op.is_empty()), ("-c", !args.cgroup.is_empty())];
    let filters: Vec<&str> = given.iter().filter(|(_, is_given)| *is_given).map(|(flag, _)| *flag).collect();
    let which =
        if filters.is_empty() { String::new() } else { format!(" that matches {}", filters.join(" ")) };
    if in_flight > 0 {
        let ended = if args.slower.is_some() { "that ended took that long" } else { "ended" };
        return format!("no {what}{which} {ended}: {in_flight} still in flight");
    }
    if args.slower.is_some() {
        return format!("no {what}{which} took that long");
    }
    let place = if disks.is_empty() { "the disks" } else { "the disk" };
    let mut why = format!(
        "no {what}{which} ended: {place} may be idle, reads may come from the page cache, writes may still be in it"
    );
    if let Some(part) = disks.iter().find(|disk| disk.is_part) {
        why += &format!("; {} is a partition, and flushes are its disk's", part.name);
    }
    if !args.cgroup.is_empty() && !bio {
        why += "; flushes are charged to no group";
    }
    if disks.is_empty() && !bio {
        why += "; dm, md and zram have no requests (--bio)";
    }
    why
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn said(line: &str, is_part: bool, in_flight: u64) -> String {
        let args = Args::parse_from(line.split_whitespace());
        let disk = Disk {
            name: "vda1".into(),
            is_part,
            dev: 1,
            first: 0,
            last: 9,
            takes_bios: false,
            below: Vec::new(),
        };
        let disks = if args.disk.is_empty() { Vec::new() } else { vec![disk] };
        why(&args, &disks, args.bio, in_flight)
    }

    #[test]
    fn each_reason_is_named_where_it_may_be_one() {
        let idle = "may be idle, reads may come from the page cache, writes may still be in it";
        assert_eq!(
            said("biolatency", false, 0),
            format!("no request ended: the disks {idle}; dm, md and zram have no requests (--bio)")
        );
        assert_eq!(
            said("biolatency -d vda1 -o read", true, 0),
            format!(
                "no request that matches -d -o ended: the disk {idle}; vda1 is a partition, and flushes are its disk's"
            )
        );
        assert_eq!(said("biolatency --bio", false, 0), format!("no bio ended: the disks {idle}"));
    }

    #[test]
    fn what_hangs_is_not_idle() {
        assert_eq!(
            said("biolatency -d vda1", false, 3),
            "no request that matches -d ended: 3 still in flight"
        );
        assert_eq!(
            said("biolatency --slower 1ms", false, 3),
            "no request that ended took that long: 3 still in flight"
        );
        assert_eq!(said("biolatency --slower 1ms", false, 0), "no request took that long");
    }
}
