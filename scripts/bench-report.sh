#!/bin/sh
# SPDX-License-Identifier: MIT
#
# bench-report.sh COW RESULTS.json DIR
#
# Renders a result of `cow bench --json` for reading in the repository: DIR/results.md with every
# row, and pictures of the plots that DIR/README.md shows (with chromium).
set -eu

cow=$1
results=$2
directory=$3
# Each with the height that it takes.
plots="fork-size/latency:460 break-even/cost:440 fault-path/kinds:500 gc/unshared:440 engine/stall:440
	fork-methods/latency:400"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$cow" bench --merge "$results" --markdown "$directory/results.md" --html "$work" >/dev/null
for entry in $plots; do
	plot=${entry%:*}
	height=${entry#*:}
	name=$(echo "$plot" | tr / -)
	chromium --headless=new --no-sandbox --disable-gpu --hide-scrollbars \
		--user-data-dir="$work/profile" --window-size="800,$height" \
		--screenshot="$work/$name.png" "file://$work/index.html#plot=$plot" 2>/dev/null
	mv "$work/$name.png" "$directory/$name.png"
done
