# shellcheck shell=bash
# The stages of scripts/test: each runs whatever the ones before it did, and the table at the end tells.
# Sourced by scripts/test, which sets:
# shellcheck disable=SC2154 # filter, no_root

# stages_begin FOLDER: for logs. Not in /tmp, where a root process may not append to a user's file.
stages_begin() {
    logs=$1
    as_owner mkdir -p "$logs"
    as_owner find "$logs" -type f -delete
    # A test that cannot run here appends "name: reason" and ends: libtest would count it as passed.
    export TRACEBELT_SKIPS=$logs/skips
    as_owner touch "$TRACEBELT_SKIPS"
    table=()
    bad=()
    passed=0 failed=0 skipped=0
}

# In a stage: it cannot run here. The stage then returns with this code.
skip() {
    echo "$*" >"$logs/why"
    return 77
}

count() { awk -v word="$1" '/^test result:/ { for (i = 2; i <= NF; i++) if ($i ~ "^" word) n += $(i - 1) } END { print n + 0 }' "$2"; }

# stage NAME FUNCTION
stage() {
    local name=$1 log=$logs/$1.log start=$SECONDS code=0 result note='' ok no left before
    before=$(wc -l <"$TRACEBELT_SKIPS")
    printf '\n== %s\n' "$name"
    "$2" </dev/null 2>&1 | as_owner tee "$log" || code=$?

    left=$(($(wc -l <"$TRACEBELT_SKIPS") - before))
    ok=$(($(count passed "$log") - left)) no=$(count failed "$log")
    left=$((left + $(count ignored "$log")))
    passed=$((passed + ok)) failed=$((failed + no)) skipped=$((skipped + left))
    sed -n 's/^test \(.*\) \.\.\. ignored,* *\(.*\)/\1: ignored \2/p' "$log" >>"$TRACEBELT_SKIPS"
    ((ok + no + left == 0)) || note="$ok passed, $no failed, $left skipped"

    case $code in
    0) result=ok ;;
    77)
        result=skipped
        note=$(cat "$logs/why" 2>/dev/null || tail -n 1 "$log")
        rm -f "$logs/why"
        ;;
    *)
        result=FAILED
        bad+=("$name")
        ;;
    esac
    table+=("$(printf '%-14s %-8s %5ds  %s' "$name" "$result" "$((SECONDS - start))" "$note")")
}

# libtest names the failed tests in the last list that it heads "failures:".
failures() {
    awk '/^failures:$/ { list = 1; n = 0 } list && /^    [[:alpha:]_]/ { name[n++] = $0 }
        /^test result:/ { for (i = 0; i < n; i++) print "  " substr(name[i], 5); list = n = 0 }' "$logs"/*.log
}

stages_end() {
    printf '\n%-14s %-8s %6s\n' stage result time
    printf '%s\n' "${table[@]}"
    if [[ -s $TRACEBELT_SKIPS ]]; then
        printf '\nskipped tests:\n'
        sed 's/^/  /' "$TRACEBELT_SKIPS"
    fi
    if ((failed)); then
        printf '\nfailed tests:\n'
        failures
    fi
    if [[ $filter && -z $no_root ]] && ((passed + failed + skipped == 0)); then
        printf '\nno test has "%s" in its name\n' "$filter"
        bad+=("tests")
    fi
    ((${#bad[@]} == 0)) || printf '\nfailed stages: %s\n' "${bad[*]}"
    printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
    ((${#bad[@]} == 0))
}
