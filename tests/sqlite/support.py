# SPDX-License-Identifier: MIT
"""What the Python tests of the SQLite extension share: connections.

The extension is found through $COW_SQLITE.
"""

import contextlib
import os
import sqlite3
import sys
import tempfile

sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import tap
from tap import Skip, case

# A library with AddressSanitizer in it wants the sanitizer loaded first: begin again with it.
if os.environ.get("COW_SQLITE_PRELOAD") and "LD_PRELOAD" not in os.environ:
    os.environ["LD_PRELOAD"] = os.environ["COW_SQLITE_PRELOAD"]
    os.execv(sys.executable, [sys.executable, *sys.argv])

EXTENSION = os.environ.get("COW_SQLITE", "cow_sqlite.so")


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
    """Each case gets a fresh directory."""
    load_extension()
    tap.main(lambda: tempfile.TemporaryDirectory(prefix="cow-sqlite-", ignore_cleanup_errors=True))
