#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The example for pytest is run as its users run it.

. "$SOURCE_ROOT/tests/tap.sh"

# A library with AddressSanitizer in it wants the sanitizer loaded first.
[ -z "${COW_SQLITE_PRELOAD:-}" ] || export LD_PRELOAD="$COW_SQLITE_PRELOAD"

"$PYTHON" -c 'import pytest' 2>/dev/null || skip_all "this python has no pytest"

run "$PYTHON" -m pytest -q -p no:cacheprovider "$SOURCE_ROOT/examples/sqlite"
is "$status" 0 "every test of the example passes"
contains "$out" "57 passed" "each with a database of its own"
[ "$status" = 0 ] || diag "$out $err"

run "$PYTHON" -m pytest -q -p no:cacheprovider "$SOURCE_ROOT/examples/sqlite" -k "deleted or there"
is "$status" 0 "also in part"

done_testing
