#!/bin/sh
# SPDX-License-Identifier: MIT
#
# What all verbs share: the way to them, help, wrong usage, exit statuses, JSON, colours, and
# output that cannot be written. `version` stands for any verb.
. "$SOURCE_ROOT/tests/tap.sh"

# Usage errors go to standard error alone, in one line, and end with 2.
refuses() { # DESCRIPTION EXPECTED-MESSAGE WORD...
	what=$1
	message=$2
	shift 2
	run "$COW" "$@"
	is "$status" 2 "$what: exit status"
	is "$err" "$message" "$what: message"
	is "$out" "" "$what: nothing on standard output"
}

run "$COW" help
is "$status" 0 "help: exit status"
contains "$out" "usage: cow VERB" "help: usage"
contains "$out" "  version  " "help: lists the verbs"
lacks "$out" "completion" "help: hides what is hidden"
overview=$out
run "$COW" --help
is "$out" "$overview" "--help is help"
run "$COW"
is "$status" 2 "no verb: exit status"
is "$err" "$overview" "no verb: help on standard error"
run "$COW" help version
is "$status" 0 "help VERB: exit status"
contains "$out" "usage: cow version [options]" "help VERB: usage"
contains "$out" "--json" "help VERB: shared options"
contains "$out" "-h, --help" "help VERB: short options"
topic=$out
run "$COW" version --help
is "$out" "$topic" "VERB --help is help VERB"
run "$COW" version --help surplus
is "$status" 0 "--help forgives operands"

for verb in $("$COW" completion list | awk 'NF == 1'); do
	is "$("$COW" help "$verb" | awk 'length > 80')" "" "help $verb: fits 80 columns"
	page=$("$COW" help "$verb" | sed -n 's/^See also: man //p')
	ok "help $verb: the page $page is there" test -f "$SOURCE_ROOT/man/$page.1.scd"
done

run "$COW" --version
is "$status" 0 "--version: exit status"
is "$out" "cow $VERSION (libcow $VERSION)" "--version: one line"

refuses "unknown verb" "cow: there is no verb 'frobnicate'; see: cow help" frobnicate
refuses "misspelt verb" "cow: there is no verb 'vresion'; did you mean 'version'?" vresion
refuses "begun verb" "cow: there is no verb 'vers'; did you mean 'version'?" vers
refuses "empty verb" "cow: there is no verb ''; see: cow help" ""
refuses "option before the verb" \
	"cow: unknown option '--json'; a verb comes first, see: cow help" --json version
refuses "unknown topic" "cow help: there is no verb 'x'; see: cow help" help x
refuses "unknown option" \
	"cow version: unknown option '--frobnicate'; see: cow help version" version --frobnicate
refuses "misspelt option" \
	"cow version: unknown option '--jsn'; did you mean '--json'?" version --jsn
refuses "unknown letter" "cow version: unknown option '-j'; see: cow help version" version -j
refuses "argument of a flag" \
	"cow version: --json takes no argument; leave out '=x'" version --json=x
refuses "surplus operand" "cow version: unexpected 'x'; see: cow help version" version x
refuses "surplus operand after --" \
	"cow version: unexpected '--json'; see: cow help version" version -- --json
refuses "missing operand" \
	"cow completion: something is missing after 'cow completion'; give bash|zsh|fish" completion

run "$COW" version
is "$status" 0 "version: exit status"
contains "$out" "libcow         $VERSION" "version: aligned text"
contains "$out" "trap explicit  yes" "version: a trap that works"
run "$COW" version --json
is "$status" 0 "version --json: exit status"
is "$(printf '%s\n' "$out" | sed -n 2p)" '  "schema": "cow-version/1",' "schema is the first key"
ok "version --json is JSON" "$PYTHON" -m json.tool "$tmp/run.out"
cp "$tmp/run.out" "$tmp/version.json"
ok "version --json says what the text says" "$PYTHON" - "$tmp/version.json" "$VERSION" <<'END'
import json, os, sys
report = json.load(open(sys.argv[1]))
assert report["version"] == sys.argv[2], report
assert report["kernel"] == os.uname().release, report
assert report["page_size"] == os.sysconf("SC_PAGESIZE"), report
assert report["traps"]["explicit"] is True, report
END

# Colours: only on a terminal. script(1) lends one.
escape=$(printf '\033')
run "$COW" help
lacks "$out" "$escape" "no colours in a pipe"
on_terminal() {
	out=$(script -qec "$1" /dev/null </dev/null)
}
if command -v script >/dev/null 2>&1; then
	unset NO_COLOR
	export TERM=xterm
	on_terminal "$COW help"
	contains "$out" "$escape[1m" "colours on a terminal"
	on_terminal "NO_COLOR=1 $COW help"
	lacks "$out" "$escape" "no colours with NO_COLOR"
	on_terminal "NO_COLOR= $COW help"
	contains "$out" "$escape" "an empty NO_COLOR counts as none"
	on_terminal "TERM=dumb $COW help"
	lacks "$out" "$escape" "no colours on a dumb terminal"
	on_terminal "$COW help --no-color"
	lacks "$out" "$escape" "no colours with --no-color"
	on_terminal "$COW frobnicate"
	contains "$out" "$escape[31mcow:" "coloured messages on a terminal"
else
	skip "colours on a terminal" "script(1) is not installed"
fi

# Output that cannot be written.
for words in "version" "version --json" "help" "completion bash" "--version"; do
	run sh -c "exec $COW $words >/dev/full"
	is "$status" 1 "full disk: exit status of $words"
	contains "$err" "cannot write the output: No space left on device" "full disk: message of $words"
done
run sh -c "exec $COW version >&-"
is "$status" 1 "closed standard output: exit status"
contains "$err" "cow version: cannot write the output: Bad file descriptor" \
	"closed standard output: message"
mkfifo "$tmp/fifo"
: <"$tmp/fifo" & # opens the pipe for reading and is gone before anything is written
run sh -c "exec 3>$tmp/fifo; sleep 0.2; exec $COW version >&3"
wait
is "$status" 1 "closed pipe: exit status"
is "$err" "cow version: cannot write the output: Broken pipe" "closed pipe: message"
run sh -c "exec $COW version 2>&- <&-"
is "$status" 0 "closed standard input and error do no harm"

# Completions.
ok "bash reads its completion" sh -c "$COW completion bash | bash -n"
for word in "cow v:version" "cow version --j:--json" "cow help ver:version" "cow store lo:log" \
	"cow stat --tr:--tree"; do
	typed=${word%:*}
	is "$(bash -c 'eval "$($1 completion bash)"; COMP_WORDS=($2)
		COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _cow; echo "${COMPREPLY[*]}"' - "$COW" "$typed")" \
		"${word#*:}" "bash completes '$typed'"
done
mkdir "$tmp/place"
echo x >"$tmp/place/a name"
for typed in "file $tmp/place/a" "store log $tmp/place/a" "stat $tmp/place/a" "walk --svg $tmp/place/a"; do
	is "$(bash -c 'eval "$($1 completion bash)"; COMP_WORDS=(cow $2)
		COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _cow; printf %s "${COMPREPLY[@]}"' _ "$COW" "$typed")" \
		"$tmp/place/a name" "bash completes a file after '${typed%% *}'"
done
for shell in zsh fish; do
	if command -v $shell >/dev/null 2>&1; then
		ok "$shell reads its completion" sh -c "$COW completion $shell | $shell -n"
	else
		run "$COW" completion $shell
		contains "$out" "print JSON instead of text" "$shell completion explains options"
	fi
done
refuses "unknown shell" \
	"cow completion: there is no completion for 'csh'; give bash, zsh or fish" completion csh

done_testing
