# SPDX-License-Identifier: MIT
"""What the store's tests in Python share: running programs, the work of store-work."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import tap
from tap import Skip, case

COW = os.environ["COW"]
WORK = os.environ.get("STORE_WORK", "")


def main():
    """Each case gets a fresh directory."""
    tap.main(lambda: tempfile.TemporaryDirectory(dir=os.environ.get("BUILD_ROOT")))


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
