# SPDX-License-Identifier: MIT
"""Locks, journal modes and failing statements, as SQLite promises them."""

import ctypes
import os
import sqlite3
import threading
import time

from support import Skip, case, connect, dump, equal, fails, main, one, rows, stock

JOURNALS = ["delete", "truncate", "persist", "memory", "off"]


def filled(directory, name="t.db", count=200):
    path = os.path.join(directory, name)
    connection = connect(path)
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE, b)")
    connection.executemany("INSERT INTO t VALUES(?, ?, ?)",
                           ((i, i * 10, b"x" * 500) for i in range(count)))
    return path, connection


@case
def a_reader_keeps_what_it_began_with(directory):
    path, writer = filled(directory)
    reader = connect(path)
    reader.execute("PRAGMA cache_size=1")  # so that each scan reads again
    reader.execute("BEGIN")
    equal(one(reader, "SELECT count(*) FROM t WHERE length(b) = 500"), 200)
    for i in range(5):
        writer.execute("DELETE FROM t WHERE id = ?", (i,))
        equal(one(reader, "SELECT count(*) FROM t WHERE length(b) = 500"), 200,
              "no wait, no change")
    reader.execute("COMMIT")
    equal(one(reader, "SELECT count(*) FROM t"), 195)


@case
def a_reader_may_begin_while_a_writer_has_spilled(directory):
    path, writer = filled(directory)
    writer.execute("PRAGMA cache_size=5")
    writer.execute("PRAGMA cache_spill=2")
    writer.execute("BEGIN EXCLUSIVE")
    writer.execute("UPDATE t SET b = zeroblob(2000)")
    reader = connect(path)
    equal(one(reader, "SELECT count(*) FROM t WHERE length(b) = 500"), 200)
    equal(one(reader, "PRAGMA integrity_check"), "ok")
    writer.execute("COMMIT")
    equal(one(reader, "SELECT count(*) FROM t WHERE length(b) = 2000"), 200)


@case
def two_readers_of_one_generation(directory):
    """Small commits replace what nobody reads in place; what even one reads has to stay."""
    path, writer = filled(directory)
    readers = [connect(path) for _ in range(3)]
    for number, reader in enumerate(readers):
        reader.execute("PRAGMA cache_size=1")
        reader.execute("BEGIN")
        equal(one(reader, "SELECT count(*) FROM t"), 200 - number)
        writer.execute("DELETE FROM t WHERE id = ?", (number,))
    for number, reader in enumerate(readers):
        equal(one(reader, "SELECT count(*) FROM t WHERE length(b) = 500"), 200 - number)
        equal(one(reader, "PRAGMA integrity_check"), "ok")


@case
def a_stale_reader_cannot_write(directory):
    path, writer = filled(directory)
    reader = connect(path)
    reader.execute("BEGIN")
    one(reader, "SELECT count(*) FROM t")
    writer.execute("DELETE FROM t WHERE id = 1")
    reader.execute("PRAGMA busy_timeout=3000")
    began = time.monotonic()
    with fails("SQLITE_BUSY_SNAPSHOT"):
        reader.execute("DELETE FROM t WHERE id = 2")
    assert time.monotonic() - began < 1, "waiting cannot help, so nothing waits"
    reader.execute("ROLLBACK")
    reader.execute("DELETE FROM t WHERE id = 2")
    equal(one(writer, "SELECT count(*) FROM t"), 198)


@case
def the_second_writer_is_busy(directory):
    path, first = filled(directory)
    second = connect(path)
    first.execute("BEGIN IMMEDIATE")
    with fails("SQLITE_BUSY"):
        second.execute("BEGIN IMMEDIATE")
    with fails("SQLITE_BUSY"):
        second.execute("DELETE FROM t")
    equal(one(second, "SELECT count(*) FROM t"), 200)
    first.execute("COMMIT")
    second.execute("BEGIN EXCLUSIVE")
    second.execute("COMMIT")


@case
def a_busy_handler_waits_for_the_writer(directory):
    path, first = filled(directory)
    second = connect(path)
    second.execute("PRAGMA busy_timeout=5000")
    first.execute("BEGIN IMMEDIATE")
    first.execute("DELETE FROM t WHERE id < 100")
    timer = threading.Timer(0.2, first.execute, ["COMMIT"])
    timer.start()
    second.execute("DELETE FROM t WHERE id < 150")
    timer.join()
    equal(one(second, "SELECT count(*) FROM t"), 50)


@case
def two_writers_take_turns(directory):
    path, first = filled(directory)

    def add(number):
        connection = connect(path)
        connection.execute("PRAGMA busy_timeout=20000")
        for _ in range(100):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE t SET b = b + 1 WHERE id = 7")
            connection.execute("COMMIT")
        connection.close()

    first.execute("UPDATE t SET b = 0 WHERE id = 7")
    threads = [threading.Thread(target=add, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(one(first, "SELECT b FROM t WHERE id = 7"), 300)


@case
def every_journal_mode_rolls_back(directory):
    for mode in JOURNALS:
        path, writer = filled(directory, f"{mode}.db")
        reader = connect(path)
        equal(one(writer, f"PRAGMA journal_mode={mode}"), mode)
        before = dump(reader)
        writer.execute("PRAGMA cache_size=5")
        writer.execute("BEGIN")
        writer.execute("UPDATE t SET b = zeroblob(3000)")
        writer.execute("CREATE TABLE other(a)")
        writer.execute("ROLLBACK")
        equal(dump(reader), before, mode)
        # Without a journal SQLite promises nothing; the VFS sets the database back all the same.
        equal(dump(writer), before, mode)
        equal(one(writer, "PRAGMA integrity_check"), "ok", mode)
        writer.execute("DELETE FROM t WHERE id = 3")
        equal(one(reader, "SELECT count(*) FROM t"), 199, mode)
        # A few new pages, which were still on their way when the transaction was rolled back.
        writer.execute("PRAGMA cache_size=2000")
        writer.execute("BEGIN")
        writer.execute("INSERT INTO t(b) VALUES(zeroblob(20000))")
        writer.execute("PRAGMA cache_size=1")
        writer.execute("ROLLBACK")
        writer.execute("DELETE FROM t WHERE id = 4")
        out = os.path.join(directory, "out.db")
        equal(one(reader, "SELECT cow_export(NULL, ?)", out),
              one(writer, "PRAGMA page_count") * one(writer, "PRAGMA page_size"), mode)


@case
def journals_are_no_files(directory):
    for mode in JOURNALS:
        path, writer = filled(directory, f"{mode}.db")
        writer.execute(f"PRAGMA journal_mode={mode}")
        writer.execute("BEGIN")
        writer.execute("UPDATE t SET b = zeroblob(3000)")
        equal(os.listdir(directory), [], mode)
        writer.execute("COMMIT")
        equal(os.listdir(directory), [], mode)


@case
def journal_mode_wal_reports_the_mode_that_is_kept(directory):
    path, writer = filled(directory)
    for mode in JOURNALS:
        writer.execute(f"PRAGMA journal_mode={mode}")
        equal(one(writer, "PRAGMA journal_mode=WAL"), mode)
    writer.execute("PRAGMA locking_mode=EXCLUSIVE")
    with fails("SQLITE_ERROR", "write-ahead log"):
        writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("INSERT INTO t VALUES(1000, 1, 1)")
    equal(one(connect(path), "SELECT count(*) FROM t"), 201)


@case
def locking_mode_exclusive(directory):
    path, writer = filled(directory)
    other = connect(path)
    for mode in JOURNALS[:4]:
        writer.execute(f"PRAGMA journal_mode={mode}")
        writer.execute("PRAGMA locking_mode=EXCLUSIVE")
        writer.execute("INSERT INTO t(b) VALUES(1)")
        count = one(writer, "SELECT count(*) FROM t")
        equal(one(other, "SELECT count(*) FROM t"), count, "readers see each commit")
        with fails("SQLITE_BUSY"):
            other.execute("DELETE FROM t")
        writer.execute("BEGIN")
        writer.execute("DELETE FROM t")
        writer.execute("ROLLBACK")
        writer.execute("INSERT INTO t(b) VALUES(2)")
        equal(one(other, "SELECT count(*) FROM t"), count + 1, mode)
        with fails("SQLITE_ERROR", "locking_mode=NORMAL"):
            writer.execute("SELECT cow_rollback('x')")
        writer.execute("PRAGMA locking_mode=NORMAL")
        one(writer, "SELECT count(*) FROM t")
        other.execute("DELETE FROM t WHERE id > 199")
    # One that only reads keeps writers away, as it asks to.
    writer.execute("PRAGMA locking_mode=EXCLUSIVE")
    equal(one(writer, "SELECT count(*) FROM t"), 200)
    with fails("SQLITE_BUSY"):
        other.execute("DELETE FROM t")
    writer.execute("INSERT INTO t(b) VALUES(3)")
    writer.close()
    equal(one(other, "SELECT count(*) FROM t"), 201)
    other.execute("DELETE FROM t")


@case
def a_failed_statement_undoes_itself_alone(directory):
    path, writer = filled(directory)
    for mode in JOURNALS[:4]:
        writer.execute(f"PRAGMA journal_mode={mode}")
        writer.execute("PRAGMA cache_size=5")
        before = dump(writer)
        writer.execute("BEGIN")
        writer.execute("UPDATE t SET b = zeroblob(1500) WHERE id = 5")
        after = dump(writer)
        with fails("SQLITE_CONSTRAINT_UNIQUE"):
            writer.execute("UPDATE t SET v = CASE WHEN id > 150 THEN 7 ELSE v + 1 END, "
                           "b = zeroblob(900)")
        equal(dump(writer), after, mode)
        writer.execute("SAVEPOINT one")
        writer.execute("DELETE FROM t")
        writer.execute("ROLLBACK TO one")
        equal(dump(writer), after, mode)
        writer.execute("ROLLBACK")
        equal(dump(writer), before, mode)
        equal(one(writer, "PRAGMA integrity_check"), "ok")


@case
def an_interrupted_statement_rolls_back(directory):
    path, writer = filled(directory, count=2000)
    reader = connect(path)
    before = dump(reader)
    writer.execute("PRAGMA cache_size=5")
    for ticks in [50, 500, 2000]:
        writer.set_progress_handler(lambda: 1, ticks)
        with fails("SQLITE_INTERRUPT"):
            writer.execute("UPDATE t SET b = zeroblob(2000)")
        writer.set_progress_handler(None, 0)
        equal(dump(reader), before)
        equal(dump(writer), before)


@case
def out_of_memory_rolls_back(directory):
    """A hard limit on SQLite's heap, ever higher: each failure leaves the committed state."""
    library = ctypes.CDLL("libsqlite3.so.0")
    set_limit = library.sqlite3_hard_heap_limit64
    set_limit.argtypes = [ctypes.c_int64]
    used = library.sqlite3_memory_used
    used.restype = ctypes.c_int64
    path, writer = filled(directory, count=500)
    reader = connect(path)
    before = dump(reader)
    failures = 0
    for mode in ["memory", "delete", "truncate"]:
        writer.execute(f"PRAGMA journal_mode={mode}")
        for headroom in [0, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24]:
            set_limit(used() + headroom)
            try:
                writer.execute("BEGIN")
                writer.execute("UPDATE t SET b = randomblob(4000)")
            except (MemoryError, sqlite3.Error):
                failures += 1
            finally:
                set_limit(0)
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            equal(dump(reader), before, f"{mode} {headroom}")
            equal(dump(writer), before, f"{mode} {headroom}")
        equal(one(writer, "PRAGMA integrity_check"), "ok")
    if not failures:
        raise Skip("this SQLite keeps no count of its memory")


@case
def reservation_is_the_limit(directory):
    path = os.path.join(directory, "small.db")
    writer = connect(path, reserve="2M")
    writer.execute("CREATE TABLE t(b)")
    before = dump(writer)
    with fails("SQLITE_FULL"):
        for _ in range(100):
            writer.execute("INSERT INTO t VALUES(zeroblob(100000))")
            before = one(writer, "SELECT count(*) FROM t")
    equal(one(writer, "SELECT count(*) FROM t"), before)
    equal(one(writer, "PRAGMA integrity_check"), "ok")
    writer.execute("DELETE FROM t")
    writer.execute("INSERT INTO t VALUES(zeroblob(100000))")


@case
def several_databases_commit_together(directory):
    """Cow and real files in one transaction, in all orders: all or none."""
    real = [os.path.join(directory, f"real{i}.db") for i in range(2)]
    for path in real:
        connection = stock(path)
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
        connection.close()
    orders = {"cow first": ("cow", "cow2", "real0", "real1"),
              "real first": ("real0", "cow", "real1", "cow2"),
              "cow only": ("cow", "cow2", "cow3", "cow4")}
    for title, order in orders.items():
        for mode in ["delete", "persist", "truncate", "memory"]:
            names = [os.path.join(directory, name + ".db") for name in order]
            uris = [f"file:{name}?vfs={'unix' if 'real' in name else 'cow'}" for name in names]
            connection = sqlite3.connect(uris[0], uri=True, isolation_level=None)
            for number, uri in enumerate(uris[1:]):
                connection.execute(f"ATTACH '{uri}' AS d{number}")
            schemas = ["main", "d0", "d1", "d2"]
            for schema in schemas:
                connection.execute(f"PRAGMA {schema}.journal_mode={mode}")
                connection.execute(f"PRAGMA {schema}.cache_size=5")
                connection.execute(f"CREATE TABLE IF NOT EXISTS {schema}.t(id INTEGER PRIMARY KEY,"
                                   " v)")
                connection.execute(f"DELETE FROM {schema}.t")
            connection.execute("BEGIN")
            for schema in schemas:
                connection.execute(f"INSERT INTO {schema}.t VALUES(1, zeroblob(20000))")
            connection.execute("COMMIT")
            # A commit that is refused in the last database undoes all of them.
            blocker = sqlite3.connect(uris[0 if "real" in names[0] else 2], uri=True,
                                      isolation_level=None, timeout=0)
            blocker.execute("BEGIN")
            blocker.execute("SELECT * FROM t").fetchall()
            connection.execute("PRAGMA busy_timeout=0")
            connection.execute("BEGIN")
            for schema in schemas:
                connection.execute(f"INSERT INTO {schema}.t VALUES(2, zeroblob(20000))")
            try:
                connection.execute("COMMIT")
                expected = 2
            except sqlite3.OperationalError as error:
                equal(error.sqlite_errorname, "SQLITE_BUSY")
                connection.execute("ROLLBACK")
                expected = 1
            assert (expected == 1) == ("real" in title or "cow first" == title), title
            blocker.close()
            for schema in schemas:
                equal(one(connection, f"SELECT count(*) FROM {schema}.t"), expected,
                      f"{title} {mode} {schema}")
                equal(one(connection, f"PRAGMA {schema}.integrity_check"), "ok")
            connection.close()
            left = [name for name in os.listdir(directory)
                    if "-mj" in name or (name.startswith("cow"))]
            equal(left, [], f"{title} {mode}: left behind")


@case
def savepoints_spill(directory):
    """Statement journals larger than what SQLite keeps in memory."""
    path, writer = filled(directory, count=3000)
    writer.execute("PRAGMA cache_size=5")
    before = dump(writer)
    writer.execute("BEGIN")
    writer.execute("UPDATE t SET b = zeroblob(700)")
    middle = dump(writer)
    writer.execute("SAVEPOINT a")
    writer.execute("UPDATE t SET b = zeroblob(1700)")
    writer.execute("SAVEPOINT b")
    writer.execute("DELETE FROM t WHERE id % 2")
    writer.execute("ROLLBACK TO b")
    writer.execute("ROLLBACK TO a")
    equal(dump(writer), middle)
    writer.execute("ROLLBACK")
    equal(dump(writer), before)


@case
def shrinking_and_growing(directory):
    """VACUUM gives memory back; what grows again starts from zeroes."""
    path, writer = filled(directory, count=2000)
    pages = one(writer, "PRAGMA page_count")
    writer.execute("DELETE FROM t WHERE id > 10")
    writer.execute("VACUUM")
    assert one(writer, "PRAGMA page_count") < pages / 10
    writer.executemany("INSERT INTO t VALUES(?, ?, ?)",
                       ((i, i * 10, b"y" * 500) for i in range(20, 2000)))
    equal(one(connect(path), "PRAGMA integrity_check"), "ok")


main()
