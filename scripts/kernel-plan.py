#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The two ends of a run of tests under another kernel; scripts/test-kernels.sh is in the middle.

    kernel-plan.py plan BUILD LIST STAGE SCALE   what is run, and all files it needs
    kernel-plan.py collect BUILD RESULTS LOG     what came back, as `meson test` would log it

The guest sees every file under the path that it has here, so the commands, the environment and
the run paths that Meson made hold there unchanged. LIST has a line a test: its name as in `meson
test`, then arguments and VARIABLE=VALUE; '#' begins a comment. A test may stand there more than
once, and may take SCALE times as long as Meson lets it, at most SECONDS_MAX.

RESULTS is what the guest wrote to its serial line (see kernel-guest.sh). A test that did not end
has failed: its kernel died under it, or there was no time left.
"""

import importlib.util
import json
import modulefinder
import os
import re
import shlex
import shutil
import subprocess
import sys

SHELLS = {"sh", "bash", "dash"}
SCRIPTS = SHELLS | {"python3"}
SECONDS_MAX = 600
# Where busybox has none, or its own do not do: its shell prefers them to those in $PATH.
TOOLS = ["dash", "mke2fs", "pgrep", "setpriv"]


def meson_tests(build):
    done = subprocess.run([os.environ.get("MESON", "meson"), "introspect", "--tests", build],
                          stdout=subprocess.PIPE, check=True)
    return {test["name"]: test for test in json.loads(done.stdout)}


def read_list(path):
    """(name, variables, arguments) of each line."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            words = shlex.split(line, comments=True)
            if words:
                variables = [word for word in words[1:] if re.match(r"[A-Z_]+=", word)]
                yield words[0], variables, [word for word in words[1:] if word not in variables]


# --- files ---

class Stage:
    """A tree with copies of files under the paths that they have here."""

    def __init__(self, root):
        self.root = root
        self.seen = set()

    def add(self, path):
        path = os.path.abspath(path)
        if path in self.seen:
            return
        self.seen.add(path)
        target = self.root + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy2(path, target)
        self.add_libraries(path)

    def add_libraries(self, path):
        """What the dynamic linker would load for an ELF file, and the linker."""
        with open(path, "rb") as file:
            if file.read(4) != b"\x7fELF":
                return
        done = subprocess.run(["ldd", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True, check=False)
        for line in done.stdout.splitlines():
            found = re.search(r"(/\S+) \(0x", line)
            if found:
                self.add(found.group(1))

    def add_tree(self, path):
        for folder, _, names in os.walk(path):
            for name in names:
                self.add(os.path.join(folder, name))

    def add_python(self, scripts):
        """The interpreter and those modules of its library that the scripts may come to import."""
        self.add("/usr/bin/python3")
        # Beside those of the library, what scripts share lies in their folder or the one above.
        folders = {os.path.dirname(script) for script in scripts}
        above = {os.path.dirname(folder) for folder in folders}
        finder = modulefinder.ModuleFinder([*folders, *above, *sys.path])
        for script in scripts:
            finder.run_script(script)
        # What the interpreter takes by itself, and shell tests ask for.
        for module in ["encodings.utf_8", "encodings.ascii", "encodings.latin_1", "encodings.idna",
                       "site", "runpy", "json.tool"]:
            finder.import_hook(module, None, ["*"])
        for module in finder.modules.values():
            if module.__file__:
                self.add(module.__file__)
                self.add_compiled(module.__file__)

    def add_compiled(self, path):
        """It need not be compiled again and again, at a tenth of the speed."""
        if path.endswith(".py"):
            compiled = importlib.util.cache_from_source(path)
            if os.path.exists(compiled):
                self.add(compiled)


def script_of(test, variables, arguments):
    lines = ["cd " + shlex.quote(test["env"].get("BUILD_ROOT", "/"))]
    for key, value in test["env"].items():
        lines.append("export %s=%s" % (key, shlex.quote(value)))
    for variable in variables:
        key, value = variable.split("=", 1)
        lines.append("export %s=%s" % (key, shlex.quote(value)))
    command = [os.path.abspath(test["cmd"][0]), *test["cmd"][1:], *arguments]
    if os.path.basename(command[0]) in SHELLS:
        command[0] = shutil.which("dash")
    lines.append("exec " + shlex.join(command))
    return "\n".join(lines) + "\n"


def plan(build, listed, root, scale):
    tests = meson_tests(build)
    source = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    stage = Stage(root)
    os.makedirs(root + "/plan", exist_ok=True)
    entries, scripts = [], []
    for name, variables, arguments in read_list(listed):
        test = tests.get(name)
        if not test:
            print("kernel-plan.py: %s names %s, which Meson does not know" % (listed, name),
                  file=sys.stderr)
            return 1
        for word in test["cmd"]:
            if os.path.isfile(word) and os.path.basename(word) not in SCRIPTS:
                stage.add(word)
            if word.endswith(".py"):
                scripts.append(word)
        for value in test["env"].values():
            if os.path.isfile(value) and os.path.basename(value) not in SCRIPTS:
                stage.add(value)
        entry = "%02d-%s" % (len(entries) + 1, name)
        with open("%s/plan/%s" % (root, entry), "w", encoding="utf-8") as file:
            file.write(script_of(test, variables, arguments))
        entries.append("%s %d" % (entry, min(test["timeout"] * int(scale), SECONDS_MAX)))
    stage.add_python(scripts)
    stage.add_tree(source + "/tests")
    stage.add(build + "/cli/cow")
    for tool in TOOLS:
        stage.add(shutil.which(tool))
    with open(root + "/plan/list", "w", encoding="utf-8") as file:
        file.write("".join(entry + "\n" for entry in entries))
    return 0


# --- results ---

def verdict(status, lines):
    """As Meson judges a TAP test."""
    points = sum(1 for line in lines if re.match(r"(not )?ok\b", line))
    failed = any(re.match(r"not ok\b(?!.*# *todo)", line, re.I) for line in lines)
    plans = [re.match(r"1\.\.(\d+)", line) for line in lines]
    planned = [int(match.group(1)) for match in plans if match]
    if status in (124, 137, 143):
        return "TIMEOUT"
    if any(line.startswith("Bail out!") for line in lines) or len(planned) != 1:
        return "ERROR"
    if status != 0 or failed or planned[0] != points:
        return "FAIL"
    return "SKIP" if planned[0] == 0 else "OK"


def read_results(path):
    """name -> (status or None, seconds, lines) of each test that began."""
    results, name = {}, None
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            line = line.rstrip("\r\n")
            if line.startswith("@start "):
                name = line.split()[1]
                results[name] = (None, 0, [])
            elif line.startswith("@end ") and name:
                _, name, status, seconds = line.split()
                results[name] = (int(status), int(seconds), results[name][2])
                name = None
            elif name and line.startswith(" "):
                results[name][2].append(line[1:])
    return results


def collect(build, stage, results_path, log):
    results = read_results(results_path)
    with open(stage + "/plan/list", encoding="utf-8") as file:
        names = [line.split()[0] for line in file]
    with open(log, "w", encoding="utf-8") as file:
        for name in names:
            status, seconds, lines = results.get(name, (None, 0, []))
            result = "the kernel did not get there" if name not in results else \
                "did not end" if status is None else verdict(status, lines)
            json.dump({"name": name.split("-", 1)[1], "stdout": "\n".join(lines), "result": result,
                       "duration": seconds, "returncode": status}, file)
            file.write("\n")
            if result not in ("OK", "SKIP"):
                print("--- %s: %s" % (name, result.lower()))
                print("\n".join(lines[-40:]))
    return 0


if __name__ == "__main__":
    sys.exit({"plan": plan, "collect": collect}[sys.argv[1]](*sys.argv[2:]))
