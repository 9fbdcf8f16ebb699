# shellcheck shell=dash
# The project's test binaries in a guest. Sourced by vm/guest, which sets:
# shellcheck disable=SC2154 # binaries, tool

TAB=$(printf '\t')
LIMIT=900 # seconds for one run of one test binary

emit() {
    local line=$1
    shift
    for field; do line=$line$TAB$field; done
    echo "@$line"
}

# shellcheck disable=SC2086 # one word each
tools() { printf '%s\n' $binaries | awk -F = '!seen[$1]++ { print $1 }'; }

# tests_of all|core KIND: the binaries about $tool that have such tests. The core is whether it counts right,
# TOOL_truth, and whether the kernel takes every program in every setting, TOOL_verifier; a tool without such names
# has all in it.
tests_of() {
    local word name kinds all='' core=''
    for word in $binaries; do
        [ "${word%%=*}" = "$tool" ] || continue
        name=${word#*=} kinds=${name#*=}
        name=${name%%=*} kinds=,${kinds%%=*},
        [ "$kinds" != "${kinds#*,"$2",}" ] || continue
        all="$all ${word##*=}"
        case $name in
        "${tool}_truth" | "${tool}_verifier") core="$core ${word##*=}" ;;
        esac
    done
    if [ "$1" = core ]; then echo "${core:-$all}"; else echo "$all"; fi
}

# run_tests COLUMN PROBE KIND all|core: tests of $tool, as one result.
run_tests() {
    local column=$1 probe=$2 filter start binary rc note='' passed=0 failed=0 skipped verdict=ok
    case $3 in smoke) filter=root::smoke:: ;; *) filter=$3:: ;; esac
    : >"$TRACEBELT_SKIPS"
    [ -z "$probe" ] || export TRACEBELT_PROBE="$probe"
    start=$(date +%s)
    echo "--- $tool: $column"
    for binary in $(tests_of "$4" "$3"); do
        (
            set -o pipefail
            timeout -k 5 "$LIMIT" "$binary" "$filter" --test-threads=1 2>&1 | tee /data/log
        )
        rc=$?
        passed=$((passed + $(count passed)))
        if [ $rc -eq 101 ] && once_more; then rc=0 passed=$((passed + $(count failed))); fi
        [ $rc -eq 0 ] || failed=$((failed + $(count failed)))
        case $rc in
        0) ;;
        124 | 143) verdict=FAIL note="$note, ${binary##*/} not done after $LIMIT s" ;;
        *) verdict=FAIL note="$note, ${binary##*/} ended with $rc" ;;
        esac
    done
    unset TRACEBELT_PROBE
    skipped=$(grep -c . "$TRACEBELT_SKIPS")
    passed=$((passed - skipped))
    if [ "$verdict" = ok ] && [ "$passed" -lt 1 ]; then
        if [ "$skipped" -gt 0 ]; then verdict=skip; else verdict=FAIL note=", no test has $filter in its name"; fi
    fi
    while read -r line; do emit skip "$tool" "$column" "$line"; done <"$TRACEBELT_SKIPS"
    emit run "$tool" "$column" "$verdict" "$passed" "$failed" "$skipped" $(($(date +%s) - start)) "${note#, }"
}

# A kernel that preempts programs at tracepoints (7.0) leaves out others meanwhile, and counts them: a test that has
# met with that, and an emulated machine makes it likely, has not been about the tool.
#
# once_more: what failed in $binary, each test by itself, if each has met with that. The log stays that of the first time.
once_more() {
    local name names
    names=$(awk '
        /^---- .* stdout ----$/ { name = $2; failed[name] }
        /^failures:$/ { name = "" }
        name && /"skipped":[1-9]|programs? skipped by the kernel/ { met[name] }
        END { for (name in failed) { if (!(name in met)) exit 1; print name } }' /data/log) || return
    [ -n "$names" ] || return
    for name in $names; do
        echo "... $tool: $column: $name: again, as the kernel had skipped programs"
        emit again "$tool" "$column" "$name"
        timeout -k 5 "$LIMIT" "$binary" --exact "$name" 2>&1 || return
    done
}

count() { awk -v word="$1" '/^test result:/ { for (i = 2; i <= NF; i++) if ($i ~ "^" word) n += $(i - 1) } END { print n + 0 }' /data/log; }

# smoke COLUMN PROBE: the proof in seconds that $tool counts right, its tests below root::smoke. Without such:
# that it attaches, sees something and ends well.
smoke() {
    if [ -n "$(tests_of all smoke)" ]; then run_tests "$1" "$2" smoke all; else lives "$1" "$2" work; fi
}

# lives COLUMN PROBE WORK: the tool runs while WORK is done, prints something and ends well when told to.
lives() {
    local column=$1 probe=$2 work=$3 pid rc start note=''
    start=$(date +%s)
    echo "--- $tool: $column"
    # shellcheck disable=SC2086 # two words or none
    "$TRACEBELT_BIN/$tool" ${probe:+--probe $probe} >/data/out 2>/data/err &
    pid=$!
    # Whatever it attaches is a descriptor of its own. The limit is for one that needs none.
    for _ in $(seq 100); do
        grep -qs link_type "/proc/$pid/fdinfo/"* && break
        usleep 100000
    done
    $work
    kill -TERM $pid
    wait $pid
    rc=$?
    head -n 8 /data/out
    cat /data/err
    if [ $rc -ne 0 ]; then note="exit code $rc"; elif [ ! -s /data/out ]; then note="no output"; fi
    if [ -n "$note" ]; then
        emit run "$tool" "$column" FAIL 0 1 0 $(($(date +%s) - start)) "$note"
    else emit run "$tool" "$column" ok 1 0 0 $(($(date +%s) - start)) ''; fi
}

work() {
    "$TRACEBELT_BIN/workload" opens openat 101 /etc/hostname
    "$TRACEBELT_BIN/workload" nap 101 1000
} >/dev/null
