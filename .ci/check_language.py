#!/usr/bin/env python3
"""Finds phrases that docs and comments do not use, because they are hard to read for engineers whose first language is
not English. Prints each place and what to write; the exit status is 1 if there are any."""

import pathlib
import re
import subprocess
import sys

SCOPE = ["src", "server", "client", "proto/hotlora", "README.md", "CONTRIBUTING.md", "SECURITY.md", "docs"]
SUFFIXES = {".h", ".cc", ".cu", ".proto", ".md", ".txt", ".py"}

PHRASES = [
    (re.compile(r"(?<!there )(?<!There )\bis no (?!longer\b)"), '"is not a ..."'),
    (re.compile(r"\bwhere there is no"), '"if there is no ..."'),
    (re.compile(r"\b(nobody|somebody|whoever|everybody)\b", re.IGNORECASE), "the thread, caller or request that is meant"),
    (re.compile(r"\banew\b", re.IGNORECASE), '"again"'),
    (re.compile(r"(//|#) Of (?!course)"), "a subject first"),
]

# Text that is quoted, from a standard or from another program: (file, part of the line).
EXCEPTIONS: list[tuple[str, str]] = []


def main() -> int:
    tracked = subprocess.run(["git", "ls-files", "-z", "--", *SCOPE], check=True, capture_output=True, text=True).stdout
    found = 0
    for name in filter(None, tracked.split("\0")):
        path = pathlib.Path(name)
        if path.suffix not in SUFFIXES:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if any(name == file and part in line for file, part in EXCEPTIONS):
                continue
            for pattern, instead in PHRASES:
                for match in pattern.finditer(line):
                    print(f"{name}:{number}: \"{match.group().strip()}\": write {instead}")
                    found += 1
    print(f"{found} phrases to replace")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
