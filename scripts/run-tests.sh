#!/bin/sh
# SPDX-License-Identifier: MIT
#
# run-tests.sh BUILD-DIR REQUIRED-FILE|- [meson test arguments]
#
# Runs the tests of a build and sums them up by case; see summarize-tests for the last line and
# for REQUIRED-FILE. `meson test` itself counts files, and calls a skipped one a success.
set -eu

build=$1
required=$2
shift 2
# The summary must not read an earlier run's log when this one does not come about.
rm -f "$build/meson-logs/testlog.json" "$build/summary.txt"
status=0
${MESON:-meson} test -C "$build" --no-rebuild --print-errorlogs "$@" || status=$?
# A run of selected files cannot be asked for the others.
for argument in "$@"; do
	case $argument in
	test-*) required=- ;;
	esac
done
/usr/bin/python3 "$(dirname "$0")/summarize-tests.py" \
	"$build/meson-logs/testlog.json" "$required" "$status" "$build/summary.txt"
