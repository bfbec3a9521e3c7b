# SPDX-License-Identifier: MIT
#
# The Test Anything Protocol for shell tests; sourced, by `. "$SOURCE_ROOT/tests/tap.sh"`.
#
#	run cow version --json            # sets $status, $out, $err
#	is "$status" 0 "exit status"
#	contains "$out" '"schema"' "the schema comes first"
#	done_testing
#
# Each check is a case, unlike in tap.h. A temporary directory, $tmp, goes at the end.

set -u
export LC_ALL=C
tap_count=0
tap_failed=0
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

pass() {
	tap_count=$((tap_count + 1))
	echo "ok $tap_count - $1"
}

fail() {
	tap_count=$((tap_count + 1))
	tap_failed=$((tap_failed + 1))
	echo "not ok $tap_count - $1"
}

diag() {
	printf '%s\n' "$*" | sed 's/^/# /'
}

skip() {
	tap_count=$((tap_count + 1))
	echo "ok $tap_count - $1 # SKIP $2"
}

skip_all() {
	echo "1..0 # SKIP $1"
	exit 0
}

# ok DESCRIPTION COMMAND...: the command succeeds. What it prints is shown when it does not.
ok() {
	tap_what=$1
	shift
	if "$@" >"$tmp/ok" 2>&1; then
		pass "$tap_what"
	else
		fail "$tap_what"
		diag "status $? of: $*"
		sed 's/^/# /' "$tmp/ok"
	fi
}

is() {
	if [ "$1" = "$2" ]; then
		pass "$3"
	else
		fail "$3"
		diag "got      $1"
		diag "expected $2"
	fi
}

contains() {
	case $1 in
	*"$2"*) pass "$3" ;;
	*)
		fail "$3"
		diag "in       $1"
		diag "expected $2"
		;;
	esac
}

lacks() {
	case $1 in
	*"$2"*)
		fail "$3"
		diag "in       $1"
		diag "unwanted $2"
		;;
	*) pass "$3" ;;
	esac
}

# run COMMAND...: sets $status, $out and $err (without the last newline).
run() {
	status=0
	"$@" >"$tmp/run.out" 2>"$tmp/run.err" </dev/null || status=$?
	out=$(cat "$tmp/run.out")
	err=$(cat "$tmp/run.err")
}

done_testing() {
	echo "1..$tap_count"
	[ "$tap_failed" = 0 ]
	exit
}
