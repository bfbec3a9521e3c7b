# SPDX-License-Identifier: MIT
"""Random transactions on the VFS and on a stock database file, statement by statement.

Both sides get the same statements through as many connections of their own; each statement must
end the same way: rows, or an error. After every commit-sized chunk the VFS's database is exported
and compared with the stock file: byte for byte, integrity_check, dump.

The bytes are equal as long as no transaction was rolled back: the change counter counts the same
commits on both sides, and version-valid-for follows it. After a rollback they need not be. SQLite
does not journal a free page that it takes into use, since nobody needs its old content; a stock file
keeps there what the transaction wrote, and it shows later in the unused parts of pages that are in
use. The VFS sets every page back. So half of the histories never roll back and are compared byte for
byte throughout; the others until their first rollback, then by length, integrity and dump.

SEED and STEPS in the environment replay and lengthen.
"""

import os
import random
import sqlite3

from support import case, connect, dump, equal, main, one, rows, stock

SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
STEPS = int(os.environ.get("STEPS", 220))
print(f"# SEED={SEED} STEPS={STEPS}")


def run(connection, sql, values):
    """Rows, or the error's name: what the two sides must agree on."""
    try:
        return connection.execute(sql, values).fetchall()
    except sqlite3.Error as error:
        return getattr(error, "sqlite_errorname", type(error).__name__)


class Pair:
    """One connection to each side, which get the same statements."""

    rolled_back = False

    def __init__(self, cow, real, pragmas):
        self.sides = [cow, real]
        for pragma in pragmas:
            self.both(pragma)

    def both(self, sql, *values):
        got, expected = (run(side, sql, values) for side in self.sides)
        assert got == expected, f"{sql} {values!r:.80}: {got!r:.300} is not {expected!r:.300}"
        # Outside of a transaction a failed statement is one that was rolled back.
        if sql == "ROLLBACK" or (isinstance(got, str) and not self.sides[0].in_transaction):
            Pair.rolled_back = True
        return got


def compare(directory, step, cow, real, real_path, rolled_back):
    exported = os.path.join(directory, "exported.db")
    cow.execute("SELECT cow_export(NULL, ?)", (exported,))
    with open(exported, "rb") as one_file, open(real_path, "rb") as other:
        got, expected = one_file.read(), other.read()
    equal(len(got), len(expected), f"step {step}: bytes")
    places = [i for i in range(len(got)) if got[i] != expected[i]] if got != expected else []
    assert rolled_back or not places, f"step {step}: {len(places)} bytes differ: {places[:10]}"
    check = stock(exported)
    equal(one(check, "PRAGMA integrity_check"), "ok", f"step {step}")
    if places:
        equal(dump(check), dump(real), f"step {step}")
    check.close()


def statement(generator):
    """One random statement on tables t (rowid) and w (without rowid)."""
    r = generator.random()
    key = generator.randrange(400)
    blob = generator.randbytes(generator.choice([0, 10, 90, 700, 5000, 20000]))
    if r < 0.30:
        return "INSERT OR REPLACE INTO t(id, k, b) VALUES(?, ?, ?)", key, key % 17, blob
    if r < 0.40:
        return "INSERT INTO t(k, b) VALUES(?, ?)", key % 17, blob
    if r < 0.50:
        return "UPDATE t SET b = ?, k = k + 1 WHERE k = ?", blob, key % 17
    if r < 0.58:
        return "DELETE FROM t WHERE id % 13 = ?", key % 13
    if r < 0.66:
        return "INSERT OR IGNORE INTO w VALUES(?, ?)", f"name{key}", blob[:300]
    if r < 0.70:
        # The last row breaks the constraint: what came before it is undone.
        return "UPDATE w SET name = CASE WHEN name > ? THEN 'zz' ELSE name || 'x' END", f"name{key}"
    if r < 0.74:
        return "INSERT INTO w SELECT 'n' || id, b FROM t WHERE k = ? LIMIT 30", key % 17
    if r < 0.84:
        return "SELECT count(*), sum(k), sum(length(b)) FROM t",
    if r < 0.90:
        return "SELECT name, length(b) FROM w ORDER BY name LIMIT 20",
    if r < 0.93:
        return f"CREATE TABLE IF NOT EXISTS extra{key % 4}(a, b, c)",
    if r < 0.95:
        return f"DROP TABLE IF EXISTS extra{key % 4}",
    if r < 0.97:
        return "CREATE INDEX IF NOT EXISTS t_b ON t(length(b), k)",
    if r < 0.98:
        return "DROP INDEX IF EXISTS t_b",
    return "PRAGMA incremental_vacuum(3)",


def transaction(generator, pair, rollbacks):
    """Statements, with savepoints that are released or rolled back, then a commit or a rollback."""
    depth = 0
    pair.both(generator.choice(["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"]))
    for _ in range(generator.randrange(1, 12)):
        r = generator.random()
        if r < 0.12:
            depth += 1
            pair.both(f"SAVEPOINT s{depth}")
        elif r < 0.20 and depth:
            pair.both(f"ROLLBACK TO s{generator.randrange(1, depth + 1)}")
        elif r < 0.26 and depth:
            pair.both(f"RELEASE s{depth}")
            depth -= 1
        else:
            pair.both(*statement(generator))
    pair.both("ROLLBACK" if rollbacks and generator.random() < 0.25 else "COMMIT")


def history(directory, page_size, auto_vacuum, journal_mode, rollbacks, steps):
    generator = random.Random(f"{SEED} {page_size} {auto_vacuum} {journal_mode}")
    real_path = os.path.join(directory, "real.db")
    cow_path = os.path.join(directory, "cow.db")
    pragmas = [f"PRAGMA page_size={page_size}", f"PRAGMA auto_vacuum={auto_vacuum}",
               f"PRAGMA journal_mode={journal_mode}", "PRAGMA synchronous=OFF",
               # Small, so that transactions spill before they commit.
               f"PRAGMA cache_size={generator.choice([3, 10, 50])}", "PRAGMA cache_spill=2"]
    pairs = []
    for _ in range(3):
        pairs.append(Pair(connect(cow_path), stock(real_path), []))
        for side in pairs[-1].sides:
            for pragma in pragmas:
                side.execute(pragma)
    pairs[0].both("CREATE TABLE t(id INTEGER PRIMARY KEY, k INT, b BLOB)")
    pairs[0].both("CREATE INDEX t_k ON t(k)")
    pairs[0].both("CREATE TABLE w(name TEXT PRIMARY KEY, b BLOB) WITHOUT ROWID")
    Pair.rolled_back = False
    for step in range(steps):
        pair = generator.choice(pairs)
        r = generator.random()
        if r < 0.55:
            transaction(generator, pair, rollbacks)
        elif r < 0.97:
            do = statement(generator)
            if rollbacks or not do[0].startswith(("UPDATE w", "INSERT INTO w")):
                pair.both(*do)
        else:
            pair.both("VACUUM")
        if step % 10 == 9:
            compare(directory, step, *pairs[0].sides, real_path, Pair.rolled_back)
    compare(directory, steps, *pairs[0].sides, real_path, Pair.rolled_back)
    assert rollbacks or not Pair.rolled_back
    equal(dump(pairs[1].sides[0]), dump(pairs[1].sides[1]), "dump")
    for pair in pairs:
        pair.both("PRAGMA integrity_check")
        for side in pair.sides:
            side.close()


def add_case(page_size, auto_vacuum, journal_mode, rollbacks):
    def run_case(directory):
        history(directory, page_size, auto_vacuum, journal_mode, rollbacks, STEPS)
    run_case.__name__ = (f"page_{page_size}_auto_vacuum_{auto_vacuum}_{journal_mode}"
                         f"{'_with_rollbacks' if rollbacks else ''}")
    case(run_case)


for number, size in enumerate([512, 1024, 4096, 8192, 65536]):
    modes = ["delete", "memory", "truncate", "persist", "memory"]
    for with_rollbacks in [False, True]:
        add_case(size, number % 3, modes[number], with_rollbacks)
add_case(512, 1, "delete", True)


@case
def journal_mode_off_commits(directory):
    """Without a journal only commits are promised; they are the same."""
    pair = Pair(connect(os.path.join(directory, "c.db")), stock(os.path.join(directory, "r.db")),
                ["PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF"])
    generator = random.Random(SEED)
    pair.both("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
    for _ in range(100):
        pair.both("INSERT INTO t(b) VALUES(?)", generator.randbytes(2000))
        pair.both("DELETE FROM t WHERE id = ?", generator.randrange(100))
    compare(directory, 0, *pair.sides, os.path.join(directory, "r.db"), False)


@case
def snapshots_hold_every_state(directory):
    """Random commits, each named; later every name still reads what was committed then, also after
    rollbacks to random names, seen through connections with warm caches."""
    generator = random.Random(SEED + 1)
    path = os.path.join(directory, "s.db")
    writers = [connect(path) for _ in range(3)]
    states = {}
    writers[0].execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    for step in range(60):
        writer = generator.choice(writers)
        for _ in range(generator.randrange(1, 5)):
            writer.execute("INSERT OR REPLACE INTO t VALUES(?, ?)",
                           (generator.randrange(300), generator.randbytes(900)))
        if generator.random() < 0.1:
            writer.execute(f"CREATE TABLE u{step}(a)")
        name = f"n{step}"
        writer.execute("SELECT cow_snapshot(?)", (name,))
        states[name] = dump(writer)
        if generator.random() < 0.3:
            back = generator.choice(list(states))
            generator.choice(writers).execute("SELECT cow_rollback(?)", (back,))
            for reader in writers:
                equal(dump(reader), states[back], f"after going back to {back}")
        if generator.random() < 0.2 and len(states) > 3:
            gone = generator.choice(list(states))
            writer.execute("SELECT cow_drop(?)", (gone,))
            del states[gone]
    for name, state in states.items():
        past = connect(path, snapshot=name)
        equal(dump(past), state, name)
        past.execute("PRAGMA mmap_size=100000000")
        equal(one(past, "PRAGMA integrity_check"), "ok", name)
        past.close()
    equal(len(rows(writers[0], "SELECT * FROM cow_snapshots")), len(states))


main()
