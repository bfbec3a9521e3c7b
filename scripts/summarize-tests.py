#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Sums up a run of `meson test` by TAP case: summarize-tests.py TESTLOG REQUIRED|- STATUS SUMMARY

The last line is "N passed, N failed, N skipped", for people and for CI; the file SUMMARY gets it
too. The exit status is 1 when anything failed, when STATUS, that of meson test, is not 0, or when
a promise of REQUIRED was not tested. That file has a line a promise: FILE for a test file none of
whose cases may be skipped, or FILE/CASE for one case; '#' begins a comment.

A file without a single failed case that failed all the same (it crashed, ran out of time, printed
no plan) counts as one failure.
"""

import json
import re
import sys

POINT = re.compile(r"^(not )?ok\b\s*\d*\s*-?\s*([^#]*?)\s*(?:#\s*(skip|todo)\S*\s*(.*))?$", re.I)
SKIP_ALL = re.compile(r"^1\.\.0\s*#\s*skip\S*\s*(.*)$", re.I)
EXPECTED = {"OK", "EXPECTEDFAIL", "SKIP"}


class File:
    """What one test file reported: its cases' verdicts, and what skipped ones gave as reason."""

    def __init__(self, record):
        self.name = record["name"].split(" / ")[-1].split(":")[-1]
        self.cases = {}
        self.reasons = {}
        for line in record.get("stdout", "").splitlines():
            self.read_line(line)
        if record["result"] == "SKIP" and not self.cases:
            self.add("(all)", "skipped", "")
        failed = record["result"] not in EXPECTED
        if failed and "failed" not in self.cases.values():
            self.add("(file: %s)" % record["result"].lower(), "failed", "")
        if not self.cases:
            self.add("(file)", "passed", "")

    def read_line(self, line):
        whole = SKIP_ALL.match(line)
        point = POINT.match(line)
        if whole:
            self.add("(all)", "skipped", whole.group(1))
        elif point:
            wrong, name, directive, reason = point.groups()
            directive = (directive or "").lower()
            if directive == "skip":
                self.add(name, "skipped", reason)
            else:
                self.add(name, "failed" if wrong and directive != "todo" else "passed", "")

    def add(self, case, verdict, reason):
        while case in self.cases:
            case += "'"
        self.cases[case] = verdict
        self.reasons[case] = reason


def read_log(path):
    with open(path, encoding="utf-8", errors="replace") as log:
        return [File(json.loads(line)) for line in log if line.strip()]


def read_required(path):
    if path == "-":
        return []
    with open(path, encoding="utf-8") as lines:
        stripped = (line.split("#")[0].strip() for line in lines)
        return [line for line in stripped if line]


def broken_promise(line, files):
    """Why a required line was not kept, or None."""
    name, _, case = line.partition("/")
    if name not in files:
        return "did not run"
    cases = files[name].cases
    if case and "(all)" not in cases:
        if case not in cases:
            return "did not run"
        cases = {case: cases[case]}
    skipped = [c for c, verdict in cases.items() if verdict == "skipped"]
    if skipped:
        return "was skipped: " + (files[name].reasons[skipped[0]] or skipped[0])
    return None


def main():
    log, required, status, summary = sys.argv[1:5]
    try:
        run = read_log(log)
    except OSError as error:
        print("no test ran: %s" % error)
        print("0 passed, 0 failed, 0 skipped")
        return 1
    files = {file.name: file for file in run}
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    print()
    for file in run:
        for case, verdict in file.cases.items():
            counts[verdict] += 1
            if verdict != "passed":
                reason = file.reasons[case]
                print("%s: %s/%s%s" % (verdict, file.name, case, reason and ": " + reason))
    broken = [(line, broken_promise(line, files)) for line in read_required(required)]
    broken = [(line, why) for line, why in broken if why]
    for promise, why in broken:
        print("required: %s %s" % (promise, why))
    line = "%(passed)d passed, %(failed)d failed, %(skipped)d skipped" % counts
    with open(summary, "w", encoding="utf-8") as file:
        print(line, file=file)
    print(line)
    return 1 if counts["failed"] or broken or int(status) or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
