//! Names as their language has them. Only of symbols that are mangled: the rules for C++ take a C function named `a`
//! or `i` for a type, `signed char` or `int`.

/// Rust's names without their hash.
pub fn demangle(name: &str) -> Option<String> {
    // macOS and some linkers put another underscore before it.
    let symbol = name.strip_prefix("__").map_or(name, |_| &name[1..]);
    if !symbol.starts_with("_Z") && !symbol.starts_with("_R") {
        return None;
    }
    if let Ok(rust) = rustc_demangle::try_demangle(symbol) {
        return Some(format!("{rust:#}"));
    }
    cpp_demangle::Symbol::new(symbol).ok()?.demangle().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_and_cpp_are_told_apart() {
        let of = |name| demangle(name).unwrap();
        assert_eq!(of("_ZN4core9panicking9panic_fmt17h5f1a6fd39197ad62E"), "core::panicking::panic_fmt");
        assert_eq!(of("_RNvCs1234_7mycrate3foo"), "mycrate::foo");
        assert_eq!(of("_ZN5space5outerEic"), "space::outer(int, char)");
    }

    #[test]
    fn what_is_not_mangled_stays() {
        for name in ["a", "b", "i", "main", "_start", "__libc_start_main", "_Zzz", "_Rest", "_R", "_Z", ""] {
            assert_eq!(demangle(name), None, "{name}");
        }
    }
}
