# shellcheck shell=bash
# shellcheck disable=SC2154 # here, set by vm-test
# Debian's kernels: which the mirror serves, and the newest of each series in the cache. Sourced by vm-test.
#
# A kernel is asked for by a label: a series (6.1), a series and a flavour (6.1-rt, 6.1-generic), `newest`,
# `newest-rt`, or a whole release (5.10.0-32-cloud-amd64). Without a flavour it is Debian's cloud kernel: the
# same source and the same tracing options as the generic one in a third of the size.
#
# apt gets a root of its own below the cache, so the machine's own apt state is neither used nor touched.

cache=${VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tracebelt/vm}
mirror=${VM_MIRROR:-http://deb.debian.org}
kernels=$cache/kernels
# Suites that carry kernels. The last ones hold the newest.
suites=(debian/bullseye debian-security/bullseye-security debian/bookworm debian-security/bookworm-security
    debian/bookworm-backports debian/trixie debian-security/trixie-security debian/trixie-backports debian/sid)

own_apt() { APT_CONFIG=$cache/apt/apt.conf "$@"; }

# Makes the private apt root, and renews its index once a day. Without network the last index must do.
kernels_index() {
    local apt=$cache/apt suite
    mkdir -p "$apt"/etc/apt/{apt.conf.d,preferences.d} "$apt"/var/lib/{apt/lists/partial,dpkg} \
        "$apt/var/cache/apt/archives/partial" "$cache/debs" "$kernels"
    : >"$apt/var/lib/dpkg/status"
    for suite in "${suites[@]}"; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror/${suite%%/*} ${suite#*/} main"
    done >"$apt/etc/apt/sources.list"
    # Check-Valid-Until: the suites of old releases are no longer renewed. The last line: this machine's proxy. The last line: the machine's proxy.
    cat >"$apt/apt.conf" <<CONF
Dir "$apt"; Dir::State::status "$apt/var/lib/dpkg/status"; Dir::Cache::srcpkgcache "";
APT::Architecture "amd64"; APT::Architectures { "amd64"; }; APT::Sandbox::User "root";
Acquire::Languages "none"; Acquire::GzipIndexes "true"; Acquire::Check-Valid-Until "false"; Acquire::Retries "2";
$(apt-config dump | grep -E '^Acquire::https?::' || true)
CONF
    if [ -z "$(find "$apt/updated" -mtime -1 2>/dev/null)" ]; then
        say "reading the index of $mirror"
        # Its exit code is 0 even when some suites could not be read.
        if own_apt apt-get -qq update >"$apt/log" 2>&1 && ! grep -q '^[EW]:' "$apt/log"; then
            touch "$apt/updated"
        else say "the index is old or incomplete:" && sed 's/^/  /' "$apt/log" >&2; fi
    fi
    own_apt apt-cache pkgnames linux- | sort -u >"$cache/names"
}

# kernels_releases LABEL: the releases that fit, newest first: those in the index and those in the cache.
kernels_releases() {
    local series=$1 flavour=cloud-amd64
    case $1 in
    *-amd64)
        echo "$1"
        return
        ;;
    *-rt) series=${1%-rt} flavour=rt-amd64 ;;
    *-generic) series=${1%-generic} flavour=amd64 ;;
    esac
    series=${series//./\\.}
    [ "$series" != newest ] || series='[0-9]+\.[0-9]+'
    {
        # Of 6.19 to 7.1 the index has what boots, but no modules.
        awk '/^linux-image-/ { image[substr($0, 13)] }
            /^linux-binary-/ { binary[substr($0, 14)] }
            /^linux-modules-/ { modules[substr($0, 15)] }
            END { for (release in image) if (!(release in binary) || release in modules) print release }' "$cache/names"
        ls "$kernels"
    } | sort -u |
        grep -E "^$series\.[0-9]+(-[0-9]+(\.deb[0-9.]+)?|\+deb[0-9.]+)-$flavour\$" | sort -rV
}

# kernels_series: every series that the index has whole in the cloud flavour, oldest first.
kernels_series() {
    local series
    sed -nE 's/^linux-image-([0-9]+\.[0-9]+)\.[0-9].*-cloud-amd64$/\1/p' "$cache/names" | sort -uV |
        while read -r series; do
            [[ ! $(kernels_releases "$series") ]] || echo "$series"
        done
}

# Up to 6.18 one package holds a kernel; since 6.19 linux-image-* is empty and three others hold it.
kernels_packages() {
    if grep -qx "linux-binary-$1" "$cache/names"; then
        echo "linux-base-$1 linux-binary-$1 linux-modules-$1"
    else
        echo "linux-image-$1"
    fi
}

# kernels_fetch LABEL: prints the release that stands ready below $kernels. Exit 1: none is served or cached.
# The mirror lists kernels that it has already deleted, so: the newest first, until one can be had.
kernels_fetch() {
    local release debs packages
    for release in $(kernels_releases "$1"); do
        debs=$cache/debs/$release
        if [ ! -e "$kernels/$release/ok" ]; then
            read -ra packages <<<"$(kernels_packages "$release")"
            mkdir -p "$debs"
            if ! (cd "$debs" && own_apt apt-get -qq download "${packages[@]}") >"$cache/download.log" 2>&1; then
                rm -rf "$debs"
                continue
            fi
            # A package that cannot be unpacked is a fault of ours, not of the mirror.
            "$here/unpack" "$kernels/$release" "$release" "$debs"/*.deb >&2 || return 2
        fi
        touch "$kernels/$release/ok"
        echo "$release"
        return 0
    done
    return 1
}

# Kernels that no run has used for two weeks.
kernels_prune() {
    local ok release
    find "$kernels" -maxdepth 2 -name ok -mtime +14 | while read -r ok; do
        release=$(basename "$(dirname "$ok")")
        rm -rf "${kernels:?}/$release" "$cache/debs/$release"
    done
}
