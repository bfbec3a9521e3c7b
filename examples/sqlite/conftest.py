# SPDX-License-Identifier: MIT
"""A database for every test, migrated once: a pytest plugin of forty lines.

The first test that wants a database pays for the migrations. They run once in a process, in memory;
the result gets a name. Each test then gets a branch of it, which costs microseconds whatever the
size of the database, and which is thrown away afterwards with all that the test did to it.

COW_SQLITE names the extension where it is not on the loader's path.
"""

import os
import sqlite3

import pytest

from migrations import migrate

TEMPLATE = "file:/template?vfs=cow"  # starts empty: there is no such file, and none is made


@pytest.fixture(scope="session")
def template():
    """The migrated database, with the snapshot that tests branch from."""
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(os.environ.get("COW_SQLITE", "cow_sqlite"))  # stays for good
    loader.close()

    connection = sqlite3.connect(TEMPLATE, uri=True)
    migrate(connection)
    connection.commit()
    connection.execute("SELECT cow_snapshot('migrated')")
    yield connection
    connection.close()


@pytest.fixture
def db_uri(template, request):
    """The URI of this test's own database: any number of connections may open it."""
    name = request.node.nodeid
    (uri,) = template.execute("SELECT cow_branch('migrated', ?)", (name,)).fetchone()
    yield uri
    template.execute("SELECT cow_drop(?)", (name,))


@pytest.fixture
def db(db_uri):
    """A connection to this test's own database."""
    connection = sqlite3.connect(db_uri, uri=True)
    yield connection
    connection.close()  # a branch that is open cannot be dropped
