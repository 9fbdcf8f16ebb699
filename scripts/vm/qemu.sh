# shellcheck shell=bash
# shellcheck disable=SC2154 # cache: kernels.sh
# QEMU where its packages cannot be installed beside those that are there: Debian 12 with qemu-utils from its
# backports is one. Nothing is taken away for us, so we keep a copy of our own. Sourced by vm-test.

qemu_dir=$cache/qemu

have_qemu() { have qemu-system-x86_64 || qemu_runs "$qemu_dir"; }

qemu_install() { apt_update && { apt_install qemu-system-x86 || qemu_unpack qemu-system-x86; }; }

# A copy leans on libraries of this machine, which may have gone since.
qemu_runs() {
    local lib=usr/lib/x86_64-linux-gnu
    LD_LIBRARY_PATH=$1/$lib:$1/${lib#usr/} "$1/usr/bin/qemu-system-x86_64" --version >/dev/null 2>&1
}

# Unpacks the packages, and those that they need and this machine lacks, below the cache.
qemu_unpack() {
    local part=$qemu_dir.part names deb
    say "then without installing it: a copy in $qemu_dir"
    # Not what would be upgraded: "Inst NAME [OLD] (NEW"
    mapfile -t names < <(apt-get -s --no-install-recommends install "$@" | sed -n 's/^Inst \([^ ]*\) (.*/\1/p')
    rm -rf "$part" "$qemu_dir"
    mkdir -p "$part/debs"
    (cd "$part/debs" && apt-get -qq -o APT::Sandbox::User=root download "${names[@]}" >&2) || return
    for deb in "$part"/debs/*.deb; do dpkg-deb -x "$deb" "$part" || return; done
    rm -rf "$part/debs"
    qemu_runs "$part" || return
    mv "$part" "$qemu_dir"
}
