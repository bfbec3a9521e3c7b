#!/bin/sh
# SPDX-License-Identifier: MIT
#
# run-fuzz.sh BUILD-DIR SECONDS
#
# Runs each harness for that long, starting from its corpus in fuzz/corpus/NAME. New inputs stay in
# the build directory; one that crashes is named, and belongs into the corpus with its fix.
set -eu

build=$1
seconds=$2
root=$(cd "$(dirname "$0")/.." && pwd)
status=0
for program in "$build"/fuzz/fuzz-*; do
	[ -f "$program" ] && [ -x "$program" ] || continue
	name=${program##*/}
	found=$build/fuzz/found/$name
	mkdir -p "$found"
	echo "== $name for $seconds s"
	if ! "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
		-print_final_stats=1 -artifact_prefix="$build/fuzz/$name-" "$found" \
		"$root/fuzz/corpus/$name"; then
		echo "run-fuzz.sh: $name failed; its input is $build/fuzz/$name-*" >&2
		status=1
	fi
done
exit $status
