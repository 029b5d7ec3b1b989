#!/usr/bin/env python3
"""Finds phrases that comments, messages and pages do not use, because they are hard to read for engineers whose first
language is not English. Prints each place and what to write; the exit status is 1 if there are any."""

import pathlib
import re
import subprocess
import sys

SCOPE = ["src", "server", "client", "proto/hotlora", "deploy", "cmake", "docs", "*.md", "Dockerfile", ".ci",
         ":!.ci/check_language.py", ":!deploy/demo/model"]
SUFFIXES = {"", ".h", ".cc", ".cu", ".proto", ".md", ".txt", ".py", ".sh", ".yml", ".yaml", ".json", ".toml", ".cfg", ".cmake"}

PHRASES = [
    (re.compile(r"(?<!there )\bis no (?!longer\b)", re.IGNORECASE), '"is not a ..."'),
    (re.compile(r"\bwhere there is no", re.IGNORECASE), '"if there is no ..."'),
    (re.compile(r"\b(nobody|somebody|whoever|everybody|anybody)\b", re.IGNORECASE),
     "the thread, caller or request that is meant"),
    (re.compile(r"\banew\b", re.IGNORECASE), '"again"'),
    (re.compile(r"(//|#) Of (?!course)"), "a subject first"),
]

# Text that is quoted, from a standard or from another program: (file, part of the line).
EXCEPTIONS: list[tuple[str, str]] = []


# What begins a line of a comment or of a text.
MARGIN = re.compile(r"\s*(//+|#|\*)?\s*")


def phrases_in(name: str, text: str) -> list[str]:
    """Each place in the text of a file, and what to write instead. A phrase may go on in the next line."""
    found = []
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if any(name == file and part in line for file, part in EXCEPTIONS):
            continue
        both = f"{line.rstrip()} {MARGIN.sub('', lines[number], count=1)}" if number < len(lines) else line
        for pattern, instead in PHRASES:
            found += [f'{name}:{number}: "{match.group().strip()}": write {instead}' for match in pattern.finditer(both)
                      if match.start() < len(line)]
    return found


def main() -> int:
    tracked = subprocess.run(["git", "ls-files", "-z", "--", *SCOPE], check=True, capture_output=True, text=True).stdout
    files = [name for name in filter(None, tracked.split("\0")) if pathlib.Path(name).suffix in SUFFIXES]
    found = [line for name in files for line in phrases_in(name, pathlib.Path(name).read_text(encoding="utf-8"))]
    print(*found, f"{len(found)} phrases to replace", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
