"""Prints "N passed, N failed, N skipped" for what ctest ran; the exit status is 0 if something passed and nothing failed.

Before that it prints the end of what each failed test wrote, each line after "failed: ", so that a log of which only the
end is kept still says what failed.

usage: count_results.py RESULTS TESTS
    RESULTS   of `ctest --output-junit`
    TESTS     of `ctest --show-only=json-v1`, for the labels, which the results lack

Where CI=true, a skipped end-to-end test counts as failed: there, what it needs must be installed.
"""

import json
import os
import sys
import xml.etree.ElementTree as ElementTree

MUST_RUN_IN_CI = {"e2e"}
LAST_LINES = 40  # of a failed test's output


def read_cases(path):
    try:
        return ElementTree.parse(path).getroot().findall("testcase")
    except (OSError, ElementTree.ParseError) as error:
        print(f"count_results: ctest left no readable results: {error}", file=sys.stderr)
        return []


def read_labels(path):
    """The labels of each test, by its name."""
    with open(path, encoding="utf-8") as file:
        tests = json.load(file)["tests"]
    return {
        test["name"]: {label for entry in test["properties"] if entry["name"] == "LABELS" for label in entry["value"]}
        for test in tests
    }


def print_failure(case):
    print(f"failed: {case.get('name')}")
    for line in (case.findtext("system-out") or "").rstrip().splitlines()[-LAST_LINES:]:
        print(f"failed: | {line}")


def outcome(case, labels, in_ci):
    if case.get("status") == "run":
        return "passed"
    if case.get("status") == "fail" or case.find("skipped") is None:
        return "failed"
    if in_ci and labels & MUST_RUN_IN_CI:
        print(f"count_results: {case.get('name')} was skipped, which in CI is a failure")
        return "failed"
    return "skipped"


def main(results, tests):
    in_ci = os.environ.get("CI", "").lower() in ("1", "true")
    labels = read_labels(tests)
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for case in read_cases(results):
        result = outcome(case, labels.get(case.get("name"), set()), in_ci)
        counts[result] += 1
        if result == "failed":
            print_failure(case)
    print(", ".join(f"{count} {result}" for result, count in counts.items()))
    return 0 if counts["passed"] > 0 and counts["failed"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
