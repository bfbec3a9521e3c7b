#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Each benchmark still runs, at its smallest; what it measures then means nothing. One that ends in
# an error has found that something did not hold, or that it cannot set up what it measures.
. "$SOURCE_ROOT/tests/tap.sh"

count=0
for program in "$BUILD_ROOT"/bench/bench-*; do
	[ -f "$program" ] && [ -x "$program" ] || continue
	count=$((count + 1))
	name=${program##*/}
	run "$program" --quick --runs 1 --json "$tmp/$name.json"
	is "$status" 0 "$name runs"
	[ "$status" = 0 ] || diag "$err"
	contains "$(cat "$tmp/$name.json" 2>&1)" '"results"' "and writes its results as JSON"
done
ok "there are benchmarks" [ "$count" -gt 0 ]
done_testing
