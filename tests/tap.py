# SPDX-License-Identifier: MIT
"""Cases in Python and their results in TAP: what tap.h is for C, and tap.sh for shells.

A test marks its functions with @case and ends with main(), mostly its folder's own in support.py,
which may give each case something that lives as long as the case, such as a directory.
"""

import sys
import traceback

cases = []


class Skip(Exception):
    """Raised by a case that cannot run here; the text says why."""


def case(function):
    cases.append(function)
    return function


def selected():
    """Arguments select cases by a part of their name."""
    words = sys.argv[1:]
    return [function for function in cases
            if not words or any(word in function.__name__ for word in words)]


def outcome(function, give):
    """The result, and what follows the name."""
    try:
        if give is None:
            function()
        else:
            with give() as given:
                function(given)
    except Skip as why:
        return "ok", " # SKIP " + " ".join(str(why).split())
    except Exception:  # pylint: disable=broad-except
        print("".join(f"# {line}\n" for line in traceback.format_exc().splitlines()), end="")
        return "not ok", ""
    return "ok", ""


def main(give=None):
    """give() makes a context manager for a case; what that yields is the case's argument."""
    failed = number = 0
    for number, function in enumerate(selected(), 1):
        result, remark = outcome(function, give)
        failed += result != "ok"
        print(f"{result} {number} - {function.__name__}{remark}", flush=True)
    print(f"1..{number}")
    sys.exit(1 if failed else 0)
