# SPDX-License-Identifier: MIT
"""What the command's tests in Python share: cases in TAP, and the programs that they watch."""

import os
import shutil
import socket
import sys
import time
import traceback

COW = os.environ["COW"]
cases = []


class Skip(Exception):
    """Raised by a case that cannot run here; the text says why."""


def case(function):
    cases.append(function)
    return function


def main():
    """Arguments select cases by a part of their name."""
    failed = number = 0
    for function in cases:
        name = function.__name__
        if len(sys.argv) > 1 and not any(word in name for word in sys.argv[1:]):
            continue
        number += 1
        result, remark = "ok", ""
        try:
            function()
        except Skip as why:
            remark = " # SKIP " + " ".join(str(why).split())
        except Exception:  # pylint: disable=broad-except
            result = "not ok"
            failed += 1
            print("".join(f"# {line}\n" for line in traceback.format_exc().splitlines()), end="")
        print(f"{result} {number} - {name}{remark}", flush=True)
    print(f"1..{number}")
    sys.exit(1 if failed else 0)


def program(*names):
    """The path of the first that is installed."""
    for name in names:
        path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/usr/lib/postgresql/15/bin")
        if path:
            return path
    raise Skip(f"{names[0]} is not installed")


def wait_until(what, holds, seconds=60):
    """What holds() returns, once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = holds()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {seconds} s")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
