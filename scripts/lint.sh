#!/bin/sh
# SPDX-License-Identifier: MIT
#
# lint.sh BUILD-DIR [FILE...]
#
# Everything that reads the code without running it; each finding is an error. What is wrong all
# the same is suppressed where it stands, with the reason beside it.
#
#	format   clang-format, long lines, blanks at the ends of lines
#	layers   who includes what (also a test)
#	gcc      -fanalyzer, of the library and the command
#	clang    its warnings, and clang-tidy
#	cppcheck
#	shell    scripts parse
set -u

build=$1
shift
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
# What is generated and included; without BPF there is no such target.
ninja -C "$build" bpf/stat.skel.h >/dev/null 2>&1 || true
ninja -C "$build" cli/embedded-style.c cli/embedded-plots.c cli/embedded-chart.c >/dev/null 2>&1 || true
folders="include sys core mmu lib store proc bpf sqlite sim cli tests bench fuzz examples"
if [ $# -gt 0 ]; then
	sources=$*
else
	# Only what is under version control or about to be: other trees may lie about.
	sources=$(git ls-files --cached --others --exclude-standard -- $folders | grep -E '\.[ch]$')
fi
units=$(for file in $sources; do
	case $file in *.c) grep -qF "/$file\"" "$build/compile_commands.json" && echo "$file" ;; esac
done)
# The compilations of these files; one that is compiled in several ways (a test under each trap)
# is read in the first of them.
once=$build/lint
mkdir -p "$once/cppcheck"
printf '%s\n' $units | /usr/bin/python3 -c '
import json, os, sys
units = {os.path.abspath(line.strip()) for line in sys.stdin}
ways = {}
for way in json.load(open(sys.argv[1])):
    path = os.path.abspath(os.path.join(way["directory"], way["file"]))
    if path in units:
        ways.setdefault(path, way)
json.dump(list(ways.values()), open(sys.argv[2], "w"), indent=1)
' "$build/compile_commands.json" "$once/compile_commands.json" || exit 1
findings=0
jobs=${JOBS:-$(nproc)}

# check NAME COMMAND...: runs one of the linters and remembers that it found something.
check() {
	name=$1
	shift
	if output=$("$@" 2>&1); then
		echo "lint: $name: clean"
	else
		printf '%s\n' "$output"
		echo "lint: $name: FINDINGS"
		findings=$((findings + 1))
	fi
}

installed='^(sys|core|mmu|lib|store|proc|sqlite|sim|cli)/'

# each_unit PATTERN COMMAND...: for every C file of that pattern, several at once.
each_unit() {
	pattern=$1
	shift
	printf '%s\n' $units | grep -E "$pattern" | xargs -r -P "$jobs" -n 1 "$@"
}

check_format() {
	clang-format --dry-run -Werror --ferror-limit=3 $sources
}

check_text() {
	! { git grep -InE --untracked '[ 	]+$' -- $folders scripts man Makefile '*.build' |
		grep -v '\.scd:' | grep . ||
		awk '{ gsub(/\t/, "        ") } length > 100 { print FILENAME ":" FNR ": longer than 100 columns" }' \
			$sources | grep . ; }
}

check_layers() {
	SOURCE_ROOT=$root sh tests/build/test-layers.sh
}

check_analyzer() {
	flags="-std=gnu17 -O2 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I. -Iinclude -I$build
		$(pkg-config --cflags json-c sqlite3)"
	each_unit "$installed" gcc $flags -Wall -Wextra -Wno-unused-parameter \
		-Wno-missing-field-initializers -Werror -fanalyzer -c -o /dev/null
}

# The analyzer takes ten times as long as all other checks of clang-tidy, and what a test leaves
# behind at its end is nothing to be told of. A test may run a shell.
check_tidy() {
	set -- clang-tidy -p "$once" --quiet --extra-arg=-Wno-unknown-warning-option \
		--extra-arg=-Wno-unused-command-line-argument
	status=0
	each_unit "$installed" "$@" || status=1
	each_unit '^(bpf|tests|bench|fuzz|examples)/' "$@" --checks='-clang-analyzer-*,-cert-env33-c' || status=1
	return $status
}

# What did not change since the last time is not read again.
# A function of sys/ that returns a descriptor is no leak, nor is mmap() to where there is memory,
# nor what a test does not give back at its end; it does not know that bail() does not return.
# readdir() on a stream of one's own is safe in glibc, and its replacement is deprecated, as are
# contexts: programs have both.
check_cppcheck() {
	cppcheck --project="$once/compile_commands.json" --cppcheck-build-dir="$once/cppcheck" \
		--quiet --error-exitcode=1 -j "$jobs" \
		--enable=warning,portability,performance --inline-suppr \
		--suppress=missingIncludeSystem --suppress=readdirCalled \
		--suppress=getcontextCalled --suppress=makecontextCalled \
		--suppress=swapcontextCalled --suppress=leakReturnValNotUsed \
		--suppress='memleak:*tests/*' --suppress='invalidFunctionArg:*tests/*' \
		--suppress='nullPointerRedundantCheck:*tests/*' \
		--suppress='resourceLeak:*sys/*.c' --suppress='*:*/build/*' \
		--suppress=normalCheckLevelMaxBranches -D__GNUC__=12 --library=posix --library=gnu \
		--template='{file}:{line}: {severity}: {message} [{id}]'
}

check_shell() {
	for script in scripts/*.sh tests/*.sh tests/*/*.sh .ci/run; do
		[ ! -f "$script" ] || sh -n "$script" || return 1
	done
	for script in scripts/*.py; do
		/usr/bin/python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' "$script" ||
			return 1
	done
}

check format check_format
check text check_text
check layers check_layers
check shell check_shell
check cppcheck check_cppcheck
check analyzer check_analyzer
check clang-tidy check_tidy

if [ "$findings" -gt 0 ]; then
	echo "lint: $findings of the linters found something"
	exit 1
fi
echo "lint: clean"
