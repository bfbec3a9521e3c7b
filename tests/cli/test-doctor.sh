#!/bin/sh
# SPDX-License-Identifier: MIT
#
# cow doctor over captured trees that hold what this machine does not: limits of both cgroup
# versions, strict overcommit, btrfs, XFS, PostgreSQL; and a fork of real processes.
. "$SOURCE_ROOT/tests/tap.sh"

cannot_tell() { # DESCRIPTION EXPECTED-MESSAGE WORD...
	what=$1
	message=$2
	shift 2
	run "$COW" doctor "$@"
	is "$status" 3 "$what: exit status"
	contains "$err" "cow doctor: $message" "$what: message"
	is "$out" "" "$what: nothing on standard output"
}

cannot_tell "no number" "--pid: 'redis' is not a process ID; give a number such as 1234" --pid redis
cannot_tell "nobody's PID" "there is no process 2147483647; cow ps --all lists those there are" \
	--pid 2147483647
cannot_tell "unknown option" "unknown option '--frobnicate'; see: cow help doctor" --frobnicate
cannot_tell "surplus operand" "unexpected '1'; see: cow help doctor" 1
cannot_tell "--earlier alone" "--earlier is about a process; give --pid PID, too" --earlier x
cannot_tell "no tree" "cannot open $tmp/nowhere: No such file or directory" --sysroot "$tmp/nowhere"
mkdir "$tmp/empty"
cannot_tell "an empty tree" "nothing could be read under $tmp/empty; is it a captured tree with proc/ in it?" \
	--sysroot "$tmp/empty"
echo '{"cow": 1}' >"$tmp/nothing.json"
cannot_tell "a report of something else" "$tmp/nothing.json is no report of cow stat with a fork in it" \
	--pid $$ --earlier "$tmp/nothing.json"

cannot_tell "no report" "cannot read $tmp/nowhere: No such file or directory" \
	--pid $$ --earlier "$tmp/nowhere"
echo "{" >"$tmp/half.json"
cannot_tell "half a report" "$tmp/half.json is not JSON (" --pid $$ --earlier "$tmp/half.json"
cannot_tell "a report without an end" "cannot read /dev/zero: File too large" --pid $$ --earlier /dev/zero

put() { # FILE TEXT: into the tree
	mkdir -p "$tree/${1%/*}"
	printf "$2" >"$tree/$1"
}

new_tree() {
	tree=$tmp/tree$((tree_number = ${tree_number:-0} + 1))
	put proc/meminfo 'MemTotal: 16777216 kB\nMemAvailable: 12582912 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\nCommitLimit: 8388608 kB\nCommitted_AS: 1048576 kB\n'
	put proc/sys/vm/overcommit_memory '0\n'
	put proc/sys/vm/swappiness '60\n'
	put proc/sys/vm/max_map_count '65530\n'
	put proc/sys/vm/unprivileged_userfaultfd '0\n'
	put sys/kernel/mm/transparent_hugepage/enabled 'always [madvise] never\n'
	put sys/kernel/mm/transparent_hugepage/defrag 'always defer [madvise] never\n'
	put sys/kernel/mm/ksm/run '0\n'
	put proc/self/cgroup '0::/a/b\n'
	put proc/self/mountinfo '30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n'
	put proc/self/status 'CapEff:\t0000000000001000\n'
}

# Lines that were wrapped are one again in $out; $wide has those that are too long for a terminal.
doctor() {
	run "$COW" doctor --sysroot "$tree" "$@"
	wide=$(awk 'length > 80' "$tmp/run.out")
	out=$(awk '/^                  / { sub(/^ +/, " "); printf "%s", $0; next }
		{ printf "%s%s", (NR > 1 ? "\n" : ""), $0 } END { print "" }' "$tmp/run.out")
}

new_tree
doctor
is "$status" 0 "a healthy machine: exit status"
contains "$out" "ok        memory: 12 GiB of 16 GiB available" "a healthy machine: memory"
contains "$out" "cgroup: no memory limit" "a healthy machine: cgroup"
is "$wide" "" "a healthy machine: in 80 columns"
contains "$out" "huge-pages: madvise, defrag madvise" "a healthy machine: huge pages"
contains "$out" "not a copy of 2 MiB" "a healthy machine: the measured reason"
lacks "$out" "warning" "a healthy machine: no warning"
doctor --caps
contains "$out" "have      CAP_NET_ADMIN" "a capability that is there"
contains "$out" "missing   CAP_SYS_ADMIN   frame numbers" "one that is missing, and what it would bring"
doctor --json --caps
cp "$tmp/run.out" "$tmp/doctor.json"
ok "JSON" "$PYTHON" - "$tmp/doctor.json" <<'END'
import json, sys
report = json.load(open(sys.argv[1]))
assert list(report)[0] == "schema" and report["schema"] == "cow-doctor/1", report
assert report["status"] == "ok" and report["scope"] == "host", report
for key in "backend", "coverage", "lost_events":
    assert key in report, key
for finding in report["findings"]:
    assert finding["reason"] and finding["meaning"] and finding["value"], finding
    assert finding["evidence"] != "not measured" or finding["level"] in ("ok", "note"), finding
assert {cap["name"]: cap["present"] for cap in report["caps"]}["CAP_NET_ADMIN"] is True
END

put proc/meminfo 'MemTotal: 16777216 kB\nMemAvailable: 1048576 kB\n'
doctor
is "$status" 1 "little memory: a warning"
put proc/meminfo 'MemTotal: 16777216 kB\nMemAvailable: 104857 kB\n'
doctor
is "$status" 2 "next to no memory: critical"

# Version 2: the limit stands two levels above.
new_tree
put sys/fs/cgroup/memory.max 'max\n'
put sys/fs/cgroup/a/memory.max '1073741824\n'
put sys/fs/cgroup/a/memory.current '966367641\n'
put sys/fs/cgroup/a/b/memory.max 'max\n'
put sys/fs/cgroup/a/b/memory.current '4096\n'
doctor
is "$status" 1 "cgroup v2: exit status"
contains "$out" "warning   cgroup: 922 MiB of 1 GiB used (version 2)" "cgroup v2: found at a level above"

# Version 1, hybrid, and in a container.
new_tree
put proc/self/cgroup '4:memory:/box\n0::/\n'
put proc/self/mountinfo '30 20 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n31 20 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n'
put sys/fs/cgroup/memory/memory.limit_in_bytes '9223372036854771712\n'
put sys/fs/cgroup/memory/memory.usage_in_bytes '1\n'
put sys/fs/cgroup/memory/box/memory.limit_in_bytes '1073741824\n'
put sys/fs/cgroup/memory/box/memory.usage_in_bytes '1063004405\n'
put run/.containerenv ''
put proc/sys/vm/max_map_count '1000\n'
doctor
is "$status" 2 "cgroup v1: exit status"
contains "$out" "critical  cgroup: 1014 MiB of 1 GiB used (version 1)" "cgroup v1: its limit"
contains "$out" "on the host, since a container cannot set it: sysctl -w vm.max_map_count=65530" \
	"advice for the host"
put proc/self/cgroup '4:memory:/../../box\n'
doctor
is "$status" 1 "a path that leads out of the hierarchy is not followed"

# Strict overcommit.
new_tree
put proc/sys/vm/overcommit_memory '2\n'
doctor
is "$status" 1 "strict overcommit: a warning"
contains "$out" "2 (strict): 1 GiB of 8 GiB committed" "strict overcommit: how much is left"

# KSM that finds nothing is a note, as nobody has measured it.
new_tree
put sys/kernel/mm/ksm/run '1\n'
put sys/kernel/mm/ksm/pages_shared '0\n'
put sys/kernel/mm/ksm/pages_sharing '0\n'
doctor
is "$status" 0 "idle KSM: exit status"
contains "$out" "note      ksm: on" "idle KSM: a note"

# File systems.
new_tree
b=sys/fs/btrfs/01234567-89ab-cdef-0123-456789abcdef/allocation/metadata
put $b/total_bytes '1073741824\n'
put $b/bytes_used '1063004405\n'
put proc/self/mountinfo '40 20 8:1 / /srv\\040data rw - xfs /dev/sda1 rw\n'
put proc/sys/fs/xfs/speculative_cow_prealloc_lifetime '1800\n'
doctor
is "$status" 1 "full btrfs metadata: a warning"
contains "$out" "warning   btrfs: 01234567: 1014 MiB of 1 GiB metadata used" "btrfs"
contains "$out" "cowextsize unknown" "XFS in a captured tree"
contains "$out" "for 1800 s" "XFS: how long it reserves"

# PostgreSQL: file, ALTER SYSTEM, command line.
new_tree
s=' 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 1 1\n'
put proc/50/stat "50 (postgres) S 1$s"
put proc/51/stat "51 (postgres) S 50$s"
put proc/52/stat "52 (postgres) S 50$s"
put proc/50/cwd/postgresql.conf "shared_buffers = 4GB # min 128kB\neffective_cache_size = 8GB\n"
put proc/50/cwd/postgresql.auto.conf "shared_buffers = '10GB'\n"
doctor
is "$status" 1 "PostgreSQL: exit status"
contains "$out" "50: shared_buffers 10 GiB, effective_cache_size 8 GiB, 2 backends" "PostgreSQL: settings"
contains "$out" "page tables of 20 MiB for it, 40 MiB for all" "PostgreSQL: what backends take"
put proc/50/cmdline 'postgres\0-c\0shared_buffers=64MB\0'
doctor
contains "$out" "50: shared_buffers 64 MiB" "PostgreSQL: the command line wins"

# A fork in a captured tree: what is counted, and what is not.
new_tree
put proc/70/stat "70 (forker) S 1$s"
put proc/70/status 'VmRSS:\t1048576 kB\nVmPTE:\t2048 kB\n'
put proc/70/cgroup '0::/\n'
put proc/70/smaps '00400000-00500000 r-xp 00000000 fe:00 9 /bin/forker\nRss: 1024 kB\nAnonymous: 0 kB\nVmFlags: rd ex\n10000000-50000000 rw-p 00000000 00:00 0\nRss: 700000 kB\nAnonymous: 700000 kB\nAnonHugePages: 0 kB\nSwap: 24 kB\nVmFlags: rd wr\n60000000-70000000 rw-p 00000000 00:00 0\nRss: 100000 kB\nAnonymous: 100000 kB\nVmFlags: rd wr dc\n80000000-90000000 rw-s 00000000 00:01 9 /dev/shm/x\nRss: 200000 kB\nAnonymous: 0 kB\nVmFlags: rd wr sh\n'
doctor --pid 70 --json
cp "$tmp/run.out" "$tmp/fork.json"
ok "a fork: private writable areas, without what a child does not get" "$PYTHON" - "$tmp/fork.json" <<'END'
import json, sys
fork = json.load(open(sys.argv[1]))["fork"]
assert fork["worst_bytes"] == 700024 << 10, fork
assert fork["page_table_bytes"] == 2048 << 10 and fork["areas"] == 4, fork
assert fork["latency_ns"] is None and fork["estimated_bytes"] is None and fork["fits"] is True, fork
END
put proc/meminfo 'MemTotal: 4194304 kB\nMemAvailable: 600000 kB\n'
doctor --pid 70
is "$status" 2 "a fork that does not fit: critical"
contains "$out" "critical  fork-memory: 686 MiB at worst, RAM has 586 MiB" "a fork that does not fit: why"
echo '{"schema": "cow-stat/1", "forks": 2, "cow": {"copied_bytes": 104857600}}' >"$tmp/stat.json"
doctor --pid 70 --earlier "$tmp/stat.json"
is "$status" 1 "but an earlier one copied little: a warning"
contains "$out" "extra memory, estimated     50 MiB  a report of cow stat" "the estimate"
put proc/sys/vm/overcommit_memory '2\n'
put proc/meminfo 'MemTotal: 4194304 kB\nMemAvailable: 4000000 kB\nCommitLimit: 2000000 kB\nCommitted_AS: 1000000 kB\n'
doctor --pid 70
contains "$out" "fork() will fail with ENOMEM: strict overcommit has 977 MiB left" "strict overcommit refuses it"

# Files that no kernel wrote.
new_tree
for file in proc/meminfo proc/self/cgroup proc/self/mountinfo proc/sys/vm/overcommit_memory \
	proc/sys/vm/swappiness sys/kernel/mm/transparent_hugepage/enabled sys/kernel/mm/ksm/run; do
	head -c 5000 /dev/urandom >"$tree/$file"
done
run timeout 10 "$COW" doctor --sysroot "$tree" --caps
ok "noise for files: it ends by itself" test "$status" -le 3
put proc/80/stat "80 (a\nb) S 1$s"
put proc/80/status 'VmRSS:\tmuch kB\n'
run timeout 10 "$COW" doctor --sysroot "$tree" --pid 80
is "$status" 3 "a process that makes no sense: exit status"
contains "$err" "the files in proc/80 are not what a kernel writes" "a process that makes no sense: message"

# This machine.
run "$COW" doctor
ok "this machine: an exit status of findings" test "$status" -le 2
lacks "$out" "make no sense" "this machine: everything could be read"
"$PYTHON" -c "
import time
data = bytearray(b'x') * (256 << 20)
print('ready', flush=True)
time.sleep(60)" >"$tmp/ready" &
process=$!
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	grep -q ready "$tmp/ready" && break
	sleep 0.2
done
run "$COW" doctor --pid $process --json
cp "$tmp/run.out" "$tmp/live.json"
kill $process
wait 2>/dev/null
ok "a fork of a process with 256 MiB" "$PYTHON" - "$tmp/live.json" <<'END'
import json, sys
fork = json.load(open(sys.argv[1]))["fork"]
assert 256 << 20 <= fork["worst_bytes"] < 300 << 20, fork
assert 100e3 < fork["latency_ns"] <= fork["latency_max_ns"] < 5e9, fork
END

done_testing
