# SPDX-License-Identifier: MIT
"""cow walk: what it shows of a fork is what a fork does, on this kernel, with and without privilege."""

import json
import os
import re
import subprocess
import tempfile
import xml.dom.minidom

from support import COW, Skip, case, main

NOBODY = 65534


def walk(*words, user=None, **options):
    return subprocess.run([COW, "walk", *map(str, words)], check=False, text=True, timeout=60,
                          stdout=options.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE,
                          user=user, **options)


def report(*words, user=None):
    done = walk("--json", *words, user=user)
    assert done.returncode == 0, (done.returncode, done.stderr)
    found = json.loads(done.stdout)
    assert list(found)[0] == "schema" and found["schema"] == "cow-walk/1"
    assert [step["name"] for step in found["steps"]] == [
        "start", "fork", "child writes", "parent writes", "child exits", "parent writes the last"]
    assert found["contradictions"] == 0
    return found


def entry(found, step, page, who):
    by_name = {each["name"]: each for each in found["steps"][step]["pages"]}
    return by_name[page][who]


def writes(found):
    return {(each["page"], each["by"]): each
            for step in found["steps"] for each in step["writes"]}


def expect_outcomes(found):
    wanted = {
        ("read", "child"): ("zero-filled", "zero-filled"),
        ("both", "child"): ("copied", "copied"),
        ("shared", "child"): ("mapped", None),
        ("private", "child"): ("copied", None),
        ("both", "parent"): ("reused", "copied"),
        ("parent", "parent"): ("copied", "copied"),
        ("last", "parent"): ("reused", "reused"),
    }
    done = writes(found)
    for key, (kernel, libcow) in wanted.items():
        write = done[key]
        assert write["outcome"] == kernel, (key, write)
        assert (write["inferred_faults"], write["faults"], write["faults_again"]) == (1, 1, 0), write
        assert (write["libcow"] or {}).get("outcome") == libcow, (key, write)


def expect_protection(found):
    for page in "both", "parent", "last":
        assert entry(found, 0, page, "parent")["writable"], page
        for who in "parent", "child":
            assert not entry(found, 1, page, who)["writable"], (page, who)
    assert not entry(found, 4, "last", "parent")["writable"]
    assert entry(found, 5, "last", "parent")["writable"]
    for step in 0, 4, 5:
        assert entry(found, step, "both", "child") is None
    for who, step in (("parent", 5), ("child", 3)):
        assert entry(found, step, "untouched", who) == {"present": False}
    assert entry(found, 1, "read", "child")["zero_page"]
    assert not entry(found, 2, "read", "child")["zero_page"]


@case
def frames():
    """A fork shares every frame; a write changes the writer's, or nobody's."""
    found = report()
    if not found["frames_visible"]:
        raise Skip("frame numbers need CAP_SYS_ADMIN")
    assert found["backend"] == "pagemap+kpagecount+kpageflags" and found["zero_page_told"]
    expect_outcomes(found)
    expect_protection(found)

    def seen(step, page, who):
        each = entry(found, step, page, who)
        return each["frame"], each["maps"]

    for page in "both", "parent", "last":
        frame, maps = seen(0, page, "parent")
        assert maps == 1
        assert seen(1, page, "parent") == seen(1, page, "child") == (frame, 2), page
    both, parent, last = (seen(0, page, "parent")[0] for page in ("both", "parent", "last"))
    assert seen(2, "both", "parent") == (both, 1)
    assert seen(2, "both", "child")[0] != both
    assert seen(3, "both", "parent") == (both, 1)
    assert seen(3, "parent", "child") == (parent, 1)
    assert seen(3, "parent", "parent")[0] != parent
    assert seen(5, "last", "parent") == (last, 1)
    assert seen(2, "shared", "parent") == seen(2, "shared", "child") and seen(2, "shared", "child")[1] == 2
    assert seen(2, "private", "parent")[0] != seen(2, "private", "child")[0]
    zero = entry(found, 0, "read", "parent")
    assert "zero_page" in zero["flags"], zero
    assert "anon" in entry(found, 0, "both", "parent")["flags"]
    assert "anon" not in entry(found, 0, "private", "parent")["flags"]
    assert "anon" in entry(found, 2, "private", "child")["flags"]


@case
def unprivileged():
    """Nothing is known of frames, and the rest is the same."""
    found = report(user=NOBODY if os.geteuid() == 0 else None)
    assert not found["frames_visible"] and found["backend"] == "pagemap"
    expect_outcomes(found)
    expect_protection(found)
    each = entry(found, 1, "both", "child")
    assert each["frame"] is None and each["maps"] is None and each["flags"] is None
    assert not each["exclusive"] and entry(found, 3, "both", "child")["exclusive"]
    done = walk(user=NOBODY if os.geteuid() == 0 else None)
    assert "they need CAP_SYS_ADMIN" in " ".join(done.stdout.split()), done.stdout


@case
def libcow_does_the_same():
    """Shared after the fork, kept for the child, gone with it."""
    found = report()

    def place(step, page, who):
        each = entry(found, step, page, "libcow")[who]
        return each and (each["place"], each["readers"], each["writable"])

    assert place(0, "read", "parent") == ("zero", 0, False)
    assert place(1, "both", "parent") == place(1, "both", "child") == ("window", 2, False)
    assert place(2, "both", "child") == ("own", 1, True)
    assert place(3, "parent", "child") == ("kept", 1, False)
    assert place(4, "parent", "child") is None
    assert place(4, "last", "parent") == ("window", 1, False)
    assert place(1, "shared", "parent") is None


@case
def huge_pages():
    """One write splits the entry and copies a small page."""
    found = report("--huge")
    if not found["huge_page"]:
        raise Skip("no huge page is to be had here")
    assert entry(found, 1, "huge", "parent")["huge"] and entry(found, 1, "huge", "child")["huge"]
    assert writes(found)["huge", "child"]["outcome"] == "copied"
    child, parent = (entry(found, 2, "huge", who) for who in ("child", "parent"))
    assert child["frame"] is None or child["frame"] != parent["frame"]
    assert "huge+1" in walk("--huge").stdout


@case
def pictures():
    """A picture is XML that shows what the text shows; it appears whole or not at all."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "walk.svg")
        done = walk("--svg", path)
        assert done.returncode == 0, done.stderr
        text = open(path, encoding="utf-8").read()
        xml.dom.minidom.parseString(text)
        for frame in set(re.findall(r"^(?:both|parent|last) +([0-9a-f]{3,}) ", done.stdout, re.M)):
            assert frame in text, frame
        for word in "zero-filled", "copied", "reused", "read-only", "window 2", "kept":
            assert word in text, word
        assert os.listdir(directory) == ["walk.svg"]
        done = walk("--svg", "-", cwd=directory)
        xml.dom.minidom.parseString(done.stdout)
        assert done.returncode == 0 and os.listdir(directory) == ["walk.svg"], done
        done = walk("--svg", os.path.join(directory, "nowhere", "walk.svg"))
        assert done.returncode == 1 and "cow walk: cannot write " in done.stderr, done
        assert done.stdout == ""
        os.symlink("/dev/full", os.path.join(directory, "full"))
        done = walk("--svg", os.path.join(directory, "full"))
        assert done.returncode == 1 and "No space left" in done.stderr, done


@case
def text():
    """A terminal's worth of text, without colours off a terminal."""
    done = walk("--huge")
    assert done.returncode == 0 and "\033" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 110
    assert max(map(len, walk().stdout.splitlines())) <= 80
    assert "Every write faulted as was inferred" in done.stdout
    assert len(re.findall(r"^\d\. ", done.stdout, re.M)) == 6


@case
def bad_usage():
    """Wrong words and lost output are said."""
    assert walk("--frobnicate").returncode == 2
    assert walk("surplus").returncode == 2
    done = walk("--svg", "-", "--json")
    assert done.returncode == 2 and "both want standard output" in done.stderr, done
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = walk(stdout=full)
        assert done.returncode == 1 and "cannot write the output" in done.stderr, done


@case
def leaves_nobody_behind():
    """Its processes end with it, however it ends."""
    def left():
        names = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                    parts = file.read()
                if "(cow-walk-" in parts and int(parts.rsplit(")", 1)[1].split()[2]) == os.getpgid(0):
                    names.append(parts)
            except OSError:
                pass
        return names

    for _ in range(10):
        process = subprocess.Popen([COW, "walk"], stdout=subprocess.DEVNULL)
        process.kill()
        process.wait()
    for _ in range(100):
        if not left():
            return
        subprocess.run(["sleep", "0.05"], check=True)
    raise AssertionError(left())


main()
