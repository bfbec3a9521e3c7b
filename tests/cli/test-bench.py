# SPDX-License-Identifier: MIT
"""
cow bench: every experiment is run in a tiny setting, and the facts that have to be so are so. No
time is asserted. Then the command: usage, files, merging, interrupts, and the page in a browser.
"""
import atexit
import csv
import html.parser
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

from support import COW, Skip, case, main

TUNING = os.environ.get("COW_TEST_ALLOW_TUNING") == "1"
ROOT = os.geteuid() == 0

# The facts that each experiment has to have checked, by a part of their texts.
FACTS = {
    "fork-methods": ["fork() copies none of the parent's pages", "the naive copy copies all"],
    "spawn-rate": ["workers start and end"],
    "fork-size": ["page-table memory grows with size", "page tables of its own"],
    "fork-exec": ["exec() comes before the parent's memory is copied"],
    "rss": ["reading un-shares nothing", "all that is written is the child's own"],
    "page-granularity": ["exactly one page diverges", "MAP_SHARED copies nothing",
                         "libcow keeps exactly one page"],
    "break-even": ["both sides did their writes"],
    "swarm": ["every child has a buffer of its own"],
    "fault-path": ["no write raised a signal"],
    "fault-contention": ["threads write their parts"],
    "ksm": ["a write to a merged page is not seen in its twin"],
    "misconceptions": ["fork() copies no page", "as many pages diverge as are written",
                       "stays private"],
    "gc": ["reading un-shares nothing", "a moving collector un-shares all",
           "a frozen heap stays shared"],
    "persistent-structure": ["copies one node of each", "every version holds what it held"],
}
# What may be skipped, and why, where the machine has no such thing.
MAY_SKIP = {"ksm": r"KSM|root|allow-tuning|merged nothing"}


def run(*arguments, timeout=280, **keywords):
    return subprocess.run([COW, "bench", *arguments], stdin=subprocess.DEVNULL, timeout=timeout,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords)


def check(holds, what):
    if not holds:
        raise AssertionError(what)


def tuning():
    return ["--allow-tuning"] if TUNING and ROOT else []


tmp = tempfile.mkdtemp()
atexit.register(shutil.rmtree, tmp, ignore_errors=True)
# Servers that give up their rights have to get there.
os.chmod(tmp, 0o755)
listed = [e["name"] for e in json.loads(run("--list", "--json", "-").stdout)["experiments"]]
settings = ["/proc/sys/vm/overcommit_memory", "/proc/sys/vm/overcommit_ratio",
            "/proc/sys/vm/overcommit_kbytes", "/sys/kernel/mm/ksm/run",
            "/sys/kernel/mm/ksm/pages_to_scan", "/sys/kernel/mm/transparent_hugepage/enabled"]


def read_settings():
    result = {}
    for path in settings:
        try:
            with open(path) as file:
                result[path] = file.read()
        except OSError:
            pass
    return result


def experiment_case(name):
    def experiment():
        before = read_settings()
        files = os.path.join(tmp, name)
        os.mkdir(files)
        result = run("--tiny", "--json", "-", "--directory", files, *tuning(), name)
        check(result.returncode == 0, f"status {result.returncode}: {result.stderr}"
              f"{result.stdout[-3000:]}")
        document = json.loads(result.stdout)
        check(document["schema"] == "cow-bench/1", "schema")
        check(list(document)[0] == "schema", "the schema comes first")
        found, = document["experiments"]
        check(os.listdir(files) == [], "its directory is empty afterwards")
        check(read_settings() == before, "settings are what they were")
        for key in ("name", "title", "source", "claim", "method"):
            check(isinstance(found[key], str) and found[key], key)
        check(found["failed"] is None, f"failed: {found['failed']}")
        if found["skipped"] is not None:
            if name in FACTS:
                check(re.search(MAY_SKIP.get(name, "root|needs|no "), found["skipped"]),
                      f"skipped: {found['skipped']}")
            raise Skip(found["skipped"])
        check(found["verdict"] in ("holds", "holds in part", "does not hold"), "verdict")
        check(found["reason"], "reason")
        check(found["rows"], "rows")
        keys = [row["key"] for row in found["rows"]]
        check(len(keys) == len(set(keys)), f"keys are unique: {sorted(keys)}")
        for row in found["rows"]:
            check(row["n"] > 0 or row["skipped"], f"{row['key']} has a figure, or says why not")
            if row["n"]:
                check(row["min"] <= row["median"] <= row["max"], row["key"])
        for fact in found["checks"]:
            check(fact["holds"], fact["what"])
        whats = [fact["what"] for fact in found["checks"]]
        for fact in FACTS.get(name, []):
            check(any(fact in what for what in whats), f"not checked: {fact}; but {whats}")
        plotted = {row.get("plot") for row in found["rows"]} - {None}
        check(plotted <= {plot["name"] for plot in found["plots"]}, f"plots {plotted}")

    experiment.__name__ = name.replace("-", "_")
    return experiment


for listed_name in listed:
    case(experiment_case(listed_name))


@case
def list_names_all():
    text = run("--list").stdout
    check(set(FACTS) <= set(listed), f"missing: {set(FACTS) - set(listed)}")
    for name in listed:
        check(re.search(rf"^{name} ", text, re.M), name)
    check(len(run("--list", "rss", "gc").stdout.splitlines()) == 3, "titles and the two asked for")


@case
def completion_names_all():
    result = subprocess.run([COW, "completion", "bash"], stdout=subprocess.PIPE, text=True)
    for name in [*listed, "all"]:
        check(re.search(rf"(?<![\w-]){name}(?![\w-])", result.stdout), f"it completes {name}")


@case
def manual_names_all():
    with open(os.path.join(os.environ["SOURCE_ROOT"], "man/cow-bench.1.scd")) as file:
        page = file.read()
    for name in listed:
        check(f"\n*{name}*\n" in page, f"cow-bench(1) names {name}")


@case
def bad_usage():
    for arguments, what in [
            (["no-such"], "no experiment 'no-such'"),
            (["--quick", "--full", "rss"], "exclude each other"),
            (["--merge"], "wants files"),
            (["--runs", "0", "rss"], "--runs"),
            (["--memory", "1k", "rss"], "--memory"),
            (["--csv", "-", "--json", "-", "rss"], "only one of"),
            (["--frobnicate"], "--frobnicate")]:
        result = run(*arguments)
        check(result.returncode == 2, f"{arguments}: status {result.returncode}")
        check(what in result.stderr, f"{arguments}: {result.stderr}")
        check(result.stdout == "", f"{arguments}: {result.stdout}")


@case
def places_that_cannot_be_written():
    for arguments in (["--json", "/nowhere/a.json"], ["--csv", "/nowhere/a.csv"],
                      ["--markdown", "/nowhere/a.md"], ["--html", "/nowhere/below/a"],
                      ["--html", "/dev/null"], ["--directory", "/nowhere"]):
        started = time.monotonic()
        result = run("--tiny", *arguments, "rss")
        check(result.returncode == 1, f"{arguments}: status {result.returncode}")
        check("/nowhere" in result.stderr or "/dev/null" in result.stderr, result.stderr)
        check("=>" not in result.stdout, f"{arguments}: nothing is measured in vain")
        check(time.monotonic() - started < 60, "it says so at once")


@case
def a_full_disk_is_named():
    """What a saving child could not write is said, and not that it is gone."""
    if not ROOT:
        raise Skip("needs root, to mount a small file system")
    place = os.path.join(tmp, "small")
    os.mkdir(place)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place]
    done = subprocess.run(mount, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        done = run("--tiny", "--directory", place, "bgsave")
        left = os.listdir(place)
    finally:
        subprocess.run(["umount", place], check=True)
    check(done.returncode == 1 and "No space left on device" in done.stdout, done.stdout[-500:])
    check(not left, f"{left} is left behind")


@case
def rows_on_standard_output():
    """- is no file of that name, and the text makes way."""
    where = os.path.join(tmp, "dash")
    os.mkdir(where)
    done = subprocess.run([COW, "bench", "--tiny", "--csv", "-", "rss"], cwd=where, text=True,
                          stdout=subprocess.PIPE, timeout=100)
    check(done.returncode == 0 and not os.listdir(where), f"status {done.returncode}")
    rows = list(csv.reader(done.stdout.splitlines()))
    check(len(rows) > 5 and len({len(row) for row in rows}) == 1, done.stdout)
    done = run("--tiny", "--directory", "/etc/passwd", "rss")
    check("cannot make files in /etc/passwd: Not a directory; give" in done.stderr, done.stderr)


@case
def needs_are_said():
    if not ROOT:
        raise Skip("needs root, to be somebody else")
    result = run("--tiny", "ksm")
    check(result.returncode == 0, result.stderr)
    check("--allow-tuning" in result.stdout, result.stdout)
    # Who may not do what it needs is told so; who may do the rest, does it.
    unprivileged = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", COW, "bench",
                    "--tiny", "--json", "-", "--directory", "/var/tmp", "ksm", "page-granularity",
                    "rss", "misconceptions"]
    if subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "test", "-x",
                       COW]).returncode != 0:
        raise Skip("others may not run the command where it was built")
    result = subprocess.run(unprivileged, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            timeout=200)
    check(result.returncode == 0, f"unprivileged: {result.stderr}{result.stdout[-2000:]}")
    found = {e["name"]: e for e in json.loads(result.stdout)["experiments"]}
    check("root" in found["ksm"]["skipped"], "ksm says what it needs")
    check(found["page-granularity"]["verdict"] == "holds", "one page diverges, without root, too")
    check(any("root" in note for note in found["page-granularity"]["notes"]), "and says how")


def descendants(pid):
    result = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], stdout=subprocess.PIPE, text=True)
    children = {}
    for line in result.stdout.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found = []
    left = [pid]
    while left:
        for child in children.get(left.pop(), []):
            found.append(child)
            left.append(child)
    return found


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def interrupt(number, whole_group):
    files = tempfile.mkdtemp(dir=tmp)
    output = os.path.join(tmp, "never.json")
    process = subprocess.Popen(
        [COW, "bench", "--quick", "--json", output, "--directory", files, "swarm"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(descendants(process.pid)) < 20 and time.monotonic() < deadline:
        time.sleep(0.05)
    started = descendants(process.pid)
    check(len(started) >= 20, "a swarm was started")
    if whole_group:
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    process.communicate(timeout=120)
    check(process.returncode == -number, f"it ends by the signal: {process.returncode}")
    deadline = time.monotonic() + 60
    while any(map(is_alive, started)) and time.monotonic() < deadline:
        time.sleep(0.05)
    check(not any(map(is_alive, started)), "nothing that it started is left")
    deadline = time.monotonic() + 60
    while os.listdir(files) and time.monotonic() < deadline:
        time.sleep(0.05)
    check(os.listdir(files) == [], "no file is left")
    check(not os.path.exists(output), "no result is written")


@case
def an_interrupt_leaves_nothing_behind():
    interrupt(signal.SIGINT, True)


@case
def termination_leaves_nothing_behind():
    interrupt(signal.SIGTERM, False)


@case
def a_kill_leaves_nothing_behind():
    interrupt(signal.SIGKILL, False)


# --- files ---

def measured():
    """Two results, of which the second says that it is another kernel's."""
    one, two = os.path.join(tmp, "one.json"), os.path.join(tmp, "two.json")
    if not os.path.exists(two):
        result = run("--tiny", "--json", one, "--markdown", os.path.join(tmp, "one.md"), "--csv",
                     os.path.join(tmp, "one.csv"), "--html", os.path.join(tmp, "one"), "rss",
                     "fork-size", "page-granularity")
        check(result.returncode == 0, result.stderr)
        with open(one) as file:
            document = json.load(file)
        document["machine"]["kernel"] = "6.99.0-other<kernel>"
        del document["experiments"][0]
        with open(two, "w") as file:
            json.dump(document, file)
    return one, two


@case
def files_say_the_same():
    one, _ = measured()
    with open(one) as file:
        document = json.load(file)
    rows = {(e["name"], r["key"]): r for e in document["experiments"] for r in e["rows"]}
    with open(os.path.join(tmp, "one.csv"), newline="") as file:
        lines = list(csv.DictReader(file))
    check(len(lines) == len(rows), "a line for each row")
    for line in lines:
        row = rows[line["experiment"], line["key"]]
        check(not row["n"] or abs(float(line["median"]) - row["median"]) <= 1e-6 *
              abs(row["median"]), str(line))
    with open(os.path.join(tmp, "one.md")) as file:
        text = file.read()
    for experiment in document["experiments"]:
        check(f"## {experiment['name']}" in text, experiment["name"])
        check(f"**{experiment['verdict']}**" in text, experiment["verdict"])
    harness = document["harness"]
    check(0 < harness["overhead_ns"] < 1e6, "the harness's own overhead is there")
    check(harness["shortest_interval_ns"] > 0, "and what it is held against")


@case
def merged_results_stand_side_by_side():
    one, two = measured()
    merged = os.path.join(tmp, "merged.json")
    result = run("--merge", one, two, "--json", merged, "--csv", os.path.join(tmp, "merged.csv"),
                 "--markdown", os.path.join(tmp, "merged.md"), "--html", os.path.join(tmp, "both"))
    check(result.returncode == 0, result.stderr)
    check("6.99.0-other<kernel>" in result.stdout and os.uname().release in result.stdout,
          "both kernels are named")
    with open(merged) as file:
        document = json.load(file)
    check(document["schema"] == "cow-bench-merged/1", "schema")
    check(len(document["documents"]) == 2, "both are there")
    again = run("--merge", merged, "--json", "-")
    check(json.loads(again.stdout) == document, "a merged file merges, too")


@case
def what_is_no_result_is_refused():
    one, _ = measured()
    broken = {"empty": "", "text": "hello", "array": "[]", "other": '{"schema":"cow-ps/1"}',
              "half": open(one).read()[:500]}
    for name, content in broken.items():
        path = os.path.join(tmp, f"broken-{name}")
        with open(path, "w") as file:
            file.write(content)
        result = run("--merge", one, path)
        check(result.returncode == 1, f"{name}: {result.returncode}")
        check(path in result.stderr, f"{name}: {result.stderr}")
    # What only looks like one is shown as far as it goes.
    odd = {"schema": "cow-bench/1", "machine": 7, "experiments": [
        3, {"name": 4, "rows": 5}, {"name": "rss", "rows": [{"key": [], "median": "x"}, None],
                                    "checks": [1], "notes": [2, None], "parts": ["x"],
                                    "plots": [None, {"name": 1}]}]}
    path = os.path.join(tmp, "odd.json")
    with open(path, "w") as file:
        json.dump(odd, file)
    result = run("--merge", path, one, "--html", os.path.join(tmp, "odd"), "--markdown",
                 os.path.join(tmp, "odd.md"), "--csv", os.path.join(tmp, "odd.csv"))
    check(result.returncode == 0, f"odd: {result.returncode} {result.stderr}")


# --- the page ---

class Page(html.parser.HTMLParser):
    void = {"meta", "link", "br", "img", "input", "hr"}

    def __init__(self):
        super().__init__()
        self.open, self.errors, self.links, self.ids, self.outside = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in self.void:
            self.open.append(tag)
        self.ids.append(attributes.get("id"))
        if tag == "a":
            self.links.append(attributes["href"])
        for name in ("src", "href"):
            value = attributes.get(name, "")
            if value and not value.startswith(("#", "data:")):
                self.outside.append(value)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.errors.append(f"</{tag}>")


@case
def the_page_is_whole_and_alone():
    measured()
    merged_results_stand_side_by_side()
    for name in ("one", "both"):
        with open(os.path.join(tmp, name, "index.html")) as file:
            text = file.read()
        page = Page()
        page.feed(text)
        check(not page.errors and not page.open, f"{name}: tags {page.errors} {page.open}")
        check(page.outside == [], f"{name}: it needs {page.outside}")
        for link in page.links:
            check(link[1:] in page.ids, f"{name}: {link} leads nowhere")
        check(os.listdir(os.path.join(tmp, name)) == ["index.html"], "one file")
        check('name="viewport"' in text and "prefers-color-scheme: dark" in text, "phone, dark")
        check("<kernel>" not in text, "what is not markup is not taken for it")


def browser(page, *arguments, width=1000, height=1000):
    """Opens it without a network; returns the document after scripts have run."""
    program = shutil.which("chromium")
    if not program:
        raise Skip("needs chromium: apt install chromium")
    profile = tempfile.mkdtemp(dir=tmp)
    result = subprocess.run(
        [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking",
         "--enable-logging=stderr", f"--user-data-dir={profile}", f"--window-size={width},{height}",
         "--hide-scrollbars", *arguments, f"file://{page}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        timeout=180, env={**os.environ, "HOME": profile, "LSAN_OPTIONS": "detect_leaks=0"})
    shutil.rmtree(profile, ignore_errors=True)
    check(result.returncode == 0, f"chromium: {result.returncode} {result.stderr[-2000:]}")
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    check(not console, f"scripts complain: {console}")
    return result.stdout


@case
def the_page_opens_in_a_browser():
    one, _ = measured()
    page = os.path.join(tmp, "one", "index.html")
    with open(one) as file:
        plots = sum(any(row.get("plot") == plot["name"] and row["n"] for row in e["rows"])
                    for e in json.load(file)["experiments"] for plot in e["plots"])
    for width in (390, 1000):
        text = browser(page, "--dump-dom", width=width)
        drawn = re.search(r'data-plots="(\d+)"', text)
        if not drawn and "no plots" in text:
            raise Skip("Chart.js was not there when this was built: apt install libjs-chart.js")
        check(drawn and int(drawn[1]) == plots, f"{plots} plots are drawn: {drawn and drawn[0]}")
        sizes = re.findall(r"<canvas[^>]*style=\"[^\"]*width: (\d+)px", text)
        check(len(sizes) == plots and all(100 < int(size) <= max(width, 500) for size in sizes),
              f"each fits into a window of {width}: {sizes}")
    picture = os.path.join(tmp, "page.png")
    browser(page, f"--screenshot={picture}", height=3000)
    check(os.path.getsize(picture) > 20000, "a picture of it is no empty page")


@case
def a_page_of_several_kernels_opens_in_a_browser():
    merged_results_stand_side_by_side()
    text = browser(os.path.join(tmp, "both", "index.html"), "--dump-dom")
    if "no plots" in text:
        raise Skip("Chart.js was not there when this was built: apt install libjs-chart.js")
    check("data-plots=" in text, "plots are drawn")


main()
