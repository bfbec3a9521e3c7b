# SPDX-License-Identifier: MIT
"""What is loaded from a real file, and that real files stay as they are."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time

from support import EXTENSION, case, connect, dump, equal, fails, main, one, rows, stock


def files(directory):
    """Names and contents: what must not change."""
    found = {}
    for name in sorted(os.listdir(directory)):
        with open(os.path.join(directory, name), "rb") as file:
            found[name] = file.read()
    return found


def filled(directory, *pragmas, count=500):
    path = os.path.join(directory, "real.db")
    connection = stock(path)
    for pragma in pragmas:
        connection.execute(pragma)
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO t VALUES(?, ?)",
                           ((i, b"q" * 200) for i in range(count)))
    connection.execute("COMMIT")
    return path, connection


def run_python(code, *arguments):
    """A process that ends itself as code says."""
    return subprocess.run([sys.executable, "-c", code, *arguments], check=False).returncode


@case
def a_file_is_loaded_and_never_written(directory):
    for page_size in [512, 4096, 65536]:
        path, real = filled(directory, f"PRAGMA page_size={page_size}")
        expected = dump(real)
        real.close()
        before = files(directory)
        cow = connect(path)
        equal(one(cow, "PRAGMA page_size"), page_size)
        equal(dump(cow), expected)
        cow.execute("DELETE FROM t WHERE id > 10")
        cow.execute("CREATE TABLE more(a)")
        cow.execute("VACUUM")
        second = connect(path)
        equal(dump(second), dump(cow), "the second connection shares it")
        second.close()
        cow.close()
        equal(files(directory) == before, True, "the real file")
        again = connect(path)
        equal(dump(again), expected, "loaded anew after the last connection closed")
        again.close()
        os.unlink(path)


@case
def a_write_ahead_log_is_taken_into_account(directory):
    path, real = filled(directory, "PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0")
    real.execute("DELETE FROM t WHERE id < 100")
    expected = dump(real)
    before = {name: content for name, content in files(directory).items() if "shm" not in name}
    assert len(before["real.db-wal"]) > 10000, "frames that are not checkpointed"
    cow = connect(path)
    equal(dump(cow), expected)
    equal(one(cow, "PRAGMA integrity_check"), "ok")
    cow.execute("DELETE FROM t")
    cow.execute("PRAGMA journal_mode=WAL")
    cow.execute("INSERT INTO t VALUES(1, 2)")
    equal(rows(connect(path), "SELECT * FROM t"), [(1, 2)])
    after = {name: content for name, content in files(directory).items() if "shm" not in name}
    equal(after == before, True, "the real file and its log")
    out = os.path.join(directory, "out.db")
    cow.execute("SELECT cow_export(NULL, ?)", (out,))
    with open(out, "rb") as file:
        equal(file.read(20)[18:20], b"\1\1", "no log is looked for")
    real.close()


@case
def a_log_that_a_crash_left(directory):
    path, real = filled(directory, "PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0")
    real.execute("DELETE FROM t WHERE id < 100")
    expected = dump(real)
    crashed = os.path.join(directory, "crashed")
    os.mkdir(crashed)
    for name in ["real.db", "real.db-wal"]:
        shutil.copy(os.path.join(directory, name), crashed)
    before = files(crashed)
    equal(dump(connect(os.path.join(crashed, "real.db"))), expected)
    after = files(crashed)
    equal(all(after[name] == before[name] for name in before), True)


HOT = """
import os, sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("PRAGMA cache_size=5")
c.execute("BEGIN")
c.execute("UPDATE t SET b = zeroblob(3000)")
os._exit(0)
"""


@case
def a_hot_journal_is_rolled_back_as_sqlite_does(directory):
    path, real = filled(directory)
    expected = dump(real)
    real.close()
    equal(run_python(HOT, path), 0)
    assert os.path.getsize(path + "-journal") > 0, "the crash left a journal"
    equal(dump(connect(path)), expected)
    equal(os.listdir(directory), ["real.db"], "recovered, as any reader does it")
    equal(dump(stock(path)), expected)


@case
def journals_beside_the_real_file_are_not_ours(directory):
    """Made after loading: neither replayed into memory nor deleted."""
    path, real = filled(directory)
    expected = dump(real)
    real.close()
    cow = connect(path)
    equal(run_python(HOT, path), 0)
    before = files(directory)
    for mode in ["delete", "truncate", "persist", "memory"]:
        cow.execute(f"PRAGMA journal_mode={mode}")
        cow.execute("PRAGMA cache_size=5")
        cow.execute("BEGIN")
        cow.execute("UPDATE t SET b = zeroblob(2000)")
        cow.execute("ROLLBACK")
        other = connect(path)
        equal(dump(other), expected, mode)
        cow.execute("DELETE FROM t WHERE id = 1")
        cow.execute("INSERT INTO t VALUES(1, ?)", (b"q" * 200,))
        equal(dump(other), expected, mode)
        other.close()
    with fails("SQLITE_CANTOPEN", "real.db-journal exists"):
        cow.execute("SELECT cow_export(NULL, ?)", (path,))
    equal(files(directory) == before, True)
    with open(path + "-wal", "wb") as file:
        file.write(b"something")
    equal(dump(connect(path)), expected)
    equal(os.path.exists(path + "-wal"), True)


@case
def what_is_no_database(directory):
    path = os.path.join(directory, "text")
    with open(path, "w", encoding="ascii") as file:
        file.write("this is not a database, however long it may be. " * 100)
    with fails("SQLITE_NOTADB"):
        connect(path).execute("SELECT * FROM sqlite_master")
    with fails("SQLITE_CANTOPEN"):
        connect(directory).execute("SELECT * FROM sqlite_master")
    with fails("SQLITE_CANTOPEN"):
        connect(os.path.join(directory, "none.db"), mode="rw")
    empty = os.path.join(directory, "empty.db")
    with open(empty, "wb"):
        pass
    cow = connect(empty)
    cow.execute("PRAGMA page_size=1024")
    cow.execute("CREATE TABLE t(a)")
    equal(one(cow, "PRAGMA page_size"), 1024)


@case
def a_file_that_another_process_writes(directory):
    path, real = filled(directory)
    real.execute("PRAGMA locking_mode=EXCLUSIVE")
    real.execute("BEGIN EXCLUSIVE")
    code = """
import sqlite3, sys
c = sqlite3.connect(":memory:"); c.enable_load_extension(True); c.load_extension(sys.argv[2])
d = sqlite3.connect(f"file:{sys.argv[1]}?vfs=cow", uri=True)
sys.exit(0 if d.execute("SELECT count(*) FROM t").fetchone()[0] == 500 else 1)
"""
    process = subprocess.Popen([sys.executable, "-c", code, path, EXTENSION])
    time.sleep(0.4)
    equal(process.poll(), None, "loading waits for the writer in another process")
    real.execute("COMMIT")
    real.close()
    equal(process.wait(), 0)


@case
def many_threads_open_at_once(directory):
    path, real = filled(directory, count=3000)
    real.close()
    counts, barrier = [], threading.Barrier(8)

    def open_it():
        barrier.wait()
        connection = connect(path)
        counts.append(one(connection, "SELECT count(*) FROM t"))
        connection.close()

    for _ in range(5):
        threads = [threading.Thread(target=open_it) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    equal(counts, [3000] * 40)


@case
def the_same_path_by_another_name(directory):
    path, real = filled(directory)
    real.close()
    link = os.path.join(directory, "link.db")
    os.symlink(path, link)
    one_way = connect(path)
    another = connect(os.path.join(directory, "..", os.path.basename(directory), "link.db"))
    one_way.execute("DELETE FROM t")
    equal(one(another, "SELECT count(*) FROM t"), 0)


TORN = """
import sqlite3, sys
c = sqlite3.connect(":memory:"); c.enable_load_extension(True); c.load_extension(sys.argv[1])
c = sqlite3.connect(f"file:{sys.argv[2]}/cow.db?vfs=cow", uri=True, isolation_level=None)
c.execute("CREATE TABLE t(v)"); c.execute("INSERT INTO t VALUES(0)")
for name in "ab":
    c.execute(f"ATTACH 'file:{sys.argv[2]}/{name}.db?vfs=unix' AS {name}")
    c.execute(f"PRAGMA {name}.cache_size=5")
print("go", flush=True)
while True:
    c.execute("BEGIN")
    for schema in ["main", "a", "b"]:
        c.execute(f"UPDATE {schema}.t SET v = v + 1")
    c.execute("COMMIT")
"""


@case
def a_crash_does_not_tear_real_files_in_one_transaction(directory):
    """The super-journal has to be on disk where real files take part: kill, and compare them."""
    for name in "ab":
        connection = stock(os.path.join(directory, f"{name}.db"))
        connection.execute("CREATE TABLE t(v, b)")
        connection.execute("INSERT INTO t VALUES(0, zeroblob(100000))")
        connection.close()
    total = 0
    for attempt in range(12):
        process = subprocess.Popen([sys.executable, "-c", TORN, EXTENSION, directory],
                                   stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.02 + 0.007 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        values = [one(stock(os.path.join(directory, f"{name}.db")), "SELECT v FROM t")
                  for name in "ab"]
        equal(values[0], values[1], f"attempt {attempt}")
        total = values[0]
    assert total > 0
    print(f"# {total} commits over 12 kills")


main()
