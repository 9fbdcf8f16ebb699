//! Names in the kernel, against /proc/kallsyms.

#[cfg(test)]
mod root {
    #![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

    use std::fs;

    use stack::{Options, Space, Symbols};
    use tracebelt_tests::skip;

    /// Functions by address.
    fn functions() -> Vec<(u64, String)> {
        let text = fs::read_to_string("/proc/kallsyms").unwrap();
        let mut functions: Vec<(u64, String)> = text
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let address = u64::from_str_radix(words.next()?, 16).ok()?;
                let is_code = matches!(words.next()?, "t" | "T");
                is_code.then(|| Some((address, words.next()?.to_owned())))?
            })
            .collect();
        functions.sort();
        functions
    }

    #[test]
    fn functions_have_names_and_nothing_is_hidden() {
        let mut symbols = Symbols::new(Options::default());
        if let Some(why) = symbols.kernel_hidden() {
            skip!("{why}");
        }
        let functions = functions();
        let index = functions.iter().position(|(_, name)| name == "schedule").unwrap();
        let (address, _) = functions[index];
        let behind = functions[index + 1..].iter().find(|(other, _)| *other > address).unwrap().0;
        let stacks: [&[u64]; 2] = [&[address + 5, address + 5], &[behind, behind]];
        let frames = symbols.kernel(&stacks);
        let label = |stack: usize, depth: usize| frames[stack][depth].label().into_owned();
        assert_eq!((label(0, 0).as_str(), label(0, 1).as_str()), ("schedule", "schedule"));
        assert_eq!((frames[0][0].offset, frames[0][1].offset), (5, 5));
        assert_eq!(frames[0][0].space, Space::Kernel);
        // Behind the last instruction: as a place to return to, the call was before it.
        assert_ne!(label(1, 0), "schedule");
        assert_eq!(label(1, 1), "schedule");
        assert_eq!(frames[1][1].offset, behind - address);
    }
}
