# shellcheck shell=bash
# Finds a Rust toolchain that is new enough, or gets one. Sourced by setup.sh, which sets:
# shellcheck disable=SC2154 # root, target, owner_home

# Said in one place, Cargo.toml.
rust_needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
rust_dir=

# cargo as the checkout's owner. The environment is cargo's alone: the tool, and a command that the tool
# runs, get the user's own.
run_cargo() { as_owner env PATH="$rust_path" CARGO_TARGET_DIR="$target" cargo "$@"; }

# at_least 1.96.0+dfsg1 1.88
at_least() { [[ $(printf '%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

# Sets rust_dir and rust_path to the first toolchain that is new enough. What PATH names may be an old one, and some are
# not on PATH: Ubuntu's versioned packages are in /usr/lib/rust-*, sudo hides ~/.cargo/bin.
use_rust() {
    local dir version
    while read -r dir; do
        [[ -x $dir/rustc && -x $dir/cargo ]] || continue
        version=$(as_owner "$dir/rustc" --version 2>/dev/null) || continue
        read -r _ version _ <<<"$version"
        at_least "$version" "$rust_needed" || continue
        rust_dir=$dir rust_path=$PATH
        [[ $(command -v cargo) == "$dir/cargo" ]] || rust_path=$dir:$PATH
        return
    done < <(
        dirname "$(command -v rustc || echo /usr/bin/rustc)"
        printf '%s\n' "$owner_home/.cargo/bin" /usr/bin
        compgen -G '/usr/lib/rust-*/bin' | sort -rV
        compgen -G "$owner_home/.rustup/toolchains/stable-*/bin"
    )
    return 1
}

# The suffix of apt's Rust packages, if any are new enough: none, Debian's "-web" (kept new for browsers),
# or Ubuntu's "-1.NN".
apt_rust() {
    local name version
    for name in rustc rustc-web $(apt-cache pkgnames rustc-1. | grep -E '^rustc-1\.[0-9]+$' | sort -rV); do
        version=$(apt_candidate "$name")
        [[ $version ]] && at_least "$version" "$rust_needed" && echo "${name#rustc}" && return
    done
    return 1
}

install_rust() {
    local suffix rustup
    # Who has rustup wants Rust from there, and needs no root for it.
    if rustup=$(PATH=$owner_home/.cargo/bin:$PATH command -v rustup); then
        say "installing Rust by $rustup"
        as_owner "$rustup" toolchain install stable --profile minimal >&2 && use_rust && return
    fi
    if suffix=$(apt_rust); then
        # cargo fetches by https, and a minimal system has no certificates to check that with.
        apt_install ca-certificates "rustc$suffix" "cargo$suffix" && use_rust && return
        say "could not; by hand: apt-get install rustc$suffix cargo$suffix"
    else
        say "apt has no Rust $rust_needed or newer"
    fi
    say "installing Rust by rustup from https://sh.rustup.rs to $owner_home/.cargo"
    have curl || apt_install ca-certificates curl || die "cannot install curl"
    # Fetched whole, then run: half a script would do half the work.
    rustup=$(curl --proto '=https' --tlsv1.2 -sSf --connect-timeout 20 https://sh.rustup.rs) ||
        die "cannot fetch https://sh.rustup.rs: install Rust $rust_needed or newer, then run this again"
    as_owner sh -s -- -y --profile minimal --no-modify-path <<<"$rustup" >&2 || die "rustup failed"
    use_rust || die "rustup left no Rust $rust_needed or newer in $owner_home/.cargo"
}

have_lints() { run_cargo fmt --version && run_cargo clippy --version; } >/dev/null 2>&1

# rustfmt and clippy, from wherever the toolchain in use came from.
install_lints() {
    local version=${rust_dir#/usr/lib/rust-} toolchain=
    if [[ $rust_dir == /usr/lib/rust-* ]]; then
        apt_install "rustfmt-${version%/bin}" "rust-${version%/bin}-clippy"
    elif [[ $rust_dir != /usr/bin ]]; then
        [[ $rust_dir != */toolchains/* ]] || toolchain=--toolchain=$(basename "${rust_dir%/bin}")
        as_owner env PATH="$rust_dir:$owner_home/.cargo/bin:$PATH" \
            rustup component add ${toolchain:+"$toolchain"} rustfmt clippy >&2
    elif dpkg-query -W rustc-web >/dev/null 2>&1; then
        apt_install rustfmt-web rust-web-clippy
    else
        apt_install rustfmt rust-clippy
    fi
}
