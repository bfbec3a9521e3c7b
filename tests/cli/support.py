# SPDX-License-Identifier: MIT
"""What the command's tests in Python share: the programs that they watch."""

import os
import shutil
import socket
import sys
import time

sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from tap import Skip, case, main

COW = os.environ["COW"]


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
