# SPDX-License-Identifier: MIT
"""What the Python tests of the SQLite extension share: TAP, and connections.

A test file defines functions, marks each with @case, and ends with main(). The extension is
found through $COW_SQLITE. Arguments select cases by a part of their name.
"""

import contextlib
import os
import shutil
import sqlite3
import sys
import tempfile
import traceback

# A library with AddressSanitizer in it wants the sanitizer loaded first: begin again with it.
if os.environ.get("COW_SQLITE_PRELOAD") and "LD_PRELOAD" not in os.environ:
    os.environ["LD_PRELOAD"] = os.environ["COW_SQLITE_PRELOAD"]
    os.execv(sys.executable, [sys.executable, *sys.argv])

EXTENSION = os.environ.get("COW_SQLITE", "cow_sqlite.so")
_cases = []


class Skip(Exception):
    """Raised by a case that cannot run here; the text says why."""


def case(function):
    _cases.append(function)
    return function


def load_extension():
    """Loading is permanent and process-wide: once is enough."""
    connection = sqlite3.connect(":memory:")
    if not hasattr(connection, "enable_load_extension"):
        print("1..0 # SKIP this python's sqlite3 cannot load extensions")
        sys.exit(0)
    connection.enable_load_extension(True)
    connection.load_extension(EXTENSION)
    connection.close()


def connect(path, **parameters):
    """A connection in autocommit mode; statements say BEGIN themselves."""
    parameters = {"vfs": "cow", **parameters}
    query = "&".join(f"{key}={value}" for key, value in parameters.items() if value is not None)
    return sqlite3.connect(f"file:{path}?{query}", uri=True, isolation_level=None, timeout=0,
                           check_same_thread=False)


def stock(path):
    return sqlite3.connect(path, isolation_level=None, timeout=0)


def rows(connection, sql, *values):
    return connection.execute(sql, values).fetchall()


def one(connection, sql, *values):
    return connection.execute(sql, values).fetchone()[0]


def dump(connection):
    return "\n".join(connection.iterdump())


@contextlib.contextmanager
def fails(name, *fragments):
    """The block must raise an SQLite error of that name whose text has these parts."""
    try:
        yield
    except sqlite3.Error as error:
        assert error.sqlite_errorname == name, f"{error.sqlite_errorname}: {error}"
        for fragment in fragments:
            assert fragment in str(error), f"'{fragment}' is not in '{error}'"
    else:
        raise AssertionError(f"no {name}")


def equal(got, expected, what=""):
    assert got == expected, f"{what}: got {got!r:.400}, expected {expected!r:.400}"


def main():
    load_extension()
    failed = number = 0
    for function in _cases:
        if len(sys.argv) > 1 and not any(part in function.__name__ for part in sys.argv[1:]):
            continue
        number += 1
        directory = tempfile.mkdtemp(prefix="cow-sqlite-")
        result, remark = "ok", ""
        try:
            function(directory)
        except Skip as reason:
            remark = f" # SKIP {reason}"
        except Exception:  # every failure is reported, and the next case runs
            result = "not ok"
            failed += 1
            for line in traceback.format_exc().splitlines():
                print("#", line)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        print(f"{result} {number} - {function.__name__}{remark}", flush=True)
    print(f"1..{number}")
    sys.exit(1 if failed else 0)
