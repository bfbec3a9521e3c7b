# SPDX-License-Identifier: MIT
"""cow doctor beside what then happens: Redis's next save, PostgreSQL's settings, a real XFS.

The estimate of a fork's memory is what an earlier save copied, by cow stat; it is compared with what
the next save at the same rate of writes copies. So that "the same rate" means something on a busy
machine, the child of a save is stopped until the writes are done.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time

from support import COW, Skip, case, free_port, main, program, wait_until


def doctor(*words, most=2):
    done = subprocess.run([COW, "doctor", "--json", *map(str, words)], capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.returncode <= most, (done.returncode, done.stderr)
    return json.loads(done.stdout)


@contextlib.contextmanager
def running(*words, **options):
    process = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


class Redis:
    """A server of 30 MB, its port, and saves with a known number of writes."""

    def __init__(self, path, port, pid):
        self.path, self.port, self.pid = path, port, pid
        self.client, self.load = program("redis-cli"), program("redis-benchmark")

    def ask(self, *words):
        return subprocess.run([self.client, "-p", str(self.port), *words], capture_output=True,
                              text=True, check=False).stdout.strip()

    def info(self, key):
        found = re.search(rf"^{key}:(\S+)", self.ask("INFO"), re.M)
        return found and int(found.group(1))

    def write(self, count):
        subprocess.run([self.load, "-p", str(self.port), "-q", "-t", "set", "-d", "1000", "-P", "16",
                        "-r", "20000", "-n", str(count)], check=True, stdout=subprocess.DEVNULL)

    def save(self, writes):
        """The report of cow stat for one save with so many writes, and what Redis says."""
        report = os.path.join(self.path, "stat.json")
        watch = subprocess.Popen([COW, "stat", "--backend", "bpf", "--json", report, "-o", "/dev/null",
                                  "-p", str(self.pid)], stderr=subprocess.PIPE, text=True)
        try:
            # It has no way to say that it began: this is many times what it takes.
            time.sleep(1)
            if watch.poll() is not None:
                raise Skip(watch.stderr.read().strip() or "the bpf backend does not work here")
            self.ask("BGSAVE")
            child = wait_until("a save", lambda: children(self.pid))[0]
            os.kill(child, signal.SIGSTOP)
            try:
                self.write(writes)
            finally:
                os.kill(child, signal.SIGCONT)
            wait_until("the end of the save", lambda: self.info("rdb_bgsave_in_progress") == 0)
        finally:
            watch.send_signal(signal.SIGINT)
            watch.communicate(timeout=30)
        with open(report, encoding="utf-8") as file:
            return json.load(file), report


@contextlib.contextmanager
def redis():
    server = program("redis-server")
    with tempfile.TemporaryDirectory() as path:
        port = free_port()
        with running(server, "--port", port, "--dir", path, "--save", "", "--bind",
                     "127.0.0.1") as process:
            store = Redis(path, port, process.pid)
            wait_until("Redis", lambda: store.ask("PING") == "PONG")
            store.write(80000)
            yield store


def save_twice(rate):
    if os.geteuid() != 0:
        raise Skip("the bpf backend needs root")
    with redis() as store:
        first, path = store.save(rate)
        assert first["forks"] == 1, first["forks"]
        fork = doctor("--pid", store.pid, "--earlier", path)["fork"]
        copied = store.save(rate)[0]["cow"]["copied_bytes"]
        reported = store.info("rdb_last_cow_size")
    estimate = fork["estimated_bytes"]
    print(f"# {rate} writes: estimate {estimate >> 10} KiB, then {copied >> 10} KiB were copied "
          f"({100 * (estimate - copied) / copied:+.1f} %), Redis says {reported >> 10} KiB, "
          f"at worst {fork['worst_bytes'] >> 10} KiB")
    assert abs(estimate - copied) <= 0.15 * copied, (estimate, copied)
    assert copied <= fork["worst_bytes"], (copied, fork)


@case
def redis_with_few_writes():
    save_twice(1000)


@case
def redis_with_many_writes():
    save_twice(10000)


@case
def redis_while_it_saves():
    """A child that lives tells how much was copied so far: an upper bound."""
    if os.geteuid() != 0:
        raise Skip("needs frame numbers: CAP_SYS_ADMIN")
    with redis() as store:
        store.ask("BGSAVE")
        child = wait_until("a save", lambda: children(store.pid))[0]
        os.kill(child, signal.SIGSTOP)
        try:
            before = doctor("--pid", store.pid)["fork"]["estimated_bytes"]
            store.write(3000)
            fork = doctor("--pid", store.pid)["fork"]
        finally:
            os.kill(child, signal.SIGCONT)
        wait_until("the end of the save", lambda: store.info("rdb_bgsave_in_progress") == 0)
        copied = store.info("rdb_last_cow_size")
    print(f"# {before >> 10} KiB before the writes, {fork['estimated_bytes'] >> 10} KiB after, "
          f"Redis says {copied >> 10} KiB")
    assert before < fork["estimated_bytes"] <= fork["worst_bytes"], (before, fork)
    assert fork["estimated_bytes"] >= 0.7 * copied, (fork, copied)


def settings(report, check):
    return [each for each in report["findings"] if each["id"] == check]


@case
def postgresql():
    """The settings of a server that runs are those that it tells itself."""
    initdb, server = program("initdb"), program("postgres")
    owner = 65534 if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as path:
        data = os.path.join(path, "data")
        if owner:
            os.chown(path, owner, -1)
        done = subprocess.run([initdb, "-D", data, "-A", "trust", "-U", "postgres", "-N"], user=owner,
                              cwd=path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with open(os.path.join(data, "postgresql.conf"), "a", encoding="ascii") as file:
            file.write("\nshared_buffers = 24MB\neffective_cache_size = 1GB\n")
        with running(server, "-D", data, "-k", path, "-h", "", "-c", "effective_cache_size=96MB",
                     user=owner, cwd=path) as process:
            psql = [program("psql"), "-h", path, "-U", "postgres", "-At", "-c"]

            def ask(text):
                return subprocess.run([*psql, text], capture_output=True, text=True,
                                      check=False).stdout.strip()
            wait_until("PostgreSQL", lambda: ask("select 1") == "1")
            told = ask("show shared_buffers"), ask("show effective_cache_size")
            found = [each for each in settings(doctor(), "postgresql")
                     if each["value"].startswith(f"{process.pid}:")]
    assert told == ("24MB", "96MB"), told
    assert len(found) == 1, found
    assert "shared_buffers 24 MiB, effective_cache_size 96 MiB" in found[0]["value"], found


XFS = r"""
set -e
cd "$1"
truncate -s 320M image
mkfs.xfs -q -f image
mkdir disk
mount -o loop image disk
"$COW" doctor --json >before || [ $? -le 2 ]
xfs_io -c 'cowextsize 1m' disk
"$COW" doctor --json >after || [ $? -le 2 ]
"""


@case
def xfs():
    """The hint of a mounted XFS: the default, then what was set."""
    program("mkfs.xfs"), program("xfs_io")
    if os.geteuid() != 0:
        raise Skip("mounting needs root")
    with tempfile.TemporaryDirectory() as path:
        done = subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", XFS, "sh",
                               path], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode and not os.path.exists(os.path.join(path, "before")):
            raise Skip("no XFS can be mounted here: " + " ".join(done.stderr.split())[:200])
        assert done.returncode == 0, done.stderr
        values = []
        for name in "before", "after":
            with open(os.path.join(path, name), encoding="utf-8") as file:
                values += [each["value"] for each in settings(json.load(file), "xfs")
                           if each["value"].startswith(os.path.join(path, "disk")[:60])]
    assert len(values) == 2, values
    assert "cowextsize default (32 blocks)" in values[0], values
    assert "cowextsize 1 MiB" in values[1], values


main()
