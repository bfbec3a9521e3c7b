#!/bin/sh
# SPDX-License-Identifier: MIT
#
# cow ps from outside: what it refuses, its text and JSON over captured trees (an ordinary one and
# one that no kernel wrote), sorting and limits, and what remains without privilege.
. "$SOURCE_ROOT/tests/tap.sh"

refuses() { # DESCRIPTION EXPECTED-MESSAGE WORD...
	what=$1
	message=$2
	shift 2
	run "$COW" ps "$@"
	is "$status" 2 "$what: exit status"
	is "$err" "cow ps: $message" "$what: message"
	is "$out" "" "$what: nothing on standard output"
}

keys="pss, rss, uss, inside, outside, swap, ksm, thp, tables, pid or command"
refuses "no number" "'redis' is not a process ID; give a number such as 1234" redis
refuses "zero" "'0' is not a process ID; give a number such as 1234" 0
refuses "a negative number" "'-5' is not a process ID; give a number such as 1234" -- -5
refuses "too large a number" "'4294967296' is not a process ID; give a number such as 1234" 4294967296
refuses "no number for a tree" "--tree: 'x' is not a process ID; give a number such as 1234" --tree x
refuses "PIDs and a tree" "PIDs, --tree and --all exclude each other; give one of them" --tree 1 1
refuses "a tree and all" "PIDs, --tree and --all exclude each other; give one of them" --tree 1 --all
refuses "an unknown key" "--sort: there is no key 'size'; give $keys" --sort size
refuses "no pages to sample" \
	"--sample-pages: '0' is too little; give 1 or more" --sample-pages 0

run "$COW" ps 2147483647
is "$status" 1 "a PID that nobody has: exit status"
is "$err" "cow ps: there is no process 2147483647; cow ps --all lists those there are" \
	"a PID that nobody has: message"
run "$COW" ps --tree 2147483647
is "$status" 1 "a tree that is none: exit status"
contains "$err" "there is no process 2147483647" "a tree that is none: message"
run "$COW" ps --sysroot "$tmp/nowhere"
is "$status" 1 "a tree that is not there: exit status"
contains "$err" "cannot open $tmp/nowhere: No such file or directory" "a tree that is not there: message"
mkdir "$tmp/empty"
run "$COW" ps --sysroot "$tmp/empty"
is "$status" 1 "a tree without proc/: exit status"
contains "$err" "there is no proc/ in this tree" "a tree without proc/: message"

# An ordinary tree.
plain=$SOURCE_ROOT/tests/root/plain
run "$COW" ps --sysroot "$plain"
is "$status" 0 "captured tree: exit status"
cat >"$tmp/expected" <<'END'
PID       RSS       PSS       USS     swap     KSM    THP   tables  command
102  4.88 MiB  3.42 MiB  1.95 MiB      0 B       -    0 B   80 KiB  café\x1b[31m
100  7.81 MiB  2.93 MiB  2.93 MiB      0 B     0 B  2 MiB   96 KiB  postgres
101  5.86 MiB  1.46 MiB  1000 KiB  128 KiB  64 KiB    0 B   80 KiB  postgres: w) x
sum  18.6 MiB  7.81 MiB  5.86 MiB  128 KiB       -  2 MiB  256 KiB  3 processes
unique          unknown, at least the sum of PSS: a captured tree has no frame numbers
# smaps_rollup; all processes measured
END
is "$out" "$(cat "$tmp/expected")" "captured tree: text"
# Command lines: without the program's directory, whole in JSON; NULs and noise do no harm.
cp -r "$plain" "$tmp/named"
printf '/usr/lib/postgresql/15/bin/postgres\0-D\0/srv\0' >"$tmp/named/proc/100/cmdline"
printf 'postgres: \033[31mwriter\0\0\0   ' >"$tmp/named/proc/101/cmdline"
printf '\0\0' >"$tmp/named/proc/102/cmdline"
run "$COW" ps --sysroot "$tmp/named"
contains "$out" "96 KiB  postgres -D /srv" "a command line"
contains "$out" '80 KiB  postgres: \x1b[31mwriter' "what a process calls itself"
contains "$out" 'café\x1b[31m' "the program's name where there are no arguments"
run "$COW" ps --sysroot "$tmp/named" --json
contains "$out" '"arguments": "/usr/lib/postgresql/15/bin/postgres -D /srv"' "the whole of it in JSON"
run "$COW" ps --sysroot "$plain" --sort rss --limit 1
is "$(echo "$out" | sed -n 2p | cut -c1-3)" 100 "the first by RSS"
contains "$out" "# 2 more rows; their sizes are in the sum" "a limit is told"
contains "$out" "3 processes" "the sum is of all"
run "$COW" ps --sysroot "$plain" --sort pid
is "$(echo "$out" | sed -n 2,4p | cut -c1-3 | tr '\n' ' ')" "100 101 102 " "by PID"
run "$COW" ps --sysroot "$plain" --sort command
is "$(echo "$out" | sed -n 2,4p | cut -c1-3 | tr '\n' ' ')" "102 100 101 " "by name"
run "$COW" ps --sysroot "$plain" --tree 101
is "$(echo "$out" | sed -n '2,$p' | cut -c1-3 | head -2 | tr '\n' ' ')" "101 sum " "a tree"
run "$COW" ps --sysroot "$plain" 103 104 103
contains "$out" "kworker/0:0" "a kernel thread is shown when asked for"
contains "$out" "gone" "a zombie, too"
contains "$out" "0 processes" "they have no memory"
run "$COW" ps --sysroot "$plain" --json
cp "$tmp/run.out" "$tmp/plain.json"
ok "captured tree: JSON" "$PYTHON" - "$tmp/plain.json" <<'END'
import json, sys
report = json.load(open(sys.argv[1]))
assert list(report)[0] == "schema" and report["schema"] == "cow-ps/1", report
assert report["backend"] == "smaps_rollup" and report["coverage"] == 1, report
assert report["lost_events"] == 0, report
first = {p["pid"]: p for p in report["processes"]}[101]
wanted = dict(pid=101, ppid=100, command="postgres: w) x", rss_bytes=6000 << 10,
              pss_bytes=1500 << 10, uss_bytes=1000 << 10, shared_bytes=5000 << 10,
              ksm_bytes=64 << 10, thp_bytes=0, page_table_bytes=80 << 10, swap_bytes=128 << 10)
assert all(first[key] == value for key, value in wanted.items()), first
for key in "rss_bytes", "pss_bytes", "unique_bytes", "shared_outside_bytes":
    assert key in report["total"], report["total"]
assert report["total"]["unique_bytes"] is None
assert report["total"]["pss_bytes"] == 8000 << 10
END

# A tree that no kernel wrote: broken files, a circle of parents, links and pipes.
cp -R "$SOURCE_ROOT/tests/root/hostile" "$tmp/hostile"
mkdir -p "$tmp/hostile/proc/208" "$tmp/hostile/proc/209" "$tmp/hostile/proc/00210" "$tmp/hostile/proc/99999999999"
mkfifo "$tmp/hostile/proc/208/stat"
ln -s /etc/passwd "$tmp/hostile/proc/209/stat"
head -c 300000 /dev/zero >"$tmp/hostile/proc/00210/stat"
ln -s /proc/self "$tmp/hostile/proc/211"
for options in "" "--json" "--tree 200" "--fast"; do
	# shellcheck disable=SC2086
	run timeout 10 "$COW" ps --sysroot "$tmp/hostile" $options
	is "$status" 0 "hostile tree $options: exit status"
	contains "$out" circle "hostile tree $options: what makes sense is shown"
done
run "$COW" ps --sysroot "$tmp/hostile"
lacks "$out" "$(printf 'a\nb')" "names stay in their lines"
contains "$out" "their files in /proc make no sense" "what makes none is counted"
run "$COW" ps --sysroot "$tmp/hostile" 202
is "$status" 1 "a broken file: exit status"
is "$err" "cow ps: proc/202/stat is not what a kernel writes; is this a /proc?" "a broken file: message"
run timeout 10 "$COW" ps --sysroot "$tmp/hostile" 208
is "$status" 1 "a pipe is not waited for"
run "$COW" ps --sysroot "$tmp/hostile" 209
contains "$err" "cannot read proc/209/stat" "a link out of the tree is not followed"

# This machine.
run "$COW" ps $$
is "$status" 0 "this shell: exit status"
contains "$out" "1 process" "this shell: one row"
run "$COW" ps --json --all
ok "all processes: JSON" "$PYTHON" -m json.tool "$tmp/run.out"

# Without privilege.
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null 2>&1; then
	nobody() {
		setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all "$@"
	}
	cp "$COW" "$tmp/cow"
	chmod 755 "$tmp" "$tmp/cow"
	if nobody "$tmp/cow" --version >/dev/null 2>&1; then
		nobody sleep 60 &
		sleeper=$!
		sleep 0.3
		sleeper=$(pgrep -P $sleeper sleep || echo $sleeper)
		run nobody "$tmp/cow" ps --json "$sleeper" $$
		is "$status" 0 "nobody: exit status"
		cp "$tmp/run.out" "$tmp/nobody.json"
		ok "nobody sees its own process, and of others RSS" "$PYTHON" - "$tmp/nobody.json" "$sleeper" <<'END'
import json, sys
report = json.load(open(sys.argv[1]))
assert report["backend"] == "smaps_rollup" and report["denied"] == 1, report
rows = {p["pid"]: p for p in report["processes"]}
own = rows.pop(int(sys.argv[2]))
other = rows.popitem()[1]
assert own["pss_bytes"] > 0 and own["uss_bytes"] > 0, own
assert other["rss_bytes"] > 0 and other["pss_bytes"] is None, other
assert report["total"]["rss_bytes"] == own["rss_bytes"], report["total"]
assert report["total"]["unique_bytes"] is None
END
		run nobody "$tmp/cow" ps "$sleeper" $$
		contains "$out" "# of 1 only RSS could be had, in no sum; more needs root or CAP_SYS_PTRACE" \
			"nobody: what is missing is told"
		contains "$out" "unknown, at least the sum of PSS: frame numbers need CAP_SYS_ADMIN" \
			"nobody: and why"
		run nobody "$tmp/cow" ps $$
		contains "$out" "0 of 1 processes measured" "nobody: of others alone"
		lacks "$(echo "$out" | grep '^ *sum')" "0 B" "nobody: has no sum of zeroes then"
		run nobody "$tmp/cow" ps --fast "$sleeper"
		contains "$err" "--fast needs CAP_SYS_ADMIN for frame numbers; all was read instead" \
			"nobody: --fast"
		kill "$sleeper"
		wait 2>/dev/null
	else
		skip "without privilege" "nobody cannot run the command here"
	fi
else
	skip "without privilege" "needs root and setpriv(1) to become nobody"
fi

done_testing
