# shellcheck shell=bash
# Packages: installed on Debian and Ubuntu, named elsewhere. Sourced by setup.sh.

# os-release sets many names, so it is read in a subshell.
os_family() (
    # shellcheck source=/dev/null
    . /etc/os-release 2>/dev/null
    echo " ${ID-} ${ID_LIKE-} "
)

debian() { have apt-get && [[ $(os_family) == *" debian "* ]]; }

can_install() { debian && { ((EUID == 0)) || have sudo; }; }

packages_elsewhere() {
    case $(os_family) in
    *" fedora "* | *" rhel "*)
        echo "dnf install clang gcc make pkgconf-pkg-config elfutils-libelf-devel zlib-devel rust cargo"
        ;;
    *" arch "*) echo "pacman -S --needed clang gcc make pkgconf libelf zlib rust" ;;
    *" alpine "*) echo "apk add clang gcc musl-dev linux-headers make pkgconf elfutils-dev zlib-dev rust cargo" ;;
    *suse*) echo "zypper install clang gcc make pkgconf-pkg-config libelf-devel zlib-devel rust cargo" ;;
    *) echo "install clang, gcc, make, pkg-config, libelf and zlib with their headers, Rust and cargo" ;;
    esac
}

apt_candidate() { apt-cache policy "$1" | sed -n 's/ *Candidate: \([0-9].*\)/\1/p'; }

# The first of these packages that could be installed.
apt_first() {
    local name
    for name; do
        [[ $(apt_candidate "$name") ]] && echo "$name" && return
    done
    return 1
}

apt_lists=
apt_update() {
    [[ -z $apt_lists ]] || return 0
    apt_lists=fresh
    say "reading the package lists"
    as_root apt-get -qq update >&2 || say "apt-get update failed: going on with the lists there are"
}

# Never removes a package, nor lets needrestart restart services: the machine may be in production. Waits
# for the lock, which a fresh cloud machine's own upgrade holds for minutes. apt's hundreds of lines are
# shown only if it fails.
apt_install() {
    local said
    say "installing $* and what they depend on"
    said=$(as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -qq -y -o DPkg::Lock::Timeout=300 --no-install-recommends --no-remove install "$@" 2>&1) && return
    tail -n 20 <<<"$said" >&2
    return 1
}
