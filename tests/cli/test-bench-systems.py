#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""cow bench: the experiments on services and file systems, in a tiny setting.

What has to hold whatever the machine is asserted (nothing of an image is copied by its containers,
a clone keeps its place, the kernel and libcow copy the pages that were written); times are not.
Afterwards, and after an interrupt in the middle, nothing is left: no mount, no loop device, no
process, no directory, no cgroup, no setting.
"""
import atexit
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

COW = os.environ["COW"]
TUNING = os.environ.get("COW_TEST_ALLOW_TUNING") == "1"
SETTINGS = ["/proc/sys/vm/swappiness", "/proc/sys/vm/overcommit_memory",
            "/sys/kernel/mm/transparent_hugepage/enabled"]

# The checks that an experiment makes, and rows that have to be there.
EXPECTED = {
    "prefork": (["nginx has its", "master and workers share memory"],
                ["3/worker/uss", "3/sum/pss", "3/sum/rss"]),
    "bgsave": (["fork(): what was saved is what was there",
                "libcow with a cap: what was saved is what was there",
                "libcow without a cap: what was saved is what was there",
                "libcow keeps each page that was written, once",
                "each BGSAVE of the real Redis ends well"],
               ["fork/copied", "libcow/extra", "redis/copied", "redis/stall"]),
    "postgres": (["shared_buffers lie in memory that is not copied on write"],
                 ["default/faults", "default/checkpoint", "shared", "private"]),
    "containers": (["of the image's pages a container has none for itself",
                    "containers with copies of the file share none of its pages"],
                   ["image/4/pss", "copies/2/pss", "upper/ext4", "copy-up/ext4/0",
                    "copy-up/xfs/0", "copy-up/btrfs/0"]),
    "reflink": (["btrfs: the clone keeps its place, the writer gets another one",
                 "xfs: the clone keeps its place, the writer gets another one"],
                ["clone/btrfs/0", "clone/xfs/0", "snapshot/1", "amplification/btrfs/each",
                 "extents/btrfs/all", "moved/own/btrfs"]),
    "qcow2": (["qemu-img finds no fault in a layer, and reads from it what was saved",
               "after an internal snapshot what is written goes to new clusters",
               "without one it is written in place"],
              ["internal/1", "overlay/1", "growth/libcow", "growth/overlay-4k"]),
    "engine": (["libcow keeps each rewritten page once", "so does the kernel"],
               ["stall/fork/0", "stall/explicit/0", "first/explicit", "rollback/explicit",
                "branch/explicit", "restore/explicit", "dirty/explicit/100"]),
}
ROOT = ["containers", "reflink"]
PACKAGES = {"prefork": ["nginx"], "bgsave": ["redis-server"], "qcow2": ["qemu-img", "qemu-io"],
            "containers": ["mkfs.ext4", "mkfs.xfs", "mkfs.btrfs"],
            "reflink": ["mkfs.ext4", "mkfs.xfs", "mkfs.btrfs"]}

count = failed = 0


def report(name, problem=None, skip=None):
    global count, failed
    count += 1
    if problem:
        failed += 1
        for line in str(problem).splitlines():
            print("#", line)
    print(f"{'not ok' if problem else 'ok'} {count} - {name}" + (f" # SKIP {skip}" if skip else ""))
    sys.stdout.flush()


def why_not(name):
    if name in ROOT and os.geteuid() != 0:
        return "needs root, to mount images"
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    for program in PACKAGES.get(name, []):
        if not shutil.which(program, path=path):
            return f"needs {program}"
    if name == "postgres" and not glob.glob("/usr/lib/postgresql/*/bin/initdb"):
        return "needs postgresql"
    return None


def make_directory():
    """On a disk, with a short name, since sockets are made below it, and open to servers' users."""
    directory = tempfile.mkdtemp(prefix="cow-test.", dir="/var/tmp")
    os.chmod(directory, 0o755)
    atexit.register(shutil.rmtree, directory, True)
    return directory


def processes(directory):
    """Those that speak of the directory, zombies apart."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                line = file.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if directory in line and str(os.getpid()) not in path.split("/"):
            found.append(line)
    return found


def loop_devices(directory):
    found = []
    for path in glob.glob("/sys/class/block/loop*/loop/backing_file"):
        try:
            with open(path) as file:
                found += [path] * (directory in file.read())
        except OSError:
            pass
    return found


def groups():
    return {g for g in glob.glob("/sys/fs/cgroup/cow-bench-*") +
            glob.glob("/sys/fs/cgroup/memory/cow-bench-*")}


def settings():
    values = []
    for path in SETTINGS:
        try:
            with open(path) as file:
                values.append(file.read())
        except OSError:
            values.append(None)
    return values


def remains(directory, before):
    """What is left, as text. A device lets go of its image a moment after the last unmount."""
    for _ in range(50):
        with open("/proc/self/mounts") as file:
            left = [line for line in file if directory in line]
        left += processes(directory) + loop_devices(directory) + os.listdir(directory)
        left += sorted(groups() - before[0])
        if not left:
            break
        time.sleep(0.1)
    if settings() != before[1]:
        left.append("settings are other ones than before")
    return "left behind: " + "; ".join(left) if left else None


def run(name, directory, words=()):
    words = [COW, "bench", name, "--tiny", "--json", "-", "--directory", directory, *words]
    done = subprocess.run(words, capture_output=True, text=True, timeout=150)
    return done, json.loads(done.stdout) if done.stdout else None


def look(name, done, result):
    if result is None:
        return done.stderr
    experiment, = result["experiments"]
    if done.returncode != 0 or experiment.get("skipped"):
        return f"status {done.returncode}\n{done.stderr}\n{json.dumps(experiment, indent=1)[:3000]}"
    checks = {check["what"]: check["holds"] for check in experiment["checks"]}
    for wanted in EXPECTED[name][0]:
        if not any(text.startswith(wanted) and holds for text, holds in checks.items()):
            return f"no check that holds: {wanted}\n{json.dumps(checks, indent=1)}"
    rows = {row["key"]: row for row in experiment["rows"]}
    for wanted in EXPECTED[name][1]:
        if wanted not in rows:
            return f"no row {wanted}\n{sorted(rows)}"
        if rows[wanted].get("skipped"):
            return f"{wanted} was skipped: {rows[wanted]}"
    if experiment["verdict"] not in ("holds", "holds in part", "does not hold"):
        return f"verdict {experiment['verdict']}"
    return None


def test_all():
    for name in EXPECTED:
        reason = why_not(name)
        if reason:
            report(name, skip=reason)
            report(f"{name} leaves nothing behind", skip=reason)
            continue
        directory = make_directory()
        before = groups(), settings()
        words = ["--allow-tuning"] if name == "postgres" and TUNING and os.geteuid() == 0 else []
        done, result = run(name, directory, words)
        report(name, look(name, done, result))
        report(f"{name} leaves nothing behind", remains(directory, before))
        shutil.rmtree(directory, ignore_errors=True)


def test_interrupt(name, sign, deadline=20):
    """Interrupted as soon as it has got as far as the sign, a glob in its directory."""
    title = f"{name}, interrupted, leaves nothing behind"
    reason = why_not(name)
    if reason:
        report(title, skip=reason)
        return
    directory = make_directory()
    before = groups(), settings()
    process = subprocess.Popen([COW, "bench", name, "--quick", "--directory", directory],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + deadline
    while time.monotonic() < end and not glob.glob(f"{directory}/*/{sign}"):
        time.sleep(0.01)
    seen = glob.glob(f"{directory}/*/{sign}")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    problem = None if seen else f"it never got as far as {sign}: {err}"
    if process.returncode == 0:
        problem = f"status 0 after SIGINT: {err}"
    report(title, problem or remains(directory, before))
    shutil.rmtree(directory, ignore_errors=True)


def test_closed_directory():
    """A server's user may not enter: said, with what to do."""
    title = "a directory that a server's user may not enter"
    reason = why_not("prefork") or (os.geteuid() != 0 and "needs root")
    if reason:
        report(title, skip=reason)
        return
    directory = make_directory()
    os.chmod(directory, 0o700)
    done, result = run("prefork", directory)
    wanted = f"may not enter {directory}; give another --directory"
    said = result["experiments"][0]["failed"] if result else done.stderr
    report(title, None if done.returncode == 1 and wanted in said else said)
    shutil.rmtree(directory, ignore_errors=True)


test_all()
test_closed_directory()
test_interrupt("containers", "pods")
test_interrupt("prefork", "nginx4/web")
print(f"1..{count}")
sys.exit(1 if failed else 0)
