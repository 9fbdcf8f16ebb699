# shellcheck shell=dash
# Conditions that a tool must cope with or refuse by name. Sourced by vm/guest, which sets:
# shellcheck disable=SC2154 # binaries, tool, root

# refusal COLUMN WORD FLAG...: a tool that cannot run says so in one line with WORD in it, and ends with 3 or 4. One
# that can must also do so.
refusal() {
    local column=$1 word=$2 rc lines note=''
    shift 2
    timeout -k 5 20 "$TRACEBELT_BIN/$tool" "$@" --check >/data/check 2>&1
    rc=$?
    echo "--- $tool: $column"
    echo "--check: exit code $rc"
    cat /data/check
    if [ "$rc" -eq 0 ]; then
        smoke "$column" ''
        return
    fi
    timeout -k 5 20 "$TRACEBELT_BIN/$tool" "$@" >/data/out 2>/data/err
    rc=$?
    echo "exit code $rc"
    cat /data/err
    lines=$(grep -c . /data/err)
    if [ "$rc" -ne 3 ] && [ "$rc" -ne 4 ]; then
        note="exit code $rc, 3 or 4 is wanted"
    elif [ "$lines" -ne 1 ]; then
        note="$lines lines on stderr, 1 is wanted"
    elif ! grep -qi "$word" /data/err; then note="stderr does not name $word"; fi
    if [ -n "$note" ]; then
        emit run "$tool" "$column" FAIL 0 1 0 0 "$note"
    else emit run "$tool" "$column" refused 1 0 0 0 "exit code $rc"; fi
}

# A CPU goes and comes back while the tool runs; then it still counts right.
cpu_offline() {
    lives cpu-offline '' work_with_one_cpu_less
    [ -z "$(tests_of all smoke)" ] || smoke cpu-offline ''
}
work_with_one_cpu_less() {
    for state in 0 1; do
        echo $state >/sys/devices/system/cpu/cpu1/online
        work
    done
}

# inside NAME: vm/guest for this tool only, in a mount namespace of its own, where it calls NAME_inside.
inside() {
    local word own=''
    for word in $binaries; do [ "${word%%=*}" != "$tool" ] || own="$own $word"; done
    # shellcheck disable=SC2086 # one word each
    unshare -m busybox sh "$root/scripts/vm/guest" "$root" "inside-$1" $own
}

# No tracefs to be found, and none left behind.
no_tracefs() { inside no_tracefs; }
no_tracefs_inside() {
    local before after
    umount -l /sys/kernel/debug /sys/kernel/tracing
    before=$(cat /proc/mounts)
    smoke no-tracefs ''
    after=$(cat /proc/mounts)
    [ "$before" = "$after" ] || emit run "$tool" no-tracefs FAIL 0 1 0 0 "mounts were left behind: $after"
}

# libbpf finds the kernel's types below /sys/kernel/btf; hidden, this is a kernel built without them. With a copy
# (--btf) the tool works.
no_btf() { inside no_btf; }
no_btf_inside() {
    cat /sys/kernel/btf/vmlinux >/data/btf
    mount -t tmpfs hidden /sys/kernel/btf
    refusal no-btf BTF
    export TRACEBELT_BTF=/data/btf
    refusal btf-file BTF --btf /data/btf
    rm /data/btf
}

lockdown() { echo "$1" >/sys/kernel/security/lockdown || emit run - "$1" FAIL 0 0 0 0 "cannot lock down"; }
