#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The sum at the end of a test run is what people and CI believe: it must not call a crash, a
# skipped promise or an empty run a success. Fed with logs as Meson writes them.
. "$SOURCE_ROOT/tests/tap.sh"

log=$tmp/log
required=$tmp/required
: >"$required"

record() { # NAME RESULT TAP-LINE...
	name=$1
	result=$2
	shift 2
	"$PYTHON" -c 'import json, sys
print(json.dumps({"name": "libcow:suite / " + sys.argv[1], "result": sys.argv[2],
                  "stdout": "\n".join(sys.argv[3:]) + "\n"}))' "$name" "$result" "$@" >>"$log"
}

summarize() { # STATUS-OF-MESON
	run "$PYTHON" "$SOURCE_ROOT/scripts/summarize-tests.py" "$log" "$required" "$1" "$tmp/summary"
	last=$(printf '%s\n' "$out" | tail -n 1)
}

record test-a OK "ok 1 - first" "# remark" "ok 2 - second # SKIP no root" "1..2"
summarize 0
is "$status: $last" "0: 1 passed, 0 failed, 1 skipped" "passed and skipped cases"
is "$(cat "$tmp/summary")" "$last" "the file has the line"
contains "$out" "skipped: test-a/second: no root" "a skipped case is named with its reason"
echo "test-a/first" >"$required"
summarize 0
is "$status" 0 "a promise that was kept"
echo "test-a/second # a comment" >"$required"
summarize 0
is "$status: $last" "1: 1 passed, 0 failed, 1 skipped" "a skipped promise fails the run"
contains "$out" "required: test-a/second was skipped: no root" "and is named"
echo "test-a" >"$required"
summarize 0
is "$status" 1 "a promise of the whole file covers each case"
echo "test-b" >"$required"
summarize 0
contains "$out" "required: test-b did not run" "a promise without a test"
is "$status" 1 "fails the run"
echo "test-a/third" >"$required"
summarize 0
is "$status" 1 "a promise without a case fails the run"
: >"$required"

record test-c SKIP "1..0 # SKIP no such kernel"
summarize 0
is "$status: $last" "0: 1 passed, 0 failed, 2 skipped" "a file that skips all is one case"
echo "test-c/anything" >"$required"
summarize 0
contains "$out" "test-c/anything was skipped: no such kernel" "its reason"
: >"$required"

record test-d ERROR "ok 1 - before the crash"
summarize 1
is "$status: $last" "1: 2 passed, 1 failed, 2 skipped" "a crash is a failure"
contains "$out" "failed: test-d/(file: error)" "and is named"
record test-e FAIL "not ok 1 - wrong" "ok 2 - wrong" "1..2"
summarize 1
is "$last" "3 passed, 2 failed, 2 skipped" "cases of one name count twice"
record test-f TIMEOUT "not ok 1 - todo # TODO later"
summarize 1
is "$last" "4 passed, 3 failed, 2 skipped" "a file that ran out of time fails"

: >"$log"
record test-a OK "ok 1 - first" "1..1"
summarize 1
is "$status: $last" "1: 1 passed, 0 failed, 0 skipped" "the runner's own failure is not lost"
rm "$log"
summarize 0
is "$status: $last" "1: 0 passed, 0 failed, 0 skipped" "no log is no success"
: >"$log"
summarize 0
is "$status: $last" "1: 0 passed, 0 failed, 0 skipped" "no test is no success"

done_testing
