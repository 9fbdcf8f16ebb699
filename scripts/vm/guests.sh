# shellcheck shell=bash
# Starting guests, some at a time, and what becomes of them. Sourced by vm-test, which sets:
# shellcheck disable=SC2154 # root, here, out, work, set, bin, binaries; kernels by kernels.sh

# Ends with 77 where no guest can run.
can_run_guests() {
    local pair need=()
    if [[ $(uname -m) != x86_64 ]]; then
        say "cannot run here: guests use this machine's own programs, and their kernels are for x86-64"
        exit 77
    fi
    for pair in busybox=busybox-static depmod=kmod dpkg-deb=dpkg lz4=lz4 zstd=zstd xz=xz-utils cpio=cpio; do
        PATH=$PATH:/sbin have "${pair%%=*}" || need+=("${pair#*=}")
    done
    [[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || need+=(debian-archive-keyring)
    if debian; then
        # Where QEMU's packages no longer bring it.
        [[ -x /usr/lib/qemu/virtiofsd || -x /usr/libexec/virtiofsd ]] || [[ ! $(apt_candidate virtiofsd) ]] || need+=(virtiofsd)
        ((${#need[@]} == 0)) || { apt_update && apt_install "${need[@]}" && need=(); } || true
    fi
    have_qemu || { can_install && qemu_install; } || need+=(qemu-system-x86)
    if ((${#need[@]})); then
        say "cannot run here without the Debian packages ${need[*]}"
        exit 77
    fi
}

# plan LABEL LEG: what vm/guest is to do there.
plan() {
    case $2:$set:$1 in
    one-cpu:*) echo one-cpu ;;
    main:quick:newest) echo short ;;
    main:quick:*) echo core ;;
    *) echo whole ;;
    esac
}

# guest LABEL RELEASE LEG SMP KERNEL-ARGUMENTS: one guest. What it said goes to $out/LABEL.LEG.*.
guest() {
    local label=$1 release=$2 leg=$3 start=$SECONDS try code dir word boot=("$here/boot")
    ((EUID == 0)) || boot=(sudo -- "${boot[@]}")
    for try in 1 2; do
        dir=$(mktemp -d "$work/guest.XXXXXX")
        printf '%s\n' "TRACEBELT_BIN='$bin' exec busybox sh '$here/guest' '$root' $(plan "$label" "$leg") ${binaries[*]}" >"$dir/command"
        code=0
        "${boot[@]}" -q "$qemu_dir" -t 3600 -s "$4" -a "$5" "$kernels/$release" "$dir" &
        # Not called but waited for, and not by a function: so that a signal reaches it.
        # shellcheck disable=SC2064 # the number of now
        trap "kill $! 2>/dev/null; wait $!; exit 1" TERM
        wait $! || code=$?
        cp "$dir/out" "$out/$label.$leg.log"
        cp "$dir/console" "$out/$label.$leg.console"
        as_root rm -rf "$dir"
        ((code == 124)) || break
    done
    case $code in
    124) word=hang ;;
    125) word=setup ;;
    126) word=died ;;
    # A guest script that broke off has not said that it is at its end.
    *) if grep -q '^@end' "$out/$label.$leg.log"; then word=ok; else word=died; fi ;;
    esac
    {
        sed -n "s/^@/$label\t$leg\t/p" "$out/$label.$leg.log"
        printf '%s\t%s\tboot\t%s\t%s\t%s\n' "$label" "$leg" "$word" $((SECONDS - start)) "$try"
    } >"$out/$label.$leg.tsv"
    say "$label ($release), $leg: $word, $((SECONDS - start)) s$( ((try == 1)) || echo ', at the second try')"
}

# guests_start: the same, in the background, when there is room for one more. A guest takes one CPU at most, and sleeps
# for almost half of the time: so one more than there are CPUs.
guests_start() {
    while (($(jobs -rp | wc -l) >= ${VM_JOBS:-$(nproc) + 1})); do wait -n || true; done
    guest "$@" &
}

# The logs of what failed, and only of that.
guests_failures() {
    local log
    for log in "$out"/*.log; do
        awk -v name="$(basename "$log" .log)" '
            /^--- / { head = substr($0, 5); n = 0 }
            { line[++n] = $0 }
            /^@run\t.*\tFAIL\t/ {
                print "\n=== " name ": " head
                for (i = n > 60 ? n - 60 : 2; i < n; i++) print line[i]
            }' "$log"
        grep -q '^@end' "$log" && continue
        printf '\n=== %s: how it ended\n' "$(basename "$log" .log)"
        tail -n 5 "$log"
        # From where the kernel began to complain, if it did.
        awk '/BUG:|Oops|Kernel panic|soft lockup|detected stalls|Out of memory/ && !from { from = NR } { line[NR] = $0 }
            END { if (!from || from < NR - 60) from = NR - 25; for (i = from; i < from + 40 && i <= NR; i++) print line[i] }' \
            "${log%.log}.console"
    done
    printf '\nwhole logs: %s\n' "$out"
}

guests_stop() {
    local pids
    mapfile -t pids < <(jobs -p)
    ((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true
    wait
    rm -rf "$work"
    if ((EUID == 0)); then chown -R --reference="$root" "$out"; fi
}
