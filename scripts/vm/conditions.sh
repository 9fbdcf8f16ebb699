# shellcheck shell=dash
# Conditions that a tool must cope with or refuse by name. Sourced by vm/guest, which has emit, run_tests, quick.
# shellcheck disable=SC2154 # tool, tests, root

# refusal COLUMN WORD: a tool that cannot run says so in one line with WORD in it, and ends with 3 or 4. One that
# can must also do so.
refusal() {
    local rc lines
    timeout -k 5 20 "$TRACEBELT_BIN/$tool" --check >/data/check 2>&1
    rc=$?
    echo "--- $tool: $1"
    echo "--check: exit code $rc"
    cat /data/check
    if [ "$rc" -eq 0 ]; then
        quick "$1"
        return
    fi
    timeout -k 5 20 "$TRACEBELT_BIN/$tool" >/data/out 2>/data/err
    rc=$?
    echo "exit code $rc"
    cat /data/err
    lines=$(grep -c . /data/err)
    if [ "$rc" -ne 3 ] && [ "$rc" -ne 4 ]; then
        emit run "$tool" "$1" FAIL 0 1 0 0 "exit code $rc, 3 or 4 is wanted"
    elif [ "$lines" -ne 1 ]; then
        emit run "$tool" "$1" FAIL 0 1 0 0 "$lines lines on stderr, 1 is wanted"
    elif ! grep -qi "$2" /data/err; then
        emit run "$tool" "$1" FAIL 0 1 0 0 "stderr does not name $2"
    else emit run "$tool" "$1" refused 1 0 0 0 "exit code $rc"; fi
}

# A CPU goes and comes back while the tool runs: it must go on, and end as always.
cpu_offline() {
    local cpu=/sys/devices/system/cpu/cpu1/online pid rc note=''
    echo "--- $tool: cpu-offline"
    "$TRACEBELT_BIN/$tool" >/data/out 2>/data/err &
    pid=$!
    for _ in $(seq 100); do
        grep -qs link_type /proc/$pid/fdinfo/* && break
        usleep 100000
    done
    for state in 0 1; do
        echo $state >$cpu
        "$TRACEBELT_BIN/workload" opens openat 101 /etc/hostname
        "$TRACEBELT_BIN/workload" nap 101 1000
    done >/dev/null
    kill -TERM $pid
    wait $pid
    rc=$?
    head -n 5 /data/out
    cat /data/err
    if [ $rc -ne 0 ]; then note="exit code $rc"; elif [ ! -s /data/out ]; then note="no output"; fi
    if [ -n "$note" ]; then
        emit run "$tool" cpu-offline FAIL 0 1 0 0 "$note"
    else quick cpu-offline; fi
}

# In a mount namespace of its own: no tracefs to be found, and none left behind.
no_tracefs() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    run_tests no-tracefs "$(smoke)" '' unshare -m busybox sh -c 'umount -l /sys/kernel/debug /sys/kernel/tracing
    before=$(cat /proc/mounts); "$@"; rc=$?
    [ "$before" = "$(cat /proc/mounts)" ] || { echo "mounts were left behind"; cat /proc/mounts; rc=99; }
    exit $rc' sh
}

# libbpf finds the kernel's types below /sys/kernel/btf; hidden, this is a kernel built without them.
no_btf() { unshare -m busybox sh "$root/scripts/vm/guest" "$root" no-btf "$tool=$tests"; }
no_btf_inside() {
    mount -t tmpfs hidden /sys/kernel/btf
    refusal no-btf BTF
}

lockdown() { echo "$1" >/sys/kernel/security/lockdown || emit run - "$1" FAIL 0 0 0 0 "cannot lock down"; }
