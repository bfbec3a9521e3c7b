#!/bin/sh
# SPDX-License-Identifier: MIT
#
# run-bench.sh BUILD-DIR "NAMES" [OPTIONS]
#
# Runs the benchmarks of a build one after the other (all of them where NAMES is empty), with the
# same options: --quick, --runs N, --json FILE and the like.
set -eu

build=$1
names=$2
shift 2
status=0
if [ -z "$names" ]; then
	for program in "$build"/bench/bench-*; do
		[ -f "$program" ] && [ -x "$program" ] && names="$names ${program##*/}"
	done
fi
[ -n "$names" ] || { echo "run-bench.sh: there are no benchmarks in $build/bench" >&2; exit 1; }
for name in $names; do
	echo "== $name"
	LD_LIBRARY_PATH="$build" "$build/bench/$name" "$@" || status=1
done
exit $status
