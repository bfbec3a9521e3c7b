#!/bin/sh
# SPDX-License-Identifier: MIT
#
# What is installed can be used as a stranger would: a program is compiled through pkg-config
# against an installed tree, shared and static, and run; the command, the manual and the
# completions are in their places.
. "$SOURCE_ROOT/tests/tap.sh"

# A tree of its own at the prefix that the build was configured with.
run "$MESON" install -C "$BUILD_ROOT" --no-rebuild --destdir "$tmp/root"
is "$status" 0 "meson install"
[ "$status" = 0 ] || diag "$out$err"
root=$tmp/root
pc=$(find "$root" -name libcow.pc)
ok "there is a libcow.pc" test -n "$pc"
export PKG_CONFIG_PATH="${pc%/*}"
export PKG_CONFIG_SYSROOT_DIR="$root"
libdir=$root$(PKG_CONFIG_SYSROOT_DIR='' pkg-config --variable=libdir libcow)

is "$(pkg-config --modversion libcow)" "$VERSION" "pkg-config knows the version"
lacks "$(cat "$pc")" "$BUILD_ROOT" "libcow.pc does not name the build tree"
is "$(cd "$root" && find . -path '*include*' -name '*.h' | sed 's|.*/||')" "cow.h" \
	"cow.h is the only header"

cat >"$tmp/user.c" <<'END'
#include <cow.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	struct cow_region *region;
	struct cow_snapshot *snapshot;
	char past[6] = "", present[6] = "";

	options.trap = COW_TRAP_EXPLICIT;
	if (cow_region_new(1 << 20, &options, &region) < 0 ||
	    cow_region_write(region, 4090, "hello", 6) < 0 ||
	    cow_region_snapshot(region, &snapshot) < 0 ||
	    cow_region_write(region, 4090, "world", 6) < 0 ||
	    cow_snapshot_read(snapshot, 4090, past, 6) < 0 ||
	    cow_region_read(region, 4090, present, 6) < 0)
		return 1;
	printf("%s, %s\n", past, present);
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
	return 0;
}
END

sanitize=
nm -D "$libdir/libcow.so.0" | grep -q __asan && sanitize="-fsanitize=address,undefined"

# shellcheck disable=SC2046,SC2086
ok "a program compiles with the shared library" $CC -Wall -Werror $sanitize "$tmp/user.c" \
	-o "$tmp/shared" $(pkg-config --cflags --libs libcow)
run env LD_LIBRARY_PATH="$libdir" "$tmp/shared"
is "$status: $out" "0: hello, world" "it runs"
contains "$(readelf -d "$tmp/shared")" "libcow.so.0" "it asks for libcow.so.0"

# shellcheck disable=SC2046,SC2086
ok "a program compiles with the static library" $CC -Wall -Werror $sanitize "$tmp/user.c" \
	-o "$tmp/static" $(pkg-config --static --cflags --libs libcow | sed 's/-lcow/-l:libcow.a/')
run "$tmp/static"
is "$status: $out" "0: hello, world" "it runs"
lacks "$(readelf -d "$tmp/static")" "libcow.so" "it needs no libcow.so"

# The library's internals must not collide with a program's own names.
nm "$libdir/libcow.a" | awk '$2 == "t" { print $3 }' | grep -E '^[a-z]+_[a-z_]+$' | sort -u |
	head -n 50 >"$tmp/internals"
while read -r name; do
	echo "int $name(void); int $name(void) { return 1; }"
done <"$tmp/internals" >"$tmp/clash.c"
ok "there are internals to collide with" test -s "$tmp/clash.c"
# shellcheck disable=SC2046,SC2086
ok "a program may use the library's internal names" $CC -w -fno-builtin $sanitize "$tmp/user.c" \
	"$tmp/clash.c" -o "$tmp/clash" $(pkg-config --static --cflags --libs libcow |
	sed 's/-lcow/-l:libcow.a/')
run "$tmp/clash"
is "$status: $out" "0: hello, world" "it runs"

# Each optional part that was built is installed.
if [ -x "${COW:-}" ]; then
	cow=$(find "$root" -path '*/bin/cow')
	# The loader knows /usr; from elsewhere the command finds its library by itself.
	case $cow in "$root"/usr/bin/*) export LD_LIBRARY_PATH="$libdir" ;; esac
	run "$cow" --version
	is "$out" "cow $VERSION (libcow $VERSION)" "the installed command runs"
	for place in bash-completion/completions/cow zsh/site-functions/_cow \
		fish/vendor_completions.d/cow.fish; do
		ok "completion: $place" test -s "$(find "$root" -path "*/share/$place")"
	done
fi
for page in "$SOURCE_ROOT"/man/*.scd; do
	page=$(basename "$page" .scd)
	ok "the page $page" test -s "$(find "$root" -path "*/man/man${page##*.}/$page")"
done

done_testing
