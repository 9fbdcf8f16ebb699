//! How many stacks are remembered.

/// By number, or by the memory that they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    Stacks(u64),
    Bytes(u64),
}

/// `16384` stacks, as the peers have it, or `64M`.
///
/// # Errors
/// Neither.
pub fn parse(text: &str) -> Result<Budget, String> {
    let hint = || "not a number of stacks, nor memory such as 512K, 64M or 1G".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| hint())?;
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" => None,
        "K" | "KB" | "KIB" => Some(10),
        "M" | "MB" | "MIB" => Some(20),
        "G" | "GB" | "GIB" => Some(30),
        _ => return Err(hint()),
    };
    if number == 0 {
        return Err("must be more than 0".to_owned());
    }
    match shift {
        None => Ok(Budget::Stacks(number)),
        Some(shift) => number.checked_mul(1 << shift).map(Budget::Bytes).ok_or_else(|| "too much".to_owned()),
    }
}

impl Budget {
    pub fn allows(self, stacks: u64, bytes: u64) -> bool {
        match self {
            Budget::Stacks(most) => stacks <= most,
            Budget::Bytes(most) => bytes <= most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_of_stacks_and_a_unit_makes_it_memory() {
        assert_eq!(parse("1024"), Ok(Budget::Stacks(1024)));
        assert_eq!(parse("64M"), Ok(Budget::Bytes(64 << 20)));
        assert_eq!(parse("2GiB"), Ok(Budget::Bytes(2 << 30)));
        for text in ["", "0", "0M", "M", "-1", "1x", "1.5M", "99999999999999999999", "99999999999999G"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(Budget::Bytes(100).allows(9, 100) && !Budget::Stacks(8).allows(9, 0));
    }
}
