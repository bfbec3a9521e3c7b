#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Each folder includes only what its layer may use:
#
#	store -> lib -> core, mmu -> sys        cli -> proc, bpf, sim -> core, mmu -> sys
#
# The command and the extension stand on cow.h, as any program does.
#
# A line of the table below is a folder and what it may include of the project: folders, or single
# headers where only a seam may be used. All code may include its own folder and config.h.
. "$SOURCE_ROOT/tests/tap.sh"

layers="
include:
sys: core/host.h
core: mmu/mmu.h
mmu: core sys
lib: cow.h core mmu sys
store: cow.h lib core sys
sqlite: cow.h
proc:
bpf:
sim: core mmu sys
cli: cow.h proc bpf sim
bench: cow.h cli
fuzz: cow.h cli sys core mmu lib store sqlite proc
examples: cow.h
"

# "FILE HEADER" for each of the project's includes in a folder.
project_includes() {
	find "$SOURCE_ROOT/$1" -name '*.[ch]' | while read -r file; do
		sed -n 's/^[ \t]*#[ \t]*include[ \t]*"\([^"]*\)".*/\1/p
			s/^[ \t]*#[ \t]*include[ \t]*<\(cow\.h\)>.*/\1/p' "$file" |
			sed "s|^|${file#"$SOURCE_ROOT"/} |"
	done
}

forbidden() { # FOLDER ALLOWED...
	own=$1
	shift
	project_includes "$own" | while read -r file header; do
		[ -f "$SOURCE_ROOT/${file%/*}/$header" ] && continue
		for allowed in "$own" config.h "$@"; do
			case $header in
			"$allowed" | "$allowed"/*) continue 2 ;;
			esac
		done
		echo "$file includes $header"
	done
}

while IFS=: read -r folder allowed; do
	[ -n "$folder" ] && [ -d "$SOURCE_ROOT/$folder" ] || continue
	# shellcheck disable=SC2086
	is "$(forbidden "$folder" $allowed)" "" "$folder includes only:${allowed:- nothing}"
done <<END
$layers
END

for folder in "$SOURCE_ROOT"/*/; do
	folder=$(basename "$folder")
	case $folder in
	build | tests | scripts | completions | man | docs | debian) continue ;;
	esac
	find "$SOURCE_ROOT/$folder" -name '*.[ch]' | grep -q . || continue
	contains "$layers" "
$folder:" "$folder has a layer"
done

# The core makes no system calls: it sees no header that could offer one.
is "$(find "$SOURCE_ROOT/core" -name '*.[ch]' -exec grep -nE '^[ 	]*#[ 	]*include[ 	]*<' {} + |
	grep -vE '<(assert|errno|inttypes|limits|string|std[a-z]+)\.h>')" "" \
	"core includes only headers without system calls"

done_testing
