//! `--split`: queue and device time in one block, so that one look tells which of them it is.

use common::hist::{Hist, Row, Unit};
use common::out::summary;

const BAR: u128 = 20;

/// Header, rows, and a line of figures for each. The bars have one scale.
pub fn block(queue: &Hist, device: &Hist, unit: Unit) -> Vec<String> {
    let (queues, devices) = (queue.rows(unit), device.rows(unit));
    let longer = if queues.len() > devices.len() { &queues } else { &devices };
    let most = queues.iter().chain(&devices).map(|row| row.count).max().unwrap_or(1).max(1);
    let stars = |count: u64| "*".repeat((BAR * u128::from(count) / u128::from(most)) as usize);
    let count = |rows: &[Row], i: usize| rows.get(i).map_or(0, |row| row.count);
    let mut lines = vec![format!(
        "     {:<19} : {:<8} {:<8} |{:<20}|{:<20}|",
        unit.name(),
        "queue",
        "device",
        "queue",
        "device"
    )];
    for (i, row) in longer.iter().enumerate() {
        let (q, d) = (count(&queues, i), count(&devices, i));
        lines.push(format!(
            "{:>10} -> {:<10} : {q:<8} {d:<8} |{:<20}|{:<20}|",
            row.lo,
            row.hi,
            stars(q),
            stars(d)
        ));
    }
    if queue.count() > 0 {
        lines.push(format!("# queue  {}", summary(queue, unit)));
        lines.push(format!("# device {}", summary(device, unit)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_stand_in_one_row() {
        let (mut queue, mut device) = (Hist::default(), Hist::default());
        // 1 us is 64 of the slots' scale: exponent 6, the first of sixteen.
        queue.add_slot((6 - 4 + 1) * 16, 4, 4_000, 1_000, 1_000);
        device.add_slot((8 - 4 + 1) * 16, 2, 8_000, 4_000, 4_000);
        device.add_slot((6 - 4 + 1) * 16, 2, 2_000, 1_000, 1_000);
        let lines = block(&queue, &device, Unit::Usecs);
        assert_eq!(
            lines[0],
            "     usecs               : queue    device   |queue               |device              |"
        );
        assert_eq!(
            lines[1],
            "         0 -> 1          : 4        2        |********************|**********          |"
        );
        assert_eq!(
            lines[3],
            "         4 -> 7          : 0        2        |                    |**********          |"
        );
        assert!(lines[4].starts_with("# queue  count=4 ") && lines[5].starts_with("# device count=4 "));
    }
}
