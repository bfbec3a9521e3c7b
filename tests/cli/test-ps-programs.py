#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""cow ps over programs that people run: equal to the kernel's smaps_rollup, to the kilobyte.

Redis with a BGSAVE child, PostgreSQL backends, nginx workers, a preforking Python program, and
processes in two overlay mounts over one lower layer. A program that is not installed is skipped.
ps-compare does the comparison; here the sums that only cow ps knows are looked at, too.
"""
import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from support import COW, Skip, case, free_port, main, program, wait_until

COMPARE = os.environ["PS_COMPARE"]


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def start(*words, **options):
    return subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            preexec_fn=die_with_parent, **options)


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def compare(pids):
    done = subprocess.run([COMPARE] + [str(pid) for pid in sorted(pids)], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def ps(*words):
    done = subprocess.run([COW, "ps", "--json", *[str(word) for word in words]],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(pids, top):
    """The tree of a program, against the kernel and against itself."""
    compare(pids)
    tree = ps("--tree", top)
    assert {row["pid"] for row in tree["processes"]} >= set(pids), tree
    total = tree["total"]
    assert total["pss_bytes"] <= total["unique_bytes"] + 4096, total
    assert total["unique_bytes"] <= total["rss_bytes"], total
    assert total["shared_outside_bytes"] <= total["unique_bytes"], total
    return tree


@contextlib.contextmanager
def directory(owner=None):
    path = tempfile.mkdtemp(prefix="cow-ps-")
    try:
        if owner is not None:
            os.chown(path, owner, -1)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def stop(process):
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@case
def redis_with_bgsave():
    server, client = program("redis-server"), program("redis-cli")
    with directory() as path:
        address = f"{path}/redis.sock"
        process = start(server, "--port", 0, "--unixsocket", address, "--dir", path, "--save", "",
                        "--enable-debug-command", "local")

        def ask(*words):
            return subprocess.run([client, "-s", address, *words], capture_output=True,
                                  text=True, check=False).stdout.strip()
        try:
            wait_until("redis", lambda: ask("PING") == "PONG")
            ask("DEBUG", "POPULATE", "100000", "key", "200")
            # The child sleeps between keys, so that it stays while it is looked at.
            ask("CONFIG", "SET", "rdb-key-save-delay", "1000")
            ask("BGSAVE")
            child = wait_until("BGSAVE", lambda: children(process.pid))
            time.sleep(1)
            tree = check([process.pid] + child, process.pid)
            parent = next(row for row in tree["processes"] if row["pid"] == process.pid)
            assert parent["shared_inside_bytes"] > 10 << 20, parent
        finally:
            stop(process)


@case
def postgresql_backends():
    import pwd
    binaries = os.path.dirname(os.path.realpath(program("initdb", "postgres")))
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        raise Skip("there is no user postgres") from None
    with directory(user.pw_uid) as path:
        run_as = {"user": user.pw_uid, "group": user.pw_gid, "cwd": path}
        subprocess.run([f"{binaries}/initdb", "-D", f"{path}/data", "-A", "trust", "--no-sync"],
                       check=True, capture_output=True, **run_as)
        process = start(f"{binaries}/postgres", "-D", f"{path}/data", "-k", path, "-c",
                        "listen_addresses=", "-c", "shared_buffers=64MB", "-c", "fsync=off", **run_as)
        clients = []
        try:
            wait_until("postgres", lambda: os.path.exists(f"{path}/.s.PGSQL.5432"))
            query = "SELECT sum(i) FROM generate_series(1, 1000) i; SELECT pg_sleep(600)"
            for _ in range(4):
                clients.append(start(f"{binaries}/psql", "-h", path, "-c", query, "-d", "postgres",
                                     **run_as))
            wait_until("backends", lambda: len(children(process.pid)) >= 8)
            time.sleep(2)
            tree = check([process.pid] + children(process.pid), process.pid)
            assert tree["measured"] >= 9, tree
        finally:
            for client in clients:
                client.kill()
                client.wait()
            process.send_signal(signal.SIGQUIT)
            process.wait(20)


@case
def nginx_workers():
    binary = program("nginx")
    with directory() as path:
        os.chmod(path, 0o755)
        port = free_port()
        with open(f"{path}/nginx.conf", "w", encoding="ascii") as file:
            file.write(f"daemon off; worker_processes 4; pid {path}/pid; error_log {path}/error;\n"
                       "events {}\nhttp { access_log off; server { "
                       f"listen 127.0.0.1:{port}; root {path}; }} }}\n")
        process = start(binary, "-c", f"{path}/nginx.conf", "-p", path)
        try:
            workers = wait_until("nginx", lambda: len(children(process.pid)) == 4 and
                               children(process.pid))
            time.sleep(0.5)
            check([process.pid] + workers, process.pid)
        finally:
            stop(process)


PREFORK = """
import os, time
data = [str(i) * 10 for i in range(200000)]
for worker in range(4):
    if os.fork() == 0:
        touched = data[:len(data) // (worker + 2)]
        time.sleep(600)
print("ready", flush=True)
time.sleep(600)
"""


@case
def preforking_python():
    process = start("/usr/bin/python3", "-c", PREFORK)
    try:
        workers = wait_until("workers", lambda: len(children(process.pid)) == 4 and
                           children(process.pid))
        time.sleep(1.5)
        tree = check([process.pid] + workers, process.pid)
        # Reading a Python object writes its reference count: who touched more has more of its own.
        uss = {row["pid"]: row["uss_bytes"] for row in tree["processes"]}
        assert uss[workers[0]] > uss[workers[3]], uss
    finally:
        for worker in children(process.pid):
            os.kill(worker, signal.SIGKILL)
        stop(process)


def mount(*words):
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Skip("cannot mount: " + done.stderr.strip().splitlines()[-1])


@case
def overlay_mounts():
    with directory() as path:
        # overlayfs does not stack on everything; a tmpfs will do for all layers.
        mount("-t", "tmpfs", "none", path)
        mounted = [path]
        processes = []
        try:
            os.mkdir(f"{path}/lower")
            shutil.copy2(sys.executable, f"{path}/lower/program")
            for name in "ab":
                for part in "upper", "work", "merged":
                    os.makedirs(f"{path}/{name}/{part}")
                mount("-t", "overlay", "overlay", "-o", f"lowerdir={path}/lower,"
                      f"upperdir={path}/{name}/upper,workdir={path}/{name}/work",
                      f"{path}/{name}/merged")
                mounted.append(f"{path}/{name}/merged")
                processes.append(start(f"{path}/{name}/merged/program", "-c",
                                       "import time; time.sleep(600)"))
            time.sleep(1)
            pids = [process.pid for process in processes]
            compare(pids)
            both = ps(*pids)["total"]
            # The program's text is in both, from the one lower layer.
            one = ps(pids[0])["total"]
            assert both["unique_bytes"] < 2 * one["unique_bytes"] - (1 << 20), (both, one)
        finally:
            for process in processes:
                stop(process)
            for target in reversed(mounted):
                subprocess.run(["umount", target], check=False, capture_output=True)


if os.geteuid() != 0 or ps("--all", "--limit", 1)["backend"] == "smaps_rollup":
    print("1..0 # SKIP frame numbers need CAP_SYS_ADMIN")
    sys.exit(0)
main()
