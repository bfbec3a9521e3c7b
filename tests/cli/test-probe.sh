#!/bin/sh
# SPDX-License-Identifier: MIT
#
# cow probe: what it says is what the library does, as root, as nobody, behind a filter of system
# calls, and without /proc.
. "$SOURCE_ROOT/tests/tap.sh"

# value KEY...: of $tmp/probe.json; null is empty, a list its elements' commands.
value() {
	"$PYTHON" -c '
import json, sys
value = json.load(open(sys.argv[1]))
for key in sys.argv[2:]:
    value = value[key]
if isinstance(value, list):
    value = "; ".join(v["command"] if isinstance(v, dict) else v for v in value)
print("" if value is None else value)' "$tmp/probe.json" "$@"
}

probe() { # COMMAND-PREFIX...
	run "$@" "$COW" probe --json
	cp "$tmp/run.out" "$tmp/probe.json"
}

# --- here ---

probe env
is "$status" 0 "here: exit status"
contains "$out" '"schema": "cow-probe/1"' "here: the schema"
ok "here: JSON" value traps
auto=$(value auto)
"$COW" version --json >"$tmp/version.json"
agree=$("$PYTHON" -c '
import json, sys
tried = json.load(open(sys.argv[1]))["traps"]
said = json.load(open(sys.argv[2]))["traps"]
print([name for name in tried if tried[name] != said[name]["available"]])' \
	"$tmp/version.json" "$tmp/probe.json")
is "$agree" "[]" "here: regions can be made with what it says, and with nothing else"
run "$COW" probe
is "$status" 0 "text: exit status"
contains "$out" "COW_TRAP_AUTO takes $auto" "text: the trap that is taken"
lacks "$out" "$(printf '\033')" "text: no colours in a pipe"
is "$(printf '%s\n' "$out" | grep -c ' $')" 0 "text: no blanks at the ends of lines"
run "$COW" probe --require explicit
is "$status" 0 "--require: what is always there"
run "$COW" probe --require magic
is "$status" 2 "--require: no such trap"
contains "$err" "'magic' is none of signal" "--require: what there is"
run "$COW" probe extra
is "$status" 2 "an operand too many"

# --- behind a filter ---

if "$REFUSE_USERFAULTFD" EPERM true 2>/dev/null; then
	probe "$REFUSE_USERFAULTFD" EPERM
	is "$(value ways call error)" EPERM "a filter: the call is refused"
	contains "$(value ways user_call reason)" "(seccomp) refuses it" "a filter: why"
	is "$(value process seccomp)" filter "a filter: it is named"
	if [ "$(value ways device available)" = True ]; then
		is "$(value auto)" thread "a filter: the device stands in"
	else
		is "$(value auto)" mprotect "a filter: without the device mprotect is left"
	fi
else
	skip "a filter" "seccomp is not to be had"
fi

# --- without privilege ---

nobody() {
	setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all "$@"
}

if [ "$(id -u)" = 0 ] && nobody "$COW" --version >/dev/null 2>&1; then
	probe nobody
	is "$status" 0 "nobody: exit status"
	is "$(value process user)" 65534 "nobody: the user"
	if [ "$(cat /proc/sys/vm/unprivileged_userfaultfd)" = 0 ] &&
		! nobody sh -c ': <>/dev/userfaultfd' 2>/dev/null; then
		is "$(value auto)" signal "nobody: the signal trap is left"
		is "$(value kernel_writes)" False "nobody: system calls are not served"
		contains "$(value ways call reason)" "CAP_SYS_PTRACE" "nobody: why"
		contains "$(value advice)" "sysctl vm.unprivileged_userfaultfd=1" "nobody: what to do"
		run nobody "$COW" probe --require signal
		is "$status" 0 "nobody: --require signal"
		run nobody "$COW" probe --require kernel-writes
		is "$status" 1 "nobody: --require kernel-writes"
		if [ "$("$REFUSE_USERFAULTFD" EPERM echo yes)" = yes ]; then
			for error in EPERM ENOSYS; do
				probe nobody "$REFUSE_USERFAULTFD" $error
				is "$(value auto)" mprotect "nobody, $error: mprotect is left"
				is "$(value traps signal available)" False "nobody, $error: no signal"
				contains "$(value traps signal reason)" "(seccomp)" "nobody, $error: why"
				contains "$(value advice)" "SystemCallFilter=userfaultfd" \
					"nobody, $error: what to do"
			done
		else
			skip "nobody, behind a filter" "seccomp is not to be had"
		fi
	else
		skip "nobody" "userfaultfd is open to everybody here"
	fi
	run unshare --mount sh -c "mount -t tmpfs none /proc && exec '$COW' probe --json"
	if [ "$status" = 0 ]; then
		cp "$tmp/run.out" "$tmp/probe.json"
		is "$(value ways pagemap reason)" "no /proc is mounted" "without /proc: why"
		is "$(value auto)" mprotect "without /proc: mprotect is left"
		contains "$(value advice)" "mount -t proc" "without /proc: what to do"
	else
		skip "without /proc" "no mount namespaces here"
	fi
else
	skip "without privilege" "nobody cannot run the command here"
fi

done_testing
