# SPDX-License-Identifier: MIT
"""What the store's tests in Python share: cases in TAP, running programs, the work of store-work."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import traceback

COW = os.environ["COW"]
WORK = os.environ.get("STORE_WORK", "")
cases = []


class Skip(Exception):
    """Raised by a case that cannot run here; the text says why."""


def case(function):
    cases.append(function)
    return function


def main():
    """Each case gets a fresh directory. Arguments select cases by a part of their name."""
    failed = number = 0
    for function in cases:
        name = function.__name__
        if len(sys.argv) > 1 and not any(word in name for word in sys.argv[1:]):
            continue
        number += 1
        remark, result = "", "ok"
        with tempfile.TemporaryDirectory(dir=os.environ.get("BUILD_ROOT")) as directory:
            try:
                function(directory)
            except Skip as why:
                remark = f" # SKIP {why}"
            except Exception:  # pylint: disable=broad-except
                result = "not ok"
                failed += 1
                print("".join(f"# {line}\n" for line in traceback.format_exc().splitlines()), end="")
        print(f"{result} {number} - {name}{remark}", flush=True)
    print(f"1..{number}")
    sys.exit(1 if failed else 0)


def equal(got, expected, what):
    assert got == expected, f"{what}: got {got!r:.400}, expected {expected!r:.400}"


def run(*words, status=0):
    """Standard output; the status must be the one that is expected."""
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)
    assert status is None or done.returncode == status, (
        f"{' '.join(map(str, words))}: status {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return done.stdout


def fails(*words, status=1):
    """Standard error of a run that has to fail."""
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)
    assert status is None or done.returncode == status, (
        f"{words}: status {done.returncode}: {done.stderr}")
    return done.stderr


def run_json(*words, status=0):
    return json.loads(run(*words, status=status))


def store_json(action, directory, *words, status=0):
    return run_json(COW, "store", action, "--json", directory, *words, status=status)


class Store:
    """A store made by store-work, and the model of it."""

    def __init__(self, directory, seed, steps, mix="all"):
        self.directory = os.path.join(directory, "store")
        self.references = os.path.join(directory, "references")
        os.mkdir(self.references)
        self.model = run_json(WORK, self.directory, self.references, seed, steps, mix)
        self.length = self.model["length"]
        self.layers = self.model["layers"]

    def path(self, layer):
        return os.path.join(self.directory, layer + ".qcow2")

    def reference(self, layer):
        return os.path.join(self.references, layer + ".raw")

    def log(self):
        return {layer["id"]: layer for layer in store_json("log", self.directory)["layers"]}


@contextlib.contextmanager
def process(*words):
    """A program that is ended when the block is left."""
    started = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.terminate()
        started.wait()
