//! Latency histograms: decode what `bpf/lib/hist.bpf.h` counted, merge, percentiles, classic rows.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// Slots of a per-CPU histogram; `HIST_SLOTS` in `bpf/lib/hist.bpf.h`.
pub const SLOTS: usize = (64 - SUB_BITS as usize + 1) << SUB_BITS;
const SUB_BITS: u32 = 4;
const SUB: u64 = 1 << SUB_BITS;

/// What a time is shown in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Nsecs,
    Usecs,
    Msecs,
    /// No time: sizes, counted as nanoseconds are.
    Bytes,
}

impl Unit {
    /// The word at the head of a histogram, and its `unit` in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Unit::Nsecs => "nsecs",
            Unit::Usecs => "usecs",
            Unit::Msecs => "msecs",
            Unit::Bytes => "bytes",
        }
    }

    #[must_use]
    pub fn nanos(self) -> u64 {
        match self {
            Unit::Nsecs | Unit::Bytes => 1,
            Unit::Usecs => 1_000,
            Unit::Msecs => 1_000_000,
        }
    }

    /// How many values of a slot's scale make one unit.
    fn fraction(self) -> u64 {
        if matches!(self, Unit::Nsecs | Unit::Bytes) { 1 } else { 64 }
    }

    /// Nanoseconds in this unit.
    #[must_use]
    pub fn of_nanos(self, nanos: f64) -> f64 {
        nanos / self.nanos() as f64
    }
}

/// One row of the classic histogram: how many values lie in `lo..=hi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub lo: u64,
    pub hi: u64,
    pub count: u64,
}

/// A histogram with its exact count, sum, minimum and maximum. Times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hist {
    slots: BTreeMap<u32, u64>,
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
}

impl Hist {
    /// Adds `count` values that fell into `slot`, with their exact sum and extremes.
    pub fn add_slot(&mut self, slot: u32, count: u64, sum: u64, min: u64, max: u64) {
        if count == 0 {
            return;
        }
        *self.slots.entry(slot).or_default() += count;
        self.add_exact(count, sum, min, max);
    }

    /// Adds what one CPU counted: `struct hist`, as it lies in the map.
    pub fn add_struct(&mut self, bytes: &[u8]) {
        let mut words =
            bytes.chunks_exact(8).filter_map(|word| word.first_chunk()).map(|w| u64::from_ne_bytes(*w));
        let [count, sum, min, max] = std::array::from_fn(|_| words.next().unwrap_or(0));
        for (slot, n) in (0_u32..).zip(words).filter(|(_, n)| *n > 0) {
            *self.slots.entry(slot).or_default() += n;
        }
        self.add_exact(count, sum, min, max);
    }

    pub fn merge(&mut self, other: &Hist) {
        for (slot, n) in &other.slots {
            *self.slots.entry(*slot).or_default() += n;
        }
        self.add_exact(other.count, other.sum, other.min, other.max);
    }

    fn add_exact(&mut self, count: u64, sum: u64, min: u64, max: u64) {
        if count == 0 {
            return;
        }
        self.min = if self.count == 0 { min } else { self.min.min(min) };
        self.max = self.max.max(max);
        self.sum = self.sum.saturating_add(sum);
        self.count += count;
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    #[must_use]
    pub fn min(&self) -> u64 {
        self.min
    }

    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The classic log2 rows, from the first one to the last that is not empty. Every slot lies
    /// wholly in one row, so these are exact sums.
    #[must_use]
    pub fn rows(&self, unit: Unit) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for (slot, count) in &self.slots {
            let index = (slot_start(*slot) / unit.fraction()).max(1).ilog2();
            while rows.len() <= index as usize {
                let power = rows.len() as u32;
                let lo = if power == 0 { 0 } else { 1 << power };
                rows.push(Row { lo, hi: u64::MAX >> (63 - power), count: 0 });
            }
            if let Some(row) = rows.get_mut(index as usize) {
                row.count += count;
            }
        }
        rows
    }

    /// Values in nanoseconds at the given quantiles (0 to 1), to within half a slot: 3.2%.
    #[must_use]
    pub fn quantiles<const N: usize>(&self, unit: Unit, quantiles: [f64; N]) -> [f64; N] {
        let per_value = unit.nanos() as f64 / unit.fraction() as f64;
        // Two digits: 1%, a third of a slot. As small as the highest value allows: -L prints thousands.
        let top = self.slots.keys().next_back().map_or(0, |slot| slot_middle(*slot));
        let Ok(mut hdr) = Histogram::<u64>::new_with_bounds(1, top.clamp(2, u64::MAX / 4), 2) else {
            return [f64::NAN; N];
        };
        for (slot, count) in &self.slots {
            hdr.saturating_record_n(slot_middle(*slot), *count);
        }
        // The slots know a value to 3%, min and max are exact: no percentile lies outside them.
        let exact = |value: u64| (value as f64 * per_value).max(self.min as f64).min(self.max as f64);
        quantiles.map(|q| exact(hdr.value_at_quantile(q)))
    }
}

/// The smallest scaled value that falls into `slot`.
fn slot_start(slot: u32) -> u64 {
    let slot = u64::from(slot);
    if slot < SUB {
        return slot;
    }
    (SUB + slot % SUB) << (slot / SUB - 1)
}

fn slot_middle(slot: u32) -> u64 {
    let width = if u64::from(slot) < SUB { 1 } else { 1_u64 << (u64::from(slot) / SUB - 1) };
    slot_start(slot) + width / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `hist_slot` of `bpf/lib/hist.bpf.h`.
    fn slot_of(value: u64) -> u32 {
        if value < SUB {
            return value as u32;
        }
        let exponent = value.ilog2();
        (exponent - SUB_BITS + 1) * SUB as u32 + ((value >> (exponent - SUB_BITS)) as u32 & (SUB as u32 - 1))
    }

    /// `hist_scale` of `bpf/lib/hist.bpf.h`.
    fn scale(nanos: u64, unit: Unit) -> u64 {
        match unit {
            Unit::Nsecs | Unit::Bytes => nanos,
            Unit::Usecs if nanos < 1 << 27 => (nanos * 8 * 8_796_093_023) >> 40,
            Unit::Usecs => nanos / 125 * 8 + nanos % 125 * 8 / 125,
            Unit::Msecs => nanos / 15_625,
        }
    }

    fn of(nanos: &[u64], unit: Unit) -> Hist {
        let mut hist = Hist::default();
        for n in nanos {
            hist.add_slot(slot_of(scale(*n, unit)), 1, *n, *n, *n);
        }
        hist
    }

    #[test]
    fn slots_tile_all_of_64_bits() {
        let last = SLOTS as u32 - 1;
        assert_eq!(slot_of(u64::MAX), last);
        for slot in 0..last {
            assert_eq!(slot_of(slot_start(slot)), slot);
            assert_eq!(slot_of(slot_start(slot + 1) - 1), slot);
        }
    }

    #[test]
    fn a_value_at_an_edge_lands_in_the_row_of_its_whole_units() {
        for unit in [Unit::Nsecs, Unit::Usecs, Unit::Msecs] {
            for power in 0..26 {
                for nanos in [(unit.nanos() << power) - 1, unit.nanos() << power, (unit.nanos() << power) + 1]
                {
                    let rows = of(&[nanos], unit).rows(unit);
                    let whole = nanos / unit.nanos();
                    let row = rows.last().unwrap();
                    assert!(row.lo <= whole && whole <= row.hi, "{nanos} ns in {row:?} {unit:?}");
                    assert_eq!(row.count, 1);
                }
            }
        }
    }

    #[test]
    fn the_multiplication_is_the_exact_quotient() {
        for nanos in (0..1_u64 << 27).step_by(7919).chain((1 << 27) - 1000..(1 << 27) + 1000) {
            assert_eq!(scale(nanos, Unit::Usecs), nanos * 64 / 1000, "{nanos}");
        }
    }

    #[test]
    fn leading_empty_rows_are_there_and_trailing_ones_are_not() {
        let rows = of(&[5_000, 5_500, 9_000], Unit::Usecs).rows(Unit::Usecs);
        let expected = [(0, 1, 0), (2, 3, 0), (4, 7, 2), (8, 15, 1)];
        assert_eq!(rows.iter().map(|r| (r.lo, r.hi, r.count)).collect::<Vec<_>>(), expected);
        assert!(Hist::default().rows(Unit::Usecs).is_empty());
    }

    #[test]
    fn percentiles_are_within_half_a_slot_of_the_exact_ones() {
        let values: Vec<u64> = (1..=10_007).map(|i| i * 997).collect();
        let hist = of(&values, Unit::Usecs);
        for q in [0.5, 0.9, 0.99, 0.999] {
            let exact = values[(q * values.len() as f64).ceil() as usize - 1] as f64;
            let [found] = hist.quantiles(Unit::Usecs, [q]);
            assert!((found / exact - 1.0).abs() < 0.042, "p{q}: {found} for {exact}");
        }
        let [lowest, highest] = hist.quantiles(Unit::Usecs, [0.0, 1.0]);
        assert!(lowest >= hist.min() as f64 && highest <= hist.max() as f64);
    }

    #[test]
    fn merging_keeps_the_exact_figures() {
        let mut all = of(&[10_000, 20_000], Unit::Usecs);
        all.merge(&of(&[3_000], Unit::Usecs));
        all.merge(&Hist::default());
        assert_eq!((all.count(), all.sum(), all.min(), all.max()), (3, 33_000, 3_000, 20_000));
    }
}
