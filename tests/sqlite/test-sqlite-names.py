# SPDX-License-Identifier: MIT
"""Snapshots, time travel, branches and rollback by name, and what is said when one cannot be."""

import os
import sqlite3

from support import case, connect, dump, equal, fails, main, one, rows, stock


def filled(directory, name="n.db"):
    path = os.path.join(directory, name)
    connection = connect(path)
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    connection.executemany("INSERT INTO t VALUES(?, ?)", ((i, b"z" * 300) for i in range(300)))
    return path, connection


@case
def time_travel_while_the_writer_goes_on(directory):
    path, writer = filled(directory)
    equal(one(writer, "SELECT cow_snapshot('noon')"), "noon")
    reader = connect(path)
    reader.execute(f"ATTACH 'file:{path}?vfs=cow&snapshot=noon' AS past")
    for i in range(20):
        writer.execute("DELETE FROM t WHERE id = ?", (i,))
        equal(one(reader, "SELECT count(*) FROM past.t"), 300)
        equal(one(reader, "SELECT count(*) FROM main.t"), 299 - i)
    equal(one(reader, "SELECT count(*) FROM past.t p LEFT JOIN main.t m USING(id) "
                      "WHERE m.id IS NULL"), 20)
    with fails("SQLITE_READONLY"):
        reader.execute("DELETE FROM past.t")
    with fails("SQLITE_READONLY"):
        reader.execute("CREATE TABLE past.x(a)")
    main_past = connect(path, snapshot="noon")
    main_past.execute("PRAGMA mmap_size=1000000000")
    equal(one(main_past, "SELECT count(*) FROM t"), 300)
    equal(one(main_past, "PRAGMA integrity_check"), "ok")
    immutable = connect(path, snapshot="noon", immutable=1)
    equal(one(immutable, "SELECT count(*) FROM t"), 300)


@case
def the_list_of_snapshots(directory):
    path, writer = filled(directory)
    writer.execute("SELECT cow_snapshot('a'), cow_snapshot('b')")
    writer.execute("UPDATE t SET v = 1")
    writer.execute("SELECT cow_snapshot('c')")
    found = rows(writer, "SELECT name, time, shared_bytes, private_bytes FROM cow_snapshots")
    equal([row[0] for row in found], ["a", "b", "c"])
    for _, time, shared, private in found:
        assert one(writer, "SELECT abs(julianday(?) - julianday('now')) < 1", time), time
        assert shared >= 0 and private >= 0
    assert sum(row[2] + row[3] for row in found) > 0
    equal(one(writer, "SELECT database_bytes FROM cow_snapshots WHERE name = 'a'"),
          4096 * one(connect(path, snapshot="a"), "PRAGMA page_count"))
    other = connect(os.path.join(directory, "other.db"))
    other.execute(f"ATTACH 'file:{path}?vfs=cow' AS main2")
    equal(len(rows(other, "SELECT * FROM cow_snapshots('main2')")), 3)
    equal(len(rows(other, "SELECT * FROM cow_snapshots WHERE schema = 'main2'")), 3)
    equal(len(rows(other, "SELECT * FROM cow_snapshots")), 0)
    equal(one(other, "SELECT cow_snapshot('d', 'main2')"), "d")
    equal(len(rows(writer, "SELECT * FROM cow_snapshots")), 4)
    with fails("SQLITE_ERROR", "no schema named 'nope'"):
        rows(other, "SELECT * FROM cow_snapshots('nope')")


@case
def branches_diverge(directory):
    path, trunk = filled(directory)
    trunk.execute("SELECT cow_snapshot('base')")
    uris = [one(trunk, "SELECT cow_branch('base', ?)", f"b{i}") for i in range(4)]
    branches = [sqlite3.connect(uri, uri=True, isolation_level=None) for uri in uris]
    for number, branch in enumerate(branches):
        branch.execute("UPDATE t SET v = ?", (number,))
        branch.execute("DELETE FROM t WHERE id < ?", (number,))
    trunk.execute("DELETE FROM t WHERE id < 100")
    for number, branch in enumerate(branches):
        equal(one(branch, "SELECT count(*) FROM t WHERE v = ?", number), 300 - number)
        equal(one(branch, "PRAGMA integrity_check"), "ok")
    equal(one(trunk, "SELECT count(*) FROM t"), 200)
    # A second connection to a branch shares it, and a branch has snapshots and branches of its own.
    second = connect(path, branch="b2")
    equal(dump(second), dump(branches[2]))
    second.execute("SELECT cow_snapshot('base')")
    second.execute("DELETE FROM t")
    uri = one(second, "SELECT cow_branch('base', 'twig')")
    twig = sqlite3.connect(uri, uri=True, isolation_level=None)
    equal(one(twig, "SELECT count(*) FROM t"), 298)
    equal(one(branches[2], "SELECT count(*) FROM t"), 0)
    past = connect(path, branch="b2", snapshot="base")
    equal(one(past, "SELECT count(*) FROM t"), 298)
    equal(rows(trunk, "SELECT name, snapshot, opens FROM cow_branches ORDER BY name"),
          [("b0", "base", 1), ("b1", "base", 1), ("b2", "base", 3), ("b3", "base", 1),
           ("twig", "base", 1)])
    with fails("SQLITE_BUSY", "branch 'b2' is open"):
        trunk.execute("SELECT cow_drop('b2')")
    second.close()
    past.close()
    branches[2].close()
    with fails("SQLITE_BUSY", "with branches of its own"):
        trunk.execute("SELECT cow_drop('b2')")
    with fails("SQLITE_BUSY", "has 4 branch(es)"):
        trunk.execute("SELECT cow_drop('base')")
    twig.close()
    for name in ["twig", "b2"]:
        trunk.execute("SELECT cow_drop(?)", (name,))
    for number in [0, 1, 3]:
        branches[number].close()
        trunk.execute("SELECT cow_drop(?)", (f"b{number}",))
    trunk.execute("SELECT cow_drop('base')")
    equal(rows(trunk, "SELECT * FROM cow_branches"), [])


@case
def a_branch_outlives_the_connections_of_its_trunk(directory):
    path, trunk = filled(directory)
    trunk.execute("SELECT cow_snapshot('base'), cow_branch('base', 'b')")
    branch = connect(path, branch="b")
    trunk.close()
    equal(one(branch, "SELECT count(*) FROM t"), 300)
    again = connect(path)
    equal(one(again, "SELECT count(*) FROM t"), 300, "the family is still there")
    again.close()
    branch.close()
    equal(rows(connect(path), "SELECT name FROM sqlite_master"), [], "gone with the last one")


@case
def rollback_reaches_warm_caches(directory):
    """Two histories with equal counts of changes and equal sizes: no cache may mix them."""
    path, first = filled(directory)
    second = connect(path)
    first.execute("SELECT cow_snapshot('fork')")
    for history in range(6):
        writer, other = (first, second) if history % 2 else (second, first)
        writer.execute("UPDATE t SET v = ? WHERE id = 5", (history,))
        # Different schemas under what would be the same cookie.
        writer.execute(f"CREATE TABLE x{history}(a{history}, b)")
        writer.execute(f"INSERT INTO x{history} VALUES({history}, 1)")
        equal(one(other, f"SELECT a{history} FROM x{history}"), history)
        equal(one(other, "SELECT v FROM t WHERE id = 5"), history)
        if history % 3 != 2:
            other.execute("SELECT cow_rollback('fork')")
            for connection in [first, second]:
                equal(one(connection, "SELECT v FROM t WHERE id = 5"), b"z" * 300)
                with fails("SQLITE_ERROR", "no such table"):
                    connection.execute(f"SELECT * FROM x{history}")
                equal(one(connection, "PRAGMA integrity_check"), "ok")


@case
def rollback_reaches_schemas_that_slept(directory):
    """A connection that was idle throughout must not take the new schema for the one it knows, though
    both were made by one statement after the same snapshot."""
    path, writer = filled(directory)
    sleeper = connect(path)
    writer.execute("SELECT cow_snapshot('fork')")
    writer.execute("CREATE TABLE x(old, b)")
    writer.execute("INSERT INTO x VALUES(1, 2)")
    equal(rows(sleeper, "SELECT old FROM x"), [(1,)])
    writer.execute("SELECT cow_rollback('fork')")
    writer.execute("CREATE TABLE y(new)")
    writer.execute("INSERT INTO y VALUES(7)")
    with fails("SQLITE_ERROR", "no such table: x"):
        sleeper.execute("SELECT old FROM x")
    equal(rows(sleeper, "SELECT new FROM y"), [(7,)])
    sleeper.execute("INSERT INTO y VALUES(8)")
    equal(one(writer, "PRAGMA integrity_check"), "ok")


@case
def rollback_to_an_empty_database(directory):
    path = os.path.join(directory, "e.db")
    first, second = connect(path), connect(path)
    first.execute("SELECT cow_snapshot('empty')")
    for name in ["a", "b", "c"]:
        first.execute(f"CREATE TABLE {name}({name})")
        first.execute(f"INSERT INTO {name} VALUES('{name}')")
        equal(one(second, f"SELECT {name} FROM {name}"), name)
        second.execute("SELECT cow_rollback('empty')")
        equal(rows(first, "SELECT * FROM sqlite_master"), [])
        equal(rows(second, "SELECT * FROM sqlite_master"), [])
    equal(one(first, "SELECT cow_export('empty', ?)", os.path.join(directory, "out")), 0)
    equal(os.path.getsize(os.path.join(directory, "out")), 0)


@case
def rollback_leaves_readers_and_snapshots_alone(directory):
    path, writer = filled(directory)
    writer.execute("SELECT cow_snapshot('old')")
    writer.execute("DELETE FROM t WHERE id < 50")
    writer.execute("SELECT cow_snapshot('new')")
    reader = connect(path)
    reader.execute("BEGIN")
    equal(one(reader, "SELECT count(*) FROM t"), 250)
    past = connect(path, snapshot="new")
    writer.execute("SELECT cow_rollback('old')")
    equal(one(reader, "SELECT count(*) FROM t"), 250)
    equal(one(past, "SELECT count(*) FROM t"), 250)
    equal(one(writer, "SELECT count(*) FROM t"), 300)
    with fails("SQLITE_BUSY_SNAPSHOT"):
        reader.execute("DELETE FROM t")
    reader.execute("COMMIT")
    equal(one(reader, "SELECT count(*) FROM t"), 300)
    writer.execute("SELECT cow_rollback('new')")
    equal(one(reader, "SELECT count(*) FROM t"), 250)


@case
def change_counters_only_go_up(directory):
    path, writer = filled(directory)
    exported = os.path.join(directory, "out.db")

    def counter():
        writer.execute("SELECT cow_export(NULL, ?)", (exported,))
        with open(exported, "rb") as file:
            header = file.read(100)
        equal(header[24:28], header[92:96], "version-valid-for follows")
        return int.from_bytes(header[24:28], "big")

    writer.execute("SELECT cow_snapshot('s')")
    seen = [counter()]
    for _ in range(5):
        writer.execute("UPDATE t SET v = 1 WHERE id = 1")
        seen.append(counter())
        writer.execute("SELECT cow_rollback('s')")
        seen.append(counter())
    equal(seen, sorted(set(seen)))


@case
def schema_version_is_kept_when_the_schema_is(directory):
    path, writer = filled(directory)
    version = one(writer, "PRAGMA schema_version")
    writer.execute("SELECT cow_snapshot('s')")
    writer.execute("DELETE FROM t")
    writer.execute("SELECT cow_rollback('s')")
    equal(one(writer, "PRAGMA schema_version"), version)


@case
def bad_names(directory):
    path, writer = filled(directory)
    writer.execute("SELECT cow_snapshot('s'), cow_branch('s', 'b')")
    for function in ["snapshot", "drop", "rollback"]:
        for name in ["''", "NULL"]:
            with fails("SQLITE_ERROR", f"cow_{function}: a name must not be empty"):
                writer.execute(f"SELECT cow_{function}({name})")
        with fails("SQLITE_ERROR", "at most 255 bytes"):
            writer.execute(f"SELECT cow_{function}(hex(zeroblob(128)))")
    for taken in ["s", "b"]:
        with fails("SQLITE_ERROR", f"named '{taken}' exists", f"cow_drop('{taken}')"):
            writer.execute("SELECT cow_snapshot(?)", (taken,))
        with fails("SQLITE_ERROR", f"named '{taken}' exists"):
            writer.execute("SELECT cow_branch('s', ?)", (taken,))
    with fails("SQLITE_ERROR", "no snapshot named 'nope'", "cow_snapshots lists them"):
        writer.execute("SELECT cow_rollback('nope')")
    with fails("SQLITE_ERROR", "no snapshot named 'nope'"):
        writer.execute("SELECT cow_branch('nope', 'x')")
    with fails("SQLITE_ERROR", "is NULL"):
        writer.execute("SELECT cow_branch(NULL, 'x')")
    with fails("SQLITE_ERROR", "no snapshot or branch named 'nope'"):
        writer.execute("SELECT cow_drop('nope')")
    with fails("SQLITE_ERROR", "no snapshot named 'b'"):
        writer.execute("SELECT cow_rollback('b')")
    with fails("SQLITE_ERROR", "no schema named 'nope'", "database_list"):
        writer.execute("SELECT cow_snapshot('x', 'nope')")
    for odd in ["a b", "ü", "100%", "a&b=c#d?e", "it's", "../x", "a+b"]:
        writer.execute("SELECT cow_snapshot(?)", ("of " + odd,))
        uri = one(writer, "SELECT cow_branch(?, ?)", "of " + odd, odd)
        equal(one(sqlite3.connect(uri, uri=True), "SELECT count(*) FROM t"), 300, uri)


@case
def unknown_snapshots_cannot_be_opened(directory):
    path, writer = filled(directory)
    for parameters in [{"snapshot": "nope"}, {"branch": "nope"}, {"branch": "x", "snapshot": "y"}]:
        with fails("SQLITE_CANTOPEN"):
            connect(path, **parameters).execute("SELECT 1 FROM sqlite_master")
    with fails("SQLITE_CANTOPEN"):
        connect(os.path.join(directory, "never.db"), snapshot="s")
    with fails("SQLITE_CANTOPEN", "unable to open database"):
        writer.execute(f"ATTACH 'file:{path}?vfs=cow&snapshot=nope' AS past")
    for parameters in [{"nolock": 1}, {"immutable": 1}, {"reserve": "many"}, {"reserve": "99999T"}]:
        with fails("SQLITE_CANTOPEN"):
            connect(path, **parameters)


@case
def an_open_transaction_of_the_caller(directory):
    path, writer = filled(directory)
    writer.execute("SELECT cow_snapshot('s')")
    for begin in ["BEGIN", "BEGIN IMMEDIATE", "SAVEPOINT s"]:
        writer.execute(begin)
        for call in ["cow_snapshot('x')", "cow_rollback('s')"]:
            with fails("SQLITE_ERROR", "transaction of this connection is open", "COMMIT"):
                writer.execute(f"SELECT {call}")
        writer.execute("ROLLBACK")
    with fails("SQLITE_ERROR", "finish its statements"):
        writer.execute("SELECT cow_rollback('s') FROM t")
    writer.execute("BEGIN")
    writer.execute("DELETE FROM t")
    with fails("SQLITE_ERROR", "changes that are not committed"):
        writer.execute("SELECT cow_export(NULL, ?)", (os.path.join(directory, "x"),))
    writer.execute("ROLLBACK")
    with fails("SQLITE_ERROR"):
        writer.execute("CREATE TABLE log AS SELECT cow_snapshot('x')")
    equal(rows(writer, "SELECT name FROM cow_snapshots"), [("s",)])
    equal(one(writer, "SELECT count(*) FROM t"), 300)


@case
def a_busy_writer(directory):
    path, writer = filled(directory)
    other = connect(path)
    writer.execute("SELECT cow_snapshot('s')")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM t")
    with fails("SQLITE_BUSY", "another connection is writing"):
        other.execute("SELECT cow_rollback('s')")
    # The committed state can be named and exported beside a writer.
    other.execute("SELECT cow_snapshot('during')")
    other.execute("SELECT cow_export(NULL, ?)", (os.path.join(directory, "x"),))
    writer.execute("COMMIT")
    equal(one(connect(path, snapshot="during"), "SELECT count(*) FROM t"), 300)
    equal(one(stock(os.path.join(directory, "x")), "SELECT count(*) FROM t"), 300)


@case
def in_use(directory):
    path, writer = filled(directory)
    writer.execute("SELECT cow_snapshot('s')")
    writer.execute(f"ATTACH 'file:{path}?vfs=cow&snapshot=s' AS past")
    with fails("SQLITE_BUSY", "snapshot 's' is open", "DETACH"):
        writer.execute("SELECT cow_drop('s')")
    for call in ["cow_snapshot('x', 'past')", "cow_rollback('s', 'past')", "cow_drop('s', 'past')",
                 "cow_branch('s', 'x', 'past')"]:
        with fails("SQLITE_READONLY", "is a snapshot"):
            writer.execute(f"SELECT {call}")
    writer.execute("DETACH past")
    equal(one(writer, "SELECT cow_drop('s')"), "s")


@case
def not_a_cow_database(directory):
    for connection in [sqlite3.connect(":memory:"), stock(os.path.join(directory, "real.db"))]:
        for call in ["cow_snapshot('x')", "cow_rollback('x')", "cow_drop('x')",
                     "cow_branch('x', 'y')", "cow_export(NULL, 'x')"]:
            with fails("SQLITE_ERROR", "'main' is not a cow database", "file:PATH?vfs=cow"):
                connection.execute(f"SELECT {call}")
        for table in ["cow_snapshots", "cow_branches"]:
            with fails("SQLITE_ERROR", "not a cow database"):
                connection.execute(f"SELECT * FROM {table}")


@case
def not_from_triggers_and_views(directory):
    path, writer = filled(directory)
    writer.execute("CREATE VIEW v AS SELECT cow_snapshot('x')")
    with fails("SQLITE_ERROR", "unsafe use of cow_snapshot"):
        writer.execute("SELECT * FROM v")
    writer.execute("CREATE TRIGGER g AFTER DELETE ON t BEGIN SELECT cow_drop('x'); END")
    with fails("SQLITE_ERROR", "unsafe use of cow_drop"):
        writer.execute("DELETE FROM t")


@case
def every_later_connection_has_the_functions(directory):
    assert one(sqlite3.connect(":memory:"), "SELECT cow_version()").count(".") == 2


main()
