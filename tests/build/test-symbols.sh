#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The libraries export what lib/libcow.map lists, which is what cow.h declares, and nothing else;
# the core calls nothing but itself, memcpy() and its like, and the host's functions.
. "$SOURCE_ROOT/tests/tap.sh"

map=$SOURCE_ROOT/lib/libcow.map
shared=$BUILD_ROOT/libcow.so.0

sed -n 's/^[ \t]*\(cow_[a-z0-9_]*\);$/\1/p' "$map" | sort >"$tmp/map"
nm -D --defined-only "$shared" | awk '$2 != "A" { print $3 }' | sed 's/@.*//' | sort >"$tmp/shared"
nm --defined-only --extern-only "$BUILD_ROOT/libcow.a" | awk 'NF == 3 { print $3 }' |
	sort >"$tmp/archive"
# A function of cow.h is a name before a parenthesis in a declaration that is exported.
sed -n '/COW_API/,/;/p' "$SOURCE_ROOT/include/cow.h" |
	grep -oE '\bcow_[a-z0-9_]+\(' | tr -d '(' | sort -u >"$tmp/header"

ok "the map lists each name once" sort -uc "$tmp/map"
ok "the shared library exports what the map lists" diff -u "$tmp/map" "$tmp/shared"
ok "cow.h declares what the map lists" diff -u "$tmp/map" "$tmp/header"
# A sanitizer's runtime adds names of its own to every object.
grep -v '^__\(asan\|odr_asan\|ubsan\|tsan\)' "$tmp/archive" >"$tmp/archive-own" || true
ok "the archive exports what the map lists" diff -u "$tmp/map" "$tmp/archive-own"
contains "$(readelf -d "$shared")" "[libcow.so.0]" "the soname"
contains "$(readelf -V "$shared")" "LIBCOW_0.1" "the version node"
lacks "$(readelf -dW "$shared")" "TEXTREL" "no relocations in the text"
lacks "$(readelf -lW "$shared")" "RWE" "no segment is writable and executable"

set -- "$BUILD_ROOT"/libcow_internal.a.p/core_*.o
if [ -f "$1" ] && ! nm "$1" | grep -qE '__(asan|tsan|ubsan)_'; then
	nm --defined-only "$@" "$BUILD_ROOT"/libcow_internal.a.p/mmu_*.o |
		awk 'NF == 3 { print $3 }' | sort -u >"$tmp/defined"
	nm --undefined-only "$@" | awk 'NF == 2 { print $2 }' | sort -u | comm -23 - "$tmp/defined" |
		grep -vE '^(host_[a-z_]+|mem(cpy|set|move|cmp)|__assert_fail|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_)$' \
			>"$tmp/calls" || true
	is "$(cat "$tmp/calls")" "" "the core calls nothing that could be a system call"
else
	skip "the core calls nothing that could be a system call" "instrumented objects"
fi

done_testing
