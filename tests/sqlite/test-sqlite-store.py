# SPDX-License-Identifier: MIT
"""Databases in stores: cow_save(), store=1, tags, and what the stock library says of the result."""

import os
import subprocess
import sys

from support import Skip, case, connect, dump, equal, fails, main, one, rows, stock

ROWS = 3000


def fill(connection, generation):
    connection.execute("BEGIN")
    connection.executemany("INSERT OR REPLACE INTO t VALUES(?, ?)",
                           [(i, f"{generation} {i} " + "x" * 80) for i in range(0, ROWS, generation)])
    connection.execute("COMMIT")


def make(directory, name="work.db"):
    connection = connect(os.path.join(directory, name))
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, b TEXT)")
    fill(connection, 1)
    return connection


def layers(store):
    return [name for name in os.listdir(store) if name.endswith(".qcow2")]


def size(store, identity):
    return os.stat(os.path.join(store, identity + ".qcow2")).st_blocks * 512


@case
def saved_and_opened_again(directory):
    store = os.path.join(directory, "store")
    connection = make(directory)
    expected = dump(connection)
    identity = one(connection, "SELECT cow_save(NULL, ?)", store)
    equal(layers(store), [identity + ".qcow2"], "a layer of that name")
    connection.execute("DELETE FROM t")
    again = connect(store, store=1)
    equal(dump(again), expected, "what was saved")
    equal(one(again, "PRAGMA integrity_check"), "ok", "its integrity")
    # It is a database like any other.
    again.execute("DELETE FROM t WHERE id < 100")
    equal(one(again, "SELECT count(*) FROM t"), ROWS - 100, "written to")
    path = os.path.join(directory, "out.db")
    again.execute("SELECT cow_export(NULL, ?)", (path,))
    equal(one(stock(path), "SELECT count(*) FROM t"), ROWS - 100, "exported for the stock library")
    equal(one(stock(path), "PRAGMA integrity_check"), "ok", "which finds it sound")
    again.close()
    once_more = connect(store, store=1)
    equal(dump(once_more), expected, "what was not saved is gone")


@case
def saves_are_incremental(directory):
    store = os.path.join(directory, "store")
    connection = make(directory)
    first = one(connection, "SELECT cow_save(NULL, ?)", store)
    connection.execute("UPDATE t SET b = 'changed' WHERE id = 17")
    second = one(connection, "SELECT cow_save(NULL, ?)", store)
    assert size(store, second) * 4 < size(store, first), (size(store, first), size(store, second))
    connection.close()
    # On from the layer it came from, in another connection, another region.
    connection = connect(store, store=1)
    connection.execute("UPDATE t SET b = 'changed again' WHERE id = 18")
    third = one(connection, "SELECT cow_save(NULL, ?)", store)
    assert size(store, third) * 4 < size(store, first), (size(store, first), size(store, third))
    equal(len({first, second, third}), 3, "three layers")
    connection.close()
    connection = connect(store, store=1)
    equal(rows(connection, "SELECT b FROM t WHERE id IN (17, 18)"), [("changed",), ("changed again",)],
          "all of it is in the newest")


@case
def tags_and_identities(directory):
    store = os.path.join(directory, "store")
    connection = make(directory)
    dumps = {}
    for generation in (2, 3, 5):
        fill(connection, generation)
        connection.execute("SELECT cow_snapshot(?)", (f"s{generation}",))
        dumps[f"tag{generation}"] = dump(connection)
    for generation in (2, 3, 5):
        identity = one(connection, "SELECT cow_save(?, ?, ?)", f"s{generation}", store,
                       f"tag{generation}")
        dumps[identity] = dumps[f"tag{generation}"]
    opened = {tag: connect(store, store=1, tag=tag) for tag in dumps}
    for tag, other in opened.items():
        equal(dump(other), dumps[tag], tag)
    # A tag's database is one, however many open it; another tag's is another.
    opened["tag2"].execute("DELETE FROM t")
    equal(one(connect(store, store=1, tag="tag2"), "SELECT count(*) FROM t"), 0, "the same database")
    equal(dump(opened["tag3"]), dumps["tag3"], "not this one")
    with fails("SQLITE_CANTOPEN", "unable to open"):
        rows(connect(store, store=1, tag="tag7"), "SELECT * FROM t")
    with fails("SQLITE_ERROR", "cow_save", "no name for a tag"):
        rows(connection, "SELECT cow_save(NULL, ?, 'a/b')", store)
    with fails("SQLITE_ERROR", "no snapshot named 'nothing'"):
        rows(connection, "SELECT cow_save('nothing', ?)", store)


@case
def snapshots_and_branches_of_a_store(directory):
    store = os.path.join(directory, "store")
    connection = make(directory)
    connection.execute("SELECT cow_save(NULL, ?, 'base')", (store,))
    connection.close()
    connection = connect(store, store=1, tag="base")
    connection.execute("SELECT cow_snapshot('then')")
    before = dump(connection)
    connection.execute("DELETE FROM t WHERE id % 2")
    equal(dump(connect(store, store=1, tag="base", snapshot="then")), before, "a snapshot of it")
    uri = one(connection, "SELECT cow_branch('then', 'mine')")
    equal(uri, f"file:{store}?vfs=cow&store=1&tag=base&branch=mine", "the branch's URI")
    branch = connect(store, store=1, tag="base", branch="mine")
    branch.execute("DELETE FROM t WHERE id >= 10")
    identity = one(branch, "SELECT cow_save(NULL, ?, 'mine')", store)
    equal(one(connect(store, store=1, tag="mine"), "SELECT count(*) FROM t"), 10, "the branch, saved")
    equal(dump(connect(store, store=1, tag="base", snapshot="then")), before, "not touched by it")
    connection.execute("SELECT cow_rollback('then')")
    equal(dump(connection), before, "rolled back")
    assert len(identity) == 36


@case
def an_imported_database(directory):
    if not os.path.exists(os.environ.get("COW", "")):
        raise Skip("the command is not built")
    path, store = os.path.join(directory, "real.db"), os.path.join(directory, "store")
    real = stock(path)
    real.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, b TEXT)")
    fill(real, 1)
    expected = dump(real)
    real.close()
    done = subprocess.run([os.environ["COW"], "store", "import", store, path], check=False,
                          capture_output=True, text=True)
    if "not implemented" in done.stderr:
        raise Skip(done.stderr)
    equal(done.returncode, 0, done.stderr)
    connection = connect(store, store=1)
    equal(dump(connection), expected, "what was imported")
    connection.execute("INSERT INTO t SELECT id + 10000, b FROM t")
    connection.execute("SELECT cow_save(NULL, ?)", (store,))
    connection.close()
    equal(one(connect(store, store=1), "SELECT count(*) FROM t"), 2 * ROWS, "it can grow")


@case
def refusals(directory):
    store = os.path.join(directory, "store")
    connection = make(directory)
    with fails("SQLITE_CANTOPEN", "unable to open"):
        rows(connect(store, store=1), "SELECT 1 FROM sqlite_schema")
    with fails("SQLITE_CANTOPEN", "unable to open"):
        rows(connect(os.path.join(directory, "work.db"), tag="x"), "SELECT 1 FROM sqlite_schema")
    with fails("SQLITE_ERROR", "store to save into is empty or NULL"):
        rows(connection, "SELECT cow_save(NULL, NULL)")
    with fails("SQLITE_CANTOPEN", "cow_save: cannot save into", "nowhere"):
        rows(connection, "SELECT cow_save(NULL, ?)", os.path.join(directory, "nowhere", "store"))
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM t")
    with fails("SQLITE_ERROR", "COMMIT or ROLLBACK first"):
        rows(connection, "SELECT cow_save(NULL, ?)", store)
    connection.execute("ROLLBACK")
    connection.execute("SELECT cow_save(NULL, ?)", (store,))
    # Another process that writes it.
    holder = subprocess.Popen([sys.executable, "-c", "import fcntl, sys\n"
                               "file = open(sys.argv[1], 'r+b')\n"
                               "fcntl.lockf(file, fcntl.LOCK_EX, 1, 0)\nprint('held', flush=True)\n"
                               "sys.stdin.read()", os.path.join(store, "lock")],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              env={k: v for k, v in os.environ.items() if k != "LD_PRELOAD"})
    equal(holder.stdout.readline(), "held\n", "another holds the lock")
    connection.execute("DELETE FROM t WHERE id < 5")
    with fails("SQLITE_BUSY", "another process is writing it"):
        rows(connection, "SELECT cow_save(NULL, ?)", store)
    equal(one(connect(store, store=1), "SELECT count(*) FROM t"), ROWS, "it can be read meanwhile")
    holder.communicate()
    assert one(connection, "SELECT cow_save(NULL, ?)", store)


@case
def saved_beside_a_writer(directory):
    store = os.path.join(directory, "store")
    connection = make(directory)
    writer = connect(os.path.join(directory, "work.db"))
    expected = dump(connection)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM t")
    connection.execute("SELECT cow_save(NULL, ?)", (store,))
    writer.execute("COMMIT")
    equal(dump(connect(store, store=1)), expected, "the committed state")


if __name__ == "__main__":
    main()
