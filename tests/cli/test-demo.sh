#!/bin/sh
# SPDX-License-Identifier: MIT
#
# cow demo, in a small form: what it proves and reports, what it does with a database of the user's,
# that it notices a damaged export, and that bad input, a full disk and an interruption leave nothing
# behind.
#
# COW_DEMO_DAMAGE=page|amount|transfer damages the first export before it is checked (cli/demo/check.c).
. "$SOURCE_ROOT/tests/tap.sh"

command -v sqlite3 >/dev/null 2>&1 || skip_all "there is no sqlite3 program"

export TMPDIR="$tmp/scratch"
mkdir "$TMPDIR"
quick="--rows 2000 --seconds 1"

# An expression in Python about the report `r`.
says() { # FILE DESCRIPTION EXPRESSION
	ok "$2" "$PYTHON" -c '
import json, sys
r = json.load(open(sys.argv[1]))
assert eval("(" + sys.argv[2] + ")"), r
' "$1" "$3"
}

nothing_left() {
	is "$(ls -A "$TMPDIR")" "" "$1: nothing is left behind"
}

# The files of this machine.
run "$COW" demo $quick --json "$tmp/report.json"
is "$status" 0 "files: every proof holds"
is "$err" "" "files: no message"
contains "$out" "Latency of every write:" "files: the histogram"
contains "$out" "proofs hold" "files: the proofs"
is "$(printf '%s\n' "$out" | awk 'length > 80')" "" "files: no line is longer than 80 columns"
nothing_left "files"
report=$tmp/report.json
says "$report" "the schema" 'r["schema"] == "cow-demo/1"'
says "$report" "every proof has its fields, and holds" \
	'r["proofs"] and all(p["name"] and p["detail"] and p["ok"] is True for p in r["proofs"])'
says "$report" "every kind of proof is there" \
	'{p["name"].split()[0] for p in r["proofs"]} == {"integrity_check", "invariant", "row_counts",
	"content", "past", "branch", "rollback", "resume", "store"}'
says "$report" "the exports are listed, and not kept" \
	'len(r["exports"]) == r["libcow"]["copies"] + 3 and
	all(e["bytes"] > 0 and e["path"] is None for e in r["exports"])'
for side in libcow fork; do
	says "$report" "$side: numbers" \
		"r['$side']['stall_us'] > 0 and r['$side']['cpu_s'] > 0 and r['$side']['extra_bytes'] >= 0"
	says "$report" "$side: percentiles rise" "0 < r['$side']['write_us']['p50'] <=
		r['$side']['write_us']['p99'] <= r['$side']['write_us']['p999'] <=
		r['$side']['write_us']['max']"
	says "$report" "$side: took copies" "r['$side']['copies'] >= 2"
done
says "$report" "as many rows as asked for" '0 < r["data"]["rows"] <= 2000'

run "$COW" demo $quick --json -
is "$status" 0 "--json -: exit status"
printf '%s\n' "$out" >"$tmp/stdout.json"
says "$tmp/stdout.json" "--json -: nothing but JSON on standard output" 'all(p["ok"] for p in r["proofs"])'

# A database with a write-ahead log that was never checkpointed, and names that need quoting.
sqlite3 "$tmp/user's #1.db" "
	PRAGMA journal_mode=WAL; PRAGMA page_size=1024; CREATE TABLE \"odd \"\"name\"(a, b);
	WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
	INSERT INTO \"odd \"\"name\" SELECT i, randomblob(100) FROM n;
	CREATE TABLE keyed(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
	INSERT INTO keyed VALUES ('a', 1);" >/dev/null
mkdir "$tmp/wal"
"$PYTHON" - "$tmp/user's #1.db" "$tmp/wal/user's #1.db" <<'END'
import shutil, sqlite3, sys
source, target = sys.argv[1:]
connection = sqlite3.connect(source, isolation_level=None)
connection.execute("PRAGMA wal_autocheckpoint=0")
connection.execute("INSERT INTO keyed VALUES ('in the log', 2)")
for suffix in "", "-wal":
    shutil.copy(source + suffix, target + suffix)
END
user="$tmp/wal/user's #1.db"
before=$(sha256sum "$user" "$user-wal")
mkdir "$tmp/keep"
run "$COW" demo --db "$user" --seconds 1 --json "$tmp/db.json" --keep "$tmp/keep"
is "$status" 0 "--db: every proof holds"
is "$err" "" "--db: no message"
is "$(sha256sum "$user" "$user-wal")" "$before" "--db: the database and its log are unchanged"
says "$tmp/db.json" "--db: the rows of the log are there" 'r["data"]["rows"] == 502'
says "$tmp/db.json" "--keep: the exports are where the report says" \
	'all(__import__("os").path.getsize(e["path"]) == e["bytes"] for e in r["exports"])'
kept=$(find "$tmp/keep" -type f)
lacks "$kept" "database.db" "--keep: nothing but exports is kept"
first=$(printf '%s\n' "$kept" | grep 'snap-1-01' | head -n 1)
is "$(sqlite3 "$first" "SELECT v FROM keyed WHERE k = 'in the log'")" 2 "--keep: a row of the log is in an export"
run "$COW" demo --db "$first" --seconds 1
is "$status" 0 "--db: an export of an earlier demo"
contains "$out" "earlier demo's" "--db: its tables are replaced"
: >"$tmp/empty.db"
run "$COW" demo --db "$tmp/empty.db" --seconds 1
is "$status" 0 "--db: an empty database"
nothing_left "--db"

# Exports that are not what they should be.
damaged() { # KIND PROOF...
	COW_DEMO_DAMAGE=$1
	export COW_DEMO_DAMAGE
	run "$COW" demo $quick --json "$tmp/damaged.json"
	unset COW_DEMO_DAMAGE
	is "$status" 1 "damage $1: exit status"
	contains "$out" "FAIL" "damage $1: said in the summary"
	kind=$1
	shift
	says "$tmp/damaged.json" "damage $kind: found by: $*" \
		"{p['name'] for p in r['proofs'] if not p['ok']} == {k + ' snap-1-01' for k in '$*'.split()}"
	nothing_left "damage $kind"
}
damaged page integrity_check invariant row_counts content
damaged amount invariant content
damaged transfer row_counts content

# Bad input.
refuses() { # DESCRIPTION STATUS MESSAGE ARGUMENT...
	what=$1
	expected=$2
	message=$3
	shift 3
	run "$COW" demo "$@"
	is "$status" "$expected" "$what: exit status"
	contains "$err" "$message" "$what: message"
	nothing_left "$what"
}
refuses "no such database" 1 "cannot open $tmp/none.db: No such file or directory" --db "$tmp/none.db"
refuses "a directory" 1 "$tmp is not a file" --db "$tmp"
head -c 10000 "$COW" >"$tmp/binary"
refuses "not a database" 1 "file is not a database" --db "$tmp/binary" --seconds 1
cp "$first" "$tmp/torn.db"
page=$(sqlite3 "$first" "PRAGMA page_size")
dd if=/dev/zero of="$tmp/torn.db" bs="$page" seek=2 count=4 conv=notrunc 2>/dev/null
refuses "a torn database" 1 "$tmp/torn.db" --db "$tmp/torn.db" --seconds 1
refuses "no rows" 2 "--rows" --rows 0
refuses "no time" 2 "--seconds" --seconds 0
refuses "no such directory to keep" 1 "cannot use $tmp/none" $quick --keep "$tmp/none"
refuses "a file to keep in" 1 "$tmp/binary" $quick --keep "$tmp/binary"
refuses "unwritable report" 1 "cannot write $tmp/none/r.json" $quick --json "$tmp/none/r.json"
refuses "operands" 2 "unexpected 'x'" x
if [ "$(id -u)" != 0 ]; then
	mkdir -m 555 "$tmp/sealed"
	refuses "unwritable directory to keep" 1 "$tmp/sealed" $quick --keep "$tmp/sealed"
fi
mkdir "$tmp/bin"
run env PATH="$tmp/bin" "$COW" demo $quick
is "$status" 1 "no sqlite3: exit status"
contains "$err" "install the package sqlite3" "no sqlite3: message"

# A full disk: a limit on the size of files fails the same calls, with EFBIG.
(ulimit -f 1000 && exec "$COW" demo --rows 20000 --seconds 1) >"$tmp/full.out" 2>"$tmp/full.err"
is "$?" 1 "no room for the data: exit status"
contains "$(cat "$tmp/full.err")" "cow demo: " "no room for the data: message"
nothing_left "no room for the data"
if mkdir "$tmp/small" && mount -t tmpfs -o size=3m none "$tmp/small" 2>/dev/null; then
	run env TMPDIR="$tmp/small" "$COW" demo $quick
	is "$status" 1 "full disk: exit status"
	contains "$err" "room" "full disk: message"
	is "$(ls -A "$tmp/small")" "" "full disk: nothing is left behind"
	umount "$tmp/small"
else
	skip "full disk" "tmpfs cannot be mounted here"
fi

# Interrupted in each of its parts.
for delay in 0.1 0.7 1.5; do
	"$COW" demo --rows 2000 --seconds 3 >/dev/null 2>"$tmp/interrupted.err" &
	pid=$!
	sleep $delay
	kill -TERM $pid
	wait $pid
	is "$?" 143 "interrupted after $delay s: ends by the signal"
	contains "$(cat "$tmp/interrupted.err")" "interrupted" "interrupted after $delay s: message"
	nothing_left "interrupted after $delay s"
done

done_testing
