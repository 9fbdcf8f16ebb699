# shellcheck shell=bash source-path=SCRIPTDIR
# What scripts/run and scripts/test share: who builds, what the build needs, how it is installed.
# Sourced, not run. All of it talks on stderr: stdout belongs to the tool.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Made absolute here: cargo and the tests run in other folders.
target=$(realpath -m -- "${CARGO_TARGET_DIR:-$root/target}")

say() { printf 'scripts/%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    say "$@"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# `sudo scripts/run` must not leave files in a user's checkout that only root can replace, nor overlook
# the toolchain in that user's home: the checkout's owner builds.
owner=$(stat -c %U "$root")
if ((EUID != 0)) || [[ $owner == root || $owner == UNKNOWN ]] || ! have runuser; then
    owner=
    owner_home=${HOME:-/root}
else
    owner_home=$(getent passwd "$owner" | cut -d: -f6)
fi
as_owner() {
    if [[ $owner ]]; then
        runuser -u "$owner" -- env HOME="$owner_home" "$@"
    else
        "$@"
    fi
}

as_root() {
    if ((EUID == 0)); then "$@"; else sudo -- "$@"; fi
}

# The names that common/build tries, and the oldest version that it takes.
have_clang() {
    local name version
    for name in ${BPF_CLANG:-clang-19 clang-18 clang-17 clang-16 clang}; do
        version=$("$name" -dumpversion 2>/dev/null) && ((${version%%.*} >= 16)) && return
    done
    return 1
}

# Asks the compiler and pkg-config, not dpkg: that holds on every distribution.
have_c() {
    have make && have pkg-config && have cc && pkg-config --exists libelf zlib &&
        printf '#include <%s>\n' stdio.h gelf.h zlib.h | cc -E - >/dev/null 2>&1
}

# shellcheck source=apt.sh
. "$root/scripts/lib/apt.sh"
# shellcheck source=rust.sh
. "$root/scripts/lib/rust.sh"

# Everything that a build needs. Silent, and without network, as long as nothing is missing.
setup() {
    local missing=() debs=() clang
    use_rust || missing+=("Rust $rust_needed or newer")
    have_clang || missing+=("clang 16 or newer")
    have_c || missing+=("cc, make, pkg-config or the headers of libelf and zlib")
    ((${#missing[@]})) || return 0
    printf -v missing '%s; ' "${missing[@]}"
    say "missing: ${missing%; }"
    debian || die "packages are installed on Debian and Ubuntu only; here: $(packages_elsewhere)"

    can_install || die "installing them needs root, and there is no sudo: run this once as root"
    apt_update
    have_c || debs+=(gcc libc6-dev make pkg-config libelf-dev zlib1g-dev)
    if ! have_clang; then
        clang=$(apt_first clang-19 clang-18 clang-17 clang-16 clang) || die "apt knows no clang: is the network there?"
        debs+=("$clang")
    fi
    ((${#debs[@]} == 0)) || apt_install "${debs[@]}" || die "cannot install ${debs[*]}"
    use_rust || install_rust
    have_clang || die "there is still no clang 16 or newer${BPF_CLANG:+; BPF_CLANG=$BPF_CLANG}"
    have_c || die "cc still does not find the headers of libelf and zlib"
}

# Programs that some root tests work with. Where one cannot be had, those tests say so and are skipped.
setup_root_tests() {
    local name debs=()
    for name in fio dmsetup; do # packages of the same names
        PATH=$PATH:/usr/sbin:/sbin have "$name" || debs+=("$name")
    done
    ((${#debs[@]})) || return 0
    { can_install && apt_update && apt_install "${debs[@]}"; } || say "going on without ${debs[*]}: some tests are skipped"
}
