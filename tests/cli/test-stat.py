# SPDX-License-Identifier: MIT
"""cow stat: what it counts, of whom, and how it ends.

The work is tests/cli/stat-work.c, whose copies, reuses and forks are known, and real programs:
Redis, PostgreSQL, nginx, a preforking Python server. Backends that do not work here are skipped
with cow's own reason; those that need kernel.task_delayacct run with COW_TEST_ALLOW_TUNING=1.
Arguments select cases by a part of their name.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from support import COW, Skip, case, free_port, main, program, wait_until

WORK = os.environ["STAT_WORK"]
TUNING = os.environ.get("COW_TEST_ALLOW_TUNING") == "1"
SETTING = "/proc/sys/kernel/task_delayacct"
NOBODY = 65534
# What a process does besides: its start, its stack, the C library.
SLACK = 64


def run(*words, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True,
               "errors": "replace", "timeout": 120, **options}
    return subprocess.run([COW, "stat", *map(str, words)], check=False, **options)


def flags(backend):
    return ["--backend", backend, *(["--allow-tuning"] if backend == "taskstats" or TUNING else [])]


def need(backend):
    if backend == "taskstats" and not TUNING:
        raise Skip("sets kernel.task_delayacct; run with COW_TEST_ALLOW_TUNING=1")
    done = run(*flags(backend), "--", "true")
    if done.returncode != 0:
        raise Skip(done.stderr.strip() or f"{backend} does not work here")


def report(*words, backend="bpf", status=0):
    """Runs cow stat and returns its JSON."""
    need(backend)
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "stat.json")
        done = run(*flags(backend), "--json", path, *words)
        assert done.returncode == status, (done.returncode, done.stderr)
        with open(path, encoding="utf-8") as file:
            return json.load(file)


def near(value, expected, what, slack=SLACK):
    assert expected <= value <= expected + slack + expected // 1000, f"{what}: {value}, not {expected}"


def work(kind, number=20000, **options):
    return report("--", WORK, kind, number, **options)


# --- made on purpose ---

def check_pages(found, number):
    cow = found["cow"]
    assert found["lost_events"] == 0, found
    near(cow["copied_pages"], number, "copied")
    assert cow["copied_bytes"] == cow["copied_pages"] * 4096
    if "reused_pages" in cow:
        near(cow["reused_pages"], number, "reused")
    if "zero_filled_pages" in cow:
        near(cow["zero_filled_pages"], number, "zero-filled")


@case
def pages_bpf():
    found = work("pages", 100000)
    check_pages(found, 100000)
    assert found["backend"].startswith("bpf"), found["backend"]
    child, = [p for p in found["processes"] if p["cow"]["copied_pages"] >= 100000]
    assert child["ended"] and child["forks"] == 0, child
    parent, = [p for p in found["processes"] if p["pid"] == child["ppid"]]
    near(parent["cow"]["reused_pages"], 100000, "the parent's reuses")


@case
def pages_taskstats():
    found = work("pages", 100000, backend="taskstats")
    check_pages(found, 100000)
    assert found["backend"] == "taskstats" and "reused_pages" not in found["cow"], found["cow"]
    assert found["coverage"]["reused_pages"] == "not counted", found["coverage"]
    assert 10_000_000 < found["cow"]["delay_ns"] < 60_000_000_000, found["cow"]


@case
def pages_perf():
    found = work("pages", 100000, backend="perf")
    cow = found["cow"]
    near(cow["protected_writes"], 200000, "writes to protected pages", 2 * SLACK)
    near(cow["zero_filled_pages"], 100000, "zero-filled")
    child, = [p for p in found["processes"] if not p["forks"]]
    near(child["cow"]["protected_writes"], 100000, "the child's")
    parent, = [p for p in found["processes"] if p["forks"]]
    near(parent["cow"]["protected_writes"], 100000, "the parent's")
    assert parent["faults"]["minor"] >= 200000 > child["faults"]["minor"], found["processes"]
    if not TUNING:
        assert "copied_pages" not in cow and "reused_pages" not in cow, cow


@case
def pages_perf_and_taskstats():
    need("taskstats")
    found = work("pages", 100000, backend="perf")
    check_pages(found, 100000)
    assert found["backend"] == "perf+taskstats", found["backend"]


@case
def bpf_and_taskstats_agree():
    need("taskstats")
    found = work("pages", 50000)
    assert found["backend"] == "bpf+taskstats", found["backend"]
    other = work("pages", 50000, backend="taskstats")
    difference = abs(found["cow"]["copied_pages"] - other["cow"]["copied_pages"])
    assert difference <= 16, (found["cow"], other["cow"])
    assert found["cow"]["delay_ns"] > 0


@case
def in_the_kernel():
    """Writes by read(2) into protected pages are faults in kernel mode."""
    check_pages(work("kernel-pages"), 20000)
    found = work("kernel-pages", backend="perf")
    near(found["cow"]["protected_writes"], 40000, "writes to protected pages", 2 * SLACK)


@case
def zero_page():
    found = work("zero-page")
    near(found["cow"]["zero_filled_pages"], 20000, "zero-filled")
    near(found["cow"]["copied_pages"], 0, "copied")


@case
def shared_never_copies():
    for kind in "shared-anonymous", "shared-file":
        found = work(kind)
        near(found["cow"]["copied_pages"], 0, f"{kind}: copied")
        near(found["cow"]["reused_pages"], 0, f"{kind}: reused")
        near(found["cow"]["file_copied_pages"], 0, f"{kind}: copied from files")
        near(found["cow"]["zero_filled_pages"], 0, f"{kind}: zero-filled")


@case
def shared_never_copies_taskstats():
    found = work("shared-anonymous", backend="taskstats")
    near(found["cow"]["copied_pages"], 0, "copied")


@case
def private_files():
    found = work("private-file-read")
    near(found["cow"]["copied_pages"], 20000, "read first: copied")
    found = work("private-file")
    near(found["cow"]["file_copied_pages"], 20000, "written at once: copied")
    near(found["cow"]["copied_pages"], 0, "written at once: copied after a write fault")


@case
def page_cache_is_no_copy():
    found = work("reuse-then-file", 5000)
    near(found["cow"]["reused_pages"], 5000, "reused")
    near(found["cow"]["copied_pages"], 0, "copied")


@case
def huge_pages():
    with open("/sys/kernel/mm/transparent_hugepage/enabled", encoding="utf-8") as file:
        if "[never]" in file.read():
            raise Skip("transparent huge pages are off")
    found = work("huge", 8)
    if found["system"].get("thp_fault_alloc", 0) < 8:
        raise Skip("the kernel had no huge pages to give")
    near(found["cow"]["zero_filled_pages"], 4096, "zero-filled")
    assert found["cow"]["huge_splits"] >= 8, found["cow"]
    assert found["cow"]["copied_pages"] < 512 * 8, found["cow"]


@case
def children_that_have_ended():
    for kind in "threads", "orphan":
        near(work(kind)["cow"]["copied_pages"], 20000, kind)


@case
def children_that_have_ended_taskstats():
    for kind in "threads", "orphan":
        near(work(kind, backend="taskstats")["cow"]["copied_pages"], 20000, kind)


@case
def forks():
    for backend in "bpf", "perf":
        found = work("forks", 500, backend=backend)
        assert found["forks"] == 500 and found["vforks"] == 0, found["forks"]
        assert found["fork_ns"]["count"] == 500, found["fork_ns"]
        assert 1000 < found["fork_ns"]["p50"] <= found["fork_ns"]["p99"] <= found["fork_ns"]["max"]
        assert found["fork_ns"]["sum"] >= 500 * 1000
        assert len(found["processes"]) == 501 and found["processes_omitted"] == 0
        assert sum(p["ended"] for p in found["processes"]) == 501


@case
def slots_are_used_again():
    """More processes than the BPF programs have room for at a time."""
    found = work("forks", 20000)
    assert found["forks"] == 20000 and found["lost_events"] == 0, found["forks"]
    assert len(found["processes"]) + found["processes_omitted"] == 20001
    near(found["cow"]["copied_pages"] // 20000, 3, "copies of a fork", 10)


@case
def vforks_and_execs():
    for backend in "bpf", "perf":
        found = work("vforks", 50, backend=backend)
        assert (found["forks"], found["vforks"], found["execs"]) == (50, 50, 50), found
        assert found["fork_ns"]["count"] == 0, found["fork_ns"]
        assert sum(p["command"] == "true" for p in found["processes"]) == 50


@case
def threads_are_counted():
    for backend in "bpf", "perf":
        assert work("threads", 10, backend=backend)["threads"] == 1


@case
def odd_names():
    found = work("odd-name", 100)
    names = {p["command"] for p in found["processes"]}
    assert "a) R\n\033[31m\ufffd\"" in names, names
    done = run("--", WORK, "odd-name", 100)
    assert "\033" not in done.stderr and r"a) R\n\x1b[31m\xff" in done.stderr, done.stderr


# --- the shape of the command ---

@case
def exit_statuses():
    assert run("--", "sh", "-c", "exit 7").returncode == 7
    assert run("--", "sh", "-c", "kill -KILL $$").returncode == 137
    assert run("--", "sh", "-c", "kill -TERM $$").returncode == 143
    done = run("--", "/nonexistent/program")
    assert done.returncode == 127 and "there is no program" in done.stderr, done
    done = run("--", "/etc/passwd")
    assert done.returncode == 126 and "cannot execute" in done.stderr, done
    done = run("-o", "/nonexistent/file", "--", "true")
    assert done.returncode == 125 and "cannot write" in done.stderr, done
    done = run("-p", "99999999")
    assert done.returncode == 1 and "there is no process" in done.stderr, done
    thread = threading.Thread(target=time.sleep, args=(1,))
    thread.start()
    done = run("-p", thread.native_id)
    thread.join()
    assert done.returncode == 1 and "is a thread of another process" in done.stderr, done
    done = run("--", "true", stderr=subprocess.DEVNULL)
    assert done.returncode == 0 and done.stdout == "", done


@case
def bad_usage():
    for words, message in (
            ([], "nothing to watch"),
            (["-p", "1", "-a"], "exclude each other"),
            (["-p", "1", "-t", "1"], "exclude each other"),
            (["-t", "one"], "--tree: 'one' is not a process ID"),
            (["-p", "one"], "not a list of process IDs"),
            (["-p", "-1"], "not a list of process IDs"),
            (["-p", "1,,2"], "not a list of process IDs"),
            (["-p", "99999999999"], "not a list of process IDs"),
            (["-r", "2", "-a"], "needs a command"),
            (["-r", "0", "--", "true"], "out of range"),
            (["-r", "2", "-I", "10", "--", "true"], "exclude each other"),
            (["-I", "0", "--", "true"], "out of range"),
            (["-I", "soon", "--", "true"], "not a time"),
            (["-d", "1", "--", "true"], "timeout(1)"),
            (["--backend", "magic", "--", "true"], "there is no 'magic'"),
            (["--frobnicate"], "unknown option")):
        done = run(*words)
        assert done.returncode == 2 and message in done.stderr, (words, done)


@case
def output_of_the_command_is_its_own():
    done = run("--", "sh", "-c", "cat; echo out; echo err >&2", input="in\n")
    assert done.stdout == "in\nout\n", done.stdout
    assert done.stderr.startswith("err\n") and "seconds elapsed" in done.stderr, done.stderr


@case
def text():
    need("bpf")
    done = run("--backend", "bpf", "--", WORK, "pages", 2000)
    assert re.search(r"^ +2,0\d\d  pages copied  +# [\d.,]+ /s, 7\.\d+ MiB$", done.stderr, re.M), done.stderr
    assert re.search(r"^ +0  threads$", done.stderr, re.M), done.stderr
    wide = [line for line in done.stderr.splitlines() if len(line) > 80 and "Copy-on-write of" not in line]
    assert not wide, wide
    assert re.search(r"^ +\d+\.\d{9}  seconds elapsed", done.stderr, re.M), done.stderr
    assert re.search(r"^Copy-on-write of '.*pages 2000' \(backend bpf", done.stderr, re.M)
    assert done.stderr.rstrip().endswith("seconds sys"), done.stderr


@case
def output_file():
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "out")
        done = run("-o", path, "--", "true")
        assert done.stderr == "" and done.returncode == 0, done
        with open(path, encoding="utf-8") as file:
            assert "seconds elapsed" in file.read()
    done = run("-o", "/dev/full", "--", "true")
    assert done.returncode == 125 and "cannot write" in done.stderr, done


@case
def json_on_standard_output():
    done = run("--json", "-", "--", "true")
    found = json.loads(done.stdout)
    assert list(found)[0] == "schema" and found["schema"] == "cow-stat/1", found
    twice = json.loads(run("-p", f"{os.getpid()},{os.getpid()}", "--json", "-", "--", "true").stdout)
    assert len(twice["processes"]) <= 1 and twice["sharing"]["processes"] == 1, twice
    for key in "backend", "coverage", "lost_events", "elapsed_ns", "processes", "exit_status", "cow":
        assert key in found, key
    assert done.stderr == "", done.stderr


@case
def repeat():
    need("bpf")
    found = report("-r", 3, "--", WORK, "pages", 3000)
    assert found["repeats"] == 3 and len(found["runs"]) == 3, found
    near(found["cow"]["copied_pages"], 3000, "the mean of the copies")
    for one in found["runs"]:
        near(one["cow"]["copied_pages"], 3000, "copies of a run")
        assert one["processes"], one
    done = run("-r", 3, "--", "sh", "-c", "exit 3")
    assert done.returncode == 3 and "mean of 3 runs" in done.stderr, done


@case
def intervals():
    found = report("-I", 50, "--", WORK, "bursts", 20000)
    assert len(found["intervals"]) >= 10, len(found["intervals"])
    total = sum(i["cow"]["copied_pages"] for i in found["intervals"])
    assert total == found["cow"]["copied_pages"], (total, found["cow"])
    times = [i["at_ns"] for i in found["intervals"]]
    assert times == sorted(times)
    risen = [i for i in found["intervals"] if i["rises"] and "copied" in i["rises"]]
    # On a busy machine the first burst may be cut in two, and what is usual may vary.
    copies = [(i["at_ns"], i["cow"]["copied_pages"], i["rises"]) for i in found["intervals"]]
    assert risen and len(risen) < len(copies) / 2, copies
    assert max(i["cow"]["copied_pages"] for i in risen) >= 4000, copies
    done = run("-I", "50ms", "--", "sleep", "0.3")
    assert re.search(r"^# +time +forks", done.stderr, re.M), done.stderr
    assert len(re.findall(r"^ +\d\.\d{3} ", done.stderr, re.M)) >= 4, done.stderr


@case
def whole_system():
    need("bpf")
    with subprocess.Popen([WORK, "on-line", "30000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as target:
        assert target.stdout.readline() == "ready\n"
        watch = subprocess.Popen([COW, "stat", "-a", "-I", "50", "-d", "2", "--json", "-"],
                                 stdout=subprocess.PIPE, text=True)
        time.sleep(1.2)
        target.stdin.write("\n")
        target.stdin.flush()
        assert target.stdout.readline() == "done\n"
        found = json.loads(watch.communicate(timeout=60)[0])
        target.stdin.close()
    assert found["target"] == "the whole system" and found["exit_status"] is None, found["target"]
    mine = [p for p in found["processes"] if target.pid in (p["pid"], p["ppid"])]
    near(sum(p["cow"]["copied_pages"] for p in mine), 30000, "copied by the one")
    assert found["cow"]["copied_pages"] >= 30000
    # What counts as a rise is tested by test-stat-session: here it depends on who else is busy.
    assert all("rises" in each for each in found["intervals"]), found["intervals"]
    assert sum(each["cow"]["copied_pages"] for each in found["intervals"]) >= 30000


@contextlib.contextmanager
def target_process(number):
    with subprocess.Popen([WORK, "on-line", str(number)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as target:
        assert target.stdout.readline() == "ready\n"
        try:
            yield target
        finally:
            target.stdin.close()


def poke(target):
    target.stdin.write("\n")
    target.stdin.flush()
    assert target.stdout.readline() == "done\n"


def watch_pid(backend, number):
    need(backend)
    with target_process(number) as target:
        poke(target)  # what was before does not count
        watch = subprocess.Popen([COW, "stat", *flags(backend), "-p", str(target.pid), "--json", "-"],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(1)
        poke(target)
        poke(target)
        watch.send_signal(signal.SIGINT)
        out, err = watch.communicate(timeout=60)
    assert watch.returncode == 0, err
    return json.loads(out)


@case
def attach():
    found = watch_pid("bpf", 10000)
    near(found["cow"]["copied_pages"], 20000, "copied")
    near(found["cow"]["reused_pages"], 20000, "reused")
    assert found["forks"] == 2, found["forks"]
    assert found["sharing"]["processes"] == 1 and found["sharing"]["uss_bytes"] >= 10000 * 4096
    assert found["sharing"]["uss_bytes"] <= found["sharing"]["pss_bytes"] <= found["sharing"]["rss_bytes"]


@case
def a_tree_that_is_there_already():
    """A parent that is idle, and a worker that it forked before: it is the worker that copies."""
    need("bpf")
    code = ("import os, sys\n"
            "data = bytearray(b'x') * (3000 * 4096)\n"
            "if os.fork() == 0:\n"
            "    print(os.getpid(), flush=True)\n"
            "    sys.stdin.readline()\n"
            "    data[::4096] = b'y' * 3000\n"
            "    os._exit(0)\n"
            "os.wait()\n")
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as parent:
        worker = int(parent.stdout.readline())
        with subprocess.Popen([COW, "stat", "-t", str(parent.pid), "--json", "-"],
                              stdout=subprocess.PIPE, text=True) as watch:
            time.sleep(1)
            parent.stdin.write("go\n")
            parent.stdin.close()
            found = json.loads(watch.communicate(timeout=60)[0])
    assert found["target"] == f"process {parent.pid} and its descendants", found["target"]
    copied = {process["pid"]: process["cow"]["copied_pages"] for process in found["processes"]}
    assert copied[worker] >= 3000 and copied[parent.pid] < 1000, copied
    done = run("-t", "99999999")
    assert done.returncode == 1 and "there is no process 99999999" in done.stderr, done


@case
def sharing_of_a_command_that_has_ended():
    """Parent and child share 20 MB while they live; the last look at them is told."""
    code = ("import os, time; data = bytearray(b'x') * (20 << 20); child = os.fork(); time.sleep(1.5);"
            "child and os.waitpid(child, 0)")
    found = report("--", sys.executable, "-c", code)["sharing"]
    assert found and found["processes"] == 2, found
    assert found["rss_bytes"] >= 2 * (20 << 20), found
    assert (20 << 20) <= found["pss_bytes"] <= found["rss_bytes"] - (19 << 20), found
    assert found["uss_bytes"] <= found["pss_bytes"], found
    assert found["at_ns"] <= 10 ** 11, found


@case
def attach_perf():
    found = watch_pid("perf", 10000)
    near(found["cow"]["protected_writes"], 40000, "writes to protected pages", 2 * SLACK)
    assert found["forks"] == 2, found["forks"]


@case
def attach_taskstats():
    """Its children began after the accounting did; itself it cannot count where that was off."""
    found = watch_pid("taskstats", 10000)
    near(found["cow"]["copied_pages"], 20000, "copied")


@case
def what_the_accounting_does_not_know_is_not_zero():
    """A process that was there before the accounting is unknown to it, however much it copies."""
    need("taskstats")
    with open("/proc/sys/kernel/task_delayacct", encoding="ascii") as file:
        if file.read().strip() != "0":
            raise Skip("kernel.task_delayacct is on already")
    for backend in "taskstats", "auto":
        with target_process(10) as target:
            done = run("--allow-tuning", "--backend", backend, "-p", target.pid, "-d", "200ms", "--json", "-")
        found = json.loads(done.stdout)
        assert "delay_ns" not in found["cow"], found["cow"]
        assert found["coverage"]["delay_ns"] == "not counted", found["coverage"]
        assert "no process that was there before" in found["coverage"]["missing"], found["coverage"]
        if "bpf" not in found["backend"]:
            assert "copied_pages" not in found["cow"] and "reused_pages" not in found["cow"], found["cow"]


@case
def attached_process_ends():
    with target_process(10) as target:
        watch = subprocess.Popen([COW, "stat", "-p", str(target.pid)], stderr=subprocess.PIPE,
                                 text=True)
        time.sleep(0.5)
    assert "seconds elapsed" in watch.communicate(timeout=20)[1]
    assert watch.returncode == 0


def started_with_signals(*words):
    # Under nohup everything ignores SIGHUP.
    watch = subprocess.Popen([COW, "stat", *words, "--", WORK, "signals"], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))
    assert watch.stdout.readline() == "ready\n"
    return watch


@case
def signals_go_to_the_command():
    for number in signal.SIGINT, signal.SIGTERM:
        watch = started_with_signals()
        watch.send_signal(number)
        err = watch.communicate(timeout=20)[1]
        assert watch.returncode == 40 + number, (watch.returncode, err)
        assert "seconds elapsed" in err, err


@case
def killed_by_a_signal():
    watch = started_with_signals()
    watch.send_signal(signal.SIGHUP)
    err = watch.communicate(timeout=20)[1]
    assert watch.returncode == 128 + signal.SIGHUP and "seconds elapsed" in err, err


@case
def settings_are_put_back():
    need("taskstats")
    with open(SETTING, encoding="utf-8") as file:
        before = file.read()
    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        watch = started_with_signals("--allow-tuning", "--backend", "taskstats")
        with open(SETTING, encoding="utf-8") as file:
            assert file.read() == "1\n"
        watch.send_signal(number)
        watch.communicate(timeout=20)
        with open(SETTING, encoding="utf-8") as file:
            assert file.read() == before, number
    assert run("--allow-tuning", "--", "/nonexistent").returncode == 127
    with open(SETTING, encoding="utf-8") as file:
        assert file.read() == before


@case
def nothing_is_tuned_unasked():
    with open(SETTING, encoding="utf-8") as file:
        before = file.read()
    done = run("--", "cat", SETTING)
    assert done.stdout == before, done
    assert os.path.ismount("/sys/kernel/tracing") == ("/sys/kernel/tracing" in
                                                       run("--", "cat", "/proc/mounts").stdout)


def as_nobody(*words):
    return run(*words, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/")


@case
def unprivileged():
    if os.geteuid() != 0:
        raise Skip("needs root to become nobody")
    need("bpf")  # else privilege is not what it lacks
    if subprocess.run(["true"], user=NOBODY, check=False).returncode or \
            subprocess.run([WORK, "pages", "1"], user=NOBODY, check=False).returncode:
        raise Skip("nobody may not execute programs in the build directory")
    done = as_nobody("--json", "-", "--", WORK, "forks", 20)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["backend"] in ("basic", "rusage"), found["backend"]
    assert "copied_pages" not in found["cow"] and "CAP_BPF" in found["coverage"]["missing"], found
    assert found["faults"]["minor"] > 100, found["faults"]
    if found["backend"] == "basic":
        assert found["forks"] == 20, found
    done = as_nobody("--", WORK, "forks", 20)
    assert "not counted: pages copied" in done.stderr, done.stderr
    assert "needs root, or CAP_BPF and CAP_PERFMON" in done.stderr, done.stderr
    for words in (["--backend", "bpf", "--", "true"], ["--backend", "perf", "--", "true"]):
        done = as_nobody(*words)
        assert done.returncode == 125 and "cannot count: " in done.stderr, done
    done = as_nobody("-a", "-d", "0.1")
    assert done.returncode == 1 and "needs root" in done.stderr, done
    assert as_nobody("--allow-tuning", "--", "true").returncode == 0


@case
def without_any_events():
    """Neither perf events nor BPF: what the kernel adds up anyway."""
    done = subprocess.run([WORK, "without-events", COW, "stat", "--json", "-", "--", WORK, "pages",
                           "2000"], stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["backend"] == "rusage", found["backend"]
    assert 6000 <= found["faults"]["minor"] <= 8000, found["faults"]
    assert "copied_pages" not in found["cow"] and "forks" not in found, found
    assert found["coverage"]["forks"] == "not counted" and found["coverage"]["missing"], found
    with target_process(1000) as target:
        watch = subprocess.Popen([WORK, "without-events", COW, "stat", "-p", str(target.pid), "--json",
                                  "-"], stdout=subprocess.PIPE, text=True)
        time.sleep(0.5)
        poke(target)
        watch.send_signal(signal.SIGINT)
        found = json.loads(watch.communicate(timeout=20)[0])
    assert 1000 <= found["faults"]["minor"] <= 1500, found["faults"]
    done = subprocess.run([WORK, "without-events", COW, "stat", "-a", "-d", "0.1"], text=True,
                          stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1 and "cannot count" in done.stderr, done


@case
def closed_descriptors():
    done = subprocess.run(["sh", "-c", f'"{COW}" stat -- true 2>&- <&- >&-'], check=False)
    assert done.returncode in (0, 125), done


# --- real programs ---

@contextlib.contextmanager
def watched(*command, backend="bpf", **options):
    """Runs a server under cow stat; yields a dictionary that is the report afterwards."""
    need(backend)
    found = {}
    directory = tempfile.mkdtemp()
    path = os.path.join(directory, "stat.json")
    server = subprocess.Popen([COW, "stat", *flags(backend), "--json", path, "-o", "/dev/null", "--",
                               *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              **options)
    try:
        yield found
    finally:
        if server.poll() is None:
            server.terminate()
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()
            raise
    with open(path, encoding="utf-8") as file:
        found.update(json.load(file))
    shutil.rmtree(directory)


@case
def redis():
    server, cli, load = program("redis-server"), program("redis-cli"), program("redis-benchmark")
    port = str(free_port())
    with tempfile.TemporaryDirectory() as directory:
        def ask(*words):
            return subprocess.run([cli, "-p", port, *words], capture_output=True, text=True,
                                  check=False).stdout

        with watched(server, "--port", port, "--save", "", "--dir", directory,
                     "--rdb-key-save-delay", "100") as found:
            wait_until("Redis", lambda: "PONG" in ask("ping"))
            write = [load, "-p", port, "-q", "-r", "50000", "-t", "set", "-d", "1000", "-P", "16", "-n"]
            subprocess.run([*write, "300000"], stdout=subprocess.DEVNULL, check=True)
            ask("bgsave")
            subprocess.run([*write, "30000"], stdout=subprocess.DEVNULL, check=True)
            wait_until("the save", lambda: "rdb_bgsave_in_progress:0" in ask("info"))
            info = dict(line.split(":", 1) for line in ask("info").splitlines() if ":" in line)
    assert int(found["forks"]) >= 1 and found["fork_ns"]["count"] >= 1, found["forks"]
    # Redis reports what its child holds alone at the end: its own copies and those of the parent.
    reported = int(info["rdb_last_cow_size"])
    copied = found["cow"]["copied_bytes"]
    print(f"# Redis: rdb_last_cow_size {reported}, copied {copied}")
    assert reported > 10 << 20, reported
    assert reported * 0.9 < copied < reported * 1.1 + (2 << 20), (reported, copied)


@case
def postgresql():
    names = sorted(os.listdir("/usr/lib/postgresql")) if os.path.isdir("/usr/lib/postgresql") else []
    if not names:
        raise Skip("postgresql is not installed")
    binaries = f"/usr/lib/postgresql/{names[-1]}/bin"
    identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    need("bpf")
    port = str(free_port())
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        data = os.path.join(directory, "data")
        subprocess.run([f"{binaries}/initdb", "-D", data, "-A", "trust", "-U", "postgres", "-N"],
                       check=True, stdout=subprocess.DEVNULL, cwd="/", **identity)

        def query(sql):
            return subprocess.run([f"{binaries}/psql", "-h", directory, "-p", port, "-U", "postgres",
                                   "-Atc", sql], capture_output=True, text=True, check=False).stdout

        # cow has to be root, PostgreSQL must not be.
        become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        with watched(*(become if identity else []), f"{binaries}/postgres", "-D", data, "-k", directory,
                     "-p", port, "-c", "listen_addresses=", cwd="/") as found:
            wait_until("PostgreSQL", lambda: query("select 1") == "1\n")
            for _ in range(10):
                query("create temp table t as select generate_series(1, 10000)")
            query("create table shared as select generate_series(1, 200000) as n")
    # Ten backends at least, besides the server's own processes.
    assert found["forks"] >= 11 and found["cow"]["copied_pages"] > 100, found
    assert any(p["command"].startswith("postgres") and p["ended"] for p in found["processes"])
    # Each backend copies a little of the postmaster's memory; shared buffers are never copied.
    assert found["cow"]["copied_pages"] < 2000 * found["forks"], found["cow"]


@case
def nginx():
    server = program("nginx", "/usr/sbin/nginx")
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        configuration = os.path.join(directory, "nginx.conf")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(f"daemon off; worker_processes 3; pid {directory}/pid;\n"
                       f"error_log {directory}/log; events {{}}\n"
                       f"http {{ access_log off; client_body_temp_path {directory}/b;\n"
                       f"proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;\n"
                       f"uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;\n"
                       f"server {{ listen 127.0.0.1:{port}; return 200 ok; }} }}\n")

        def answers():
            try:
                with socket.create_connection(("127.0.0.1", port), 1) as connection:
                    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    return b"200" in connection.recv(100)
            except OSError:
                return False

        with watched(server, "-p", directory, "-c", configuration) as found:
            wait_until("nginx", answers)
            for _ in range(50):
                assert answers()
    workers = [p for p in found["processes"] if p["forks"] == 0 and p["command"] == "nginx"]
    assert found["forks"] == 3 and len(workers) == 3, found["processes"]
    assert all(p["cow"]["copied_pages"] > 0 for p in workers), workers


PREFORK = """
import gc, os, sys
data = [str(i) for i in range(300000)]
if sys.argv[1] == "freeze":
    gc.freeze()
for _ in range(3):
    if os.fork() == 0:
        gc.collect()
        os._exit(0)
for _ in range(3):
    os.wait()
"""


@case
def preforking_python():
    """The classic: a collection in each worker writes to every object's header."""
    sizes = {}
    for mode in "plain", "freeze":
        found = report("--", "/usr/bin/python3", "-c", PREFORK.replace("str(i)", "[i]"), mode)
        workers = sorted(p["cow"]["copied_pages"] for p in found["processes"] if p["forks"] == 0)
        assert len(workers) == 3, found["processes"]
        sizes[mode] = workers[1]
    print(f"# pages copied by a worker: {sizes}")
    assert sizes["plain"] > 1000 and sizes["freeze"] * 5 < sizes["plain"], sizes


main()
