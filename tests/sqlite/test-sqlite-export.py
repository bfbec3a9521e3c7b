# SPDX-License-Identifier: MIT
"""Exports: whole or not at all."""

import os
import subprocess
import threading

from support import Skip, case, connect, dump, equal, fails, main, one, stock


def filled(directory, count=3000):
    path = os.path.join(directory, "e.db")
    connection = connect(path)
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
    connection.executemany("INSERT INTO t VALUES(?, ?)",
                           ((i, os.urandom(700)) for i in range(count)))
    return path, connection


@case
def the_present_and_the_past(directory):
    path, writer = filled(directory)
    writer.execute("SELECT cow_snapshot('before')")
    before = dump(writer)
    writer.execute("DELETE FROM t WHERE id % 2")
    out = os.path.join(directory, "out.db")
    for name, expected in [("before", before), (None, dump(writer))]:
        written = one(writer, "SELECT cow_export(?, ?)", name, out)
        equal(os.path.getsize(out), written)
        exported = stock(out)
        equal(dump(exported), expected)
        equal(one(exported, "PRAGMA integrity_check"), "ok")
        exported.close()
    writer.execute(f"ATTACH 'file:{path}?vfs=cow&snapshot=before' AS past")
    writer.execute("SELECT cow_export(NULL, ?, 'past')", (out,))
    equal(dump(stock(out)), before, "a past exports itself")
    equal(sorted(os.listdir(directory)), ["out.db"])


@case
def the_umask_applies(directory):
    writer = filled(directory)[1]
    out = os.path.join(directory, "out.db")
    old = os.umask(0o027)
    try:
        writer.execute("SELECT cow_export(NULL, ?)", (out,))
    finally:
        os.umask(old)
    equal(oct(os.stat(out).st_mode & 0o777), oct(0o640))


@case
def an_old_file_is_replaced_as_a_whole(directory):
    writer = filled(directory)[1]
    out = os.path.join(directory, "out.db")
    old = stock(out)
    old.execute("CREATE TABLE old(a)")
    reader = stock(out)
    one(reader, "SELECT count(*) FROM old")
    writer.execute("SELECT cow_export(NULL, ?)", (out,))
    equal(one(reader, "SELECT count(*) FROM old"), 0, "who had it open goes on with the old file")
    equal(one(stock(out), "SELECT count(*) FROM t"), 3000)


@case
def a_full_disk_leaves_nothing_behind(directory):
    if os.geteuid() != 0:
        raise Skip("mounting a small tmpfs needs root")
    small = os.path.join(directory, "small")
    os.mkdir(small)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small],
                          capture_output=True, check=False)
    if done.returncode:
        raise Skip("a tmpfs cannot be mounted: " + done.stderr.decode().strip())
    try:
        writer = filled(directory)[1]
        out = os.path.join(small, "out.db")
        with open(out, "w", encoding="ascii") as file:
            file.write("what was there")
        with fails("SQLITE_FULL", "No space left on device", "nothing was changed"):
            writer.execute("SELECT cow_export(NULL, ?)", (out,))
        equal(os.listdir(small), ["out.db"])
        with open(out, encoding="ascii") as file:
            equal(file.read(), "what was there")
        equal(one(writer, "PRAGMA integrity_check"), "ok")
        writer.execute("DELETE FROM t")
        writer.execute("VACUUM")
        writer.execute("SELECT cow_export(NULL, ?)", (out,))
        equal(os.listdir(small), ["out.db"])
    finally:
        subprocess.run(["umount", small], check=False)


@case
def bad_paths(directory):
    writer = filled(directory, 10)[1]
    for path in ["''", "NULL"]:
        with fails("SQLITE_ERROR", "path to export to is empty or NULL"):
            writer.execute(f"SELECT cow_export(NULL, {path})")
    with fails("SQLITE_CANTOPEN", "No such file or directory"):
        writer.execute("SELECT cow_export(NULL, ?)", (os.path.join(directory, "no", "x"),))
    os.mkdir(os.path.join(directory, "folder"))
    with fails("SQLITE_CANTOPEN", "Is a directory"):
        writer.execute("SELECT cow_export(NULL, ?)", (os.path.join(directory, "folder"),))
    equal(os.listdir(directory), ["folder"])
    with fails("SQLITE_ERROR", "no snapshot named 'nope'"):
        writer.execute("SELECT cow_export('nope', ?)", (os.path.join(directory, "x"),))


@case
def exports_beside_a_writer_are_consistent(directory):
    path, writer = filled(directory, 2000)
    writer.execute("CREATE TABLE balance(id INTEGER PRIMARY KEY, amount INT)")
    writer.executemany("INSERT INTO balance VALUES(?, 100)", ((i,) for i in range(100)))
    stop = threading.Event()

    def write():
        connection = connect(path)
        number = 0
        while not stop.is_set():
            number += 1
            connection.execute("BEGIN")
            connection.execute("UPDATE balance SET amount = amount - 1 WHERE id = ?",
                               (number % 100,))
            connection.execute("UPDATE balance SET amount = amount + 1 WHERE id = ?",
                               (number * 7 % 100,))
            connection.execute("COMMIT")
        connection.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        out = os.path.join(directory, "out.db")
        for _ in range(10):
            writer.execute("SELECT cow_export(NULL, ?)", (out,))
            exported = stock(out)
            equal(one(exported, "SELECT sum(amount) FROM balance"), 10000)
            equal(one(exported, "PRAGMA integrity_check"), "ok")
            exported.close()
    finally:
        stop.set()
        thread.join()


main()
