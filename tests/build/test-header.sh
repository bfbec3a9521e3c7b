#!/bin/sh
# SPDX-License-Identifier: MIT
#
# cow.h stands alone, in every dialect that a user may compile it with; and every header of the
# project includes what it needs.
. "$SOURCE_ROOT/tests/tap.sh"

warnings="-Wall -Wextra -Wpedantic -Wshadow -Wundef -Werror"
include="-I$SOURCE_ROOT/include"
cat >"$tmp/user.c" <<'END'
#include <cow.h>
#include <cow.h> /* twice does no harm */

int main(void)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	struct cow_region_stats stats = COW_REGION_STATS_INIT;
	struct cow_snapshot_stats snapshot_stats = COW_SNAPSHOT_STATS_INIT;

	return options.size + stats.size + snapshot_stats.size == 0;
}
END

dialects() { # COMPILER LANGUAGE DIALECT...
	compiler=$1
	language=$2
	shift 2
	for dialect in "$@"; do
		if command -v "${compiler%% *}" >/dev/null 2>&1; then
			# shellcheck disable=SC2086
			ok "$language, $dialect, ${compiler##*/}" $compiler -x "$language" -std="$dialect" $warnings \
				$include -fsyntax-only "$tmp/user.c"
		else
			skip "$language, $dialect, ${compiler##*/}" "it is not installed"
		fi
	done
}

dialects "$CC" c c99 c11 gnu17
dialects g++ c++ c++11 c++17 c++20
dialects clang c c11
dialects clang++ c++ c++11 c++20

cd "$SOURCE_ROOT" || exit 1
for header in $(find ./*/ -name '*.h' -not -path './build/*' | sort); do
	flags=
	case $header in
	./cli/report.h) flags=$(pkg-config --cflags json-c) ;;
	esac
	printf '#include "%s"\n' "${header#./}" >"$tmp/one.c"
	# shellcheck disable=SC2086
	ok "${header#./} includes what it needs" $CC -std=gnu17 -D_GNU_SOURCE -I. $include $flags \
		-fsyntax-only "$tmp/one.c"
done

done_testing
