#!/usr/bin/env python3
"""Counts what makes source code easy or hard to keep: lengths of files and functions, the share of comments, and blocks
of lines that are there twice. The exit status is 1 if a count is beyond its limit.

usage: .ci/counts.py [REVISION | --root FOLDER]     REVISION: of git; --root: a folder that holds src, server and client
"""

import argparse
import collections
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

AREAS = ("src", "server", "client")
SUFFIXES = {".h", ".cc", ".cu"}

# Limits. A number that the tree does not reach may be lowered, and none is raised without a reason in the review.
LINES_OF_FILE = 500
LINES_OF_HEADER = 250
LINES_OF_FUNCTION = 60
LINES_OF_BLOCK = 6  # a shorter block may be there twice
TWIN_BLOCKS = 0

# What may be longer, and why. One that is not needed is an error too.
LONG_FILES = {
}
LONG_FUNCTIONS = {
    "server/flag_table.cc: FlagTable": "a table: one row for each flag",
    "server/main.cc: Serve": "the life of the process from top to bottom",
}

TEXT = re.compile(
    r"""R"(?P<mark>\w*)\(.*?\)(?P=mark)" | "(?:\\.|[^"\\\n])*" | (?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'""", re.DOTALL | re.VERBOSE)
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
TEXT_OR_COMMENT = re.compile(f"{TEXT.pattern}|(?P<comment>{COMMENT.pattern})", re.DOTALL | re.VERBOSE)

Function = collections.namedtuple("Function", "file line length name")
Twins = collections.namedtuple("Twins", "first second length")


def blank(match):
    """Spaces in the place of a match, with the same line breaks."""
    return re.sub(r"[^\n]", " ", match[0])


def without_comments(text):
    return TEXT_OR_COMMENT.sub(lambda match: blank(match) if match["comment"] else match[0], text)


def is_function(head):
    """Whether `head {` begins a function; `head` is the text from the end of the statement before it."""
    head = re.sub(r"\btemplate\s*<[^()]*?>\s*(?=[\w:]+[\s&*<(:])", "", head).strip()
    if not head or re.match(r"(inline\s+)?namespace\b|(class|struct|union|enum|extern)\b(?!.*\)\s*(const)?$)", head, re.DOTALL):
        return False
    before_parameters, has_parameters, _ = re.sub(r"\boperator\s*[^\s\w]+(?=\()", "operator", head).partition("(")
    return bool(has_parameters) and "=" not in before_parameters


def functions_of(file, text):
    """Functions with a body outside other functions, by braces; lambdas belong to the function around them."""
    code = DIRECTIVE.sub(blank, TEXT_OR_COMMENT.sub(blank, text))
    found = []
    scopes = []  # what each open brace is: "outer" (namespace, class), "body", "value"
    begin = 0  # of the statement
    for match in re.finditer(r"[{};]|\b(public|private|protected)\s*:", code):
        place, sign = match.start(), match[0]
        inside = scopes[-1] if scopes else "outer"
        if sign == "{":
            head = code[begin:place]
            if inside != "outer":
                scopes.append("value")
            elif re.search(r"[\w>]$", head) or head.count("(") != head.count(")"):  # `member_{value}`, `f(Side side = {})`
                scopes.append("value")
            elif is_function(head):
                scopes.append("body")
                start = begin + len(head) - len(head.lstrip())
                name = re.search(r"(operator\s*[^\s\w]+|[\w:~]+)\s*\(", head)[1]
            elif re.match(r"(.*\btemplate\b.*)?\s*((inline\s+)?namespace|class|struct|union|enum|extern)\b", head, re.DOTALL):
                scopes.append("outer")
                begin = place + 1
            else:
                scopes.append("value")
        elif sign == "}":
            closed = scopes.pop() if scopes else "outer"
            if closed == "body":
                line = code.count("\n", 0, start) + 1
                found.append(Function(file, line, code.count("\n", start, place) + 1, name))
            if closed != "value":
                begin = place + 1
        elif inside == "outer":
            begin = match.end()
    return found


def comment_share(text):
    """Lines that hold a comment alone, and lines that are not empty."""
    code = without_comments(text).splitlines()
    lines = [(line, rest) for line, rest in zip(text.splitlines(), code) if line.strip()]
    return sum(not rest.strip() for _, rest in lines), len(lines)


def plain_lines(text):
    """(number, line) of all lines that say something: no comments, includes or namespaces, no lone brackets."""
    lines = enumerate(DIRECTIVE.sub(blank, without_comments(text)).splitlines(), 1)
    lines = [(number, " ".join(line.split())) for number, line in lines]
    return [(number, line) for number, line in lines if re.search(r"\w", line) and not re.match(r"namespace\b", line)]


def twins(texts):
    """Blocks of LINES_OF_BLOCK lines and more that are there twice, each with the place where it was first."""
    files = {name: plain_lines(text) for name, text in texts.items()}
    seen = {}
    found = []
    for name, lines in files.items():
        i = 0
        while i + LINES_OF_BLOCK <= len(lines):
            key = tuple(line for _, line in lines[i:i + LINES_OF_BLOCK])
            first, j = seen.setdefault(key, (name, i))
            if first == name and j + LINES_OF_BLOCK > i:  # itself, or overlapping
                i += 1
                continue
            other, length = files[first], LINES_OF_BLOCK
            while (i + length < len(lines) and j + length < len(other) and (first != name or j + length < i) and
                   lines[i + length][1] == other[j + length][1]):
                length += 1
            found.append(Twins(f"{first}:{other[j][0]}", f"{name}:{lines[i][0]}", length))
            i += length
    return found


def read(root):
    paths = sorted(path for area in AREAS for path in (root / area).rglob("*") if path.suffix in SUFFIXES)
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in paths}


def spread(lengths):
    ordered = sorted(lengths) or [0]
    return f"{statistics.median(ordered):.0f} / {ordered[len(ordered) * 9 // 10]} / {ordered[-1]}"


def row(area, texts, functions, blocks):
    def share(headers):
        counts = [comment_share(text) for name, text in texts.items() if name.endswith(".h") == headers]
        return f"{100 * sum(comment for comment, _ in counts) / max(1, sum(all_ for _, all_ in counts)):.1f} %"

    return (area, len(texts), spread(text.count("\n") for text in texts.values()), len(functions),
            spread(each.length for each in functions), sum(each.length > LINES_OF_FUNCTION for each in functions),
            share(True), share(False), len(blocks))


def report(texts):
    functions = [each for name, text in texts.items() for each in functions_of(name, text)]
    blocks = twins(texts)
    rows = [("", "files", "median/p90/longest", "functions", "median/p90/longest", f"over {LINES_OF_FUNCTION}",
             "comments: .h", ".cc", "twin blocks")]
    for area in AREAS + ("",):
        rows.append(row(area or "all", {name: text for name, text in texts.items() if name.startswith(area)},
                        [each for each in functions if each.file.startswith(area)],
                        [each for each in blocks if each.second.startswith(area)]))
    widths = [max(len(str(line[i])) for line in rows) for i in range(len(rows[0]))]
    for line in rows:
        print("  ".join(str(cell).rjust(width) for cell, width in zip(line, widths)))
    for block in blocks:
        print(f"twin block: {block.length} lines: {block.first} and {block.second}")
    return functions, blocks


def problems_of(texts, functions, blocks):
    """A line for each count that is beyond its limit, and for each exception that is not needed."""
    problems = []
    long = set()
    for name, text in texts.items():
        lines, most = text.count("\n"), LINES_OF_HEADER if name.endswith(".h") else LINES_OF_FILE
        if lines > most:
            long.add(name)
            if name not in LONG_FILES:
                problems.append(f"{name} has {lines} lines; at most {most} are allowed")
    for each in functions:
        key = f"{each.file}: {each.name}"
        if each.length > LINES_OF_FUNCTION:
            long.add(key)
            if key not in LONG_FUNCTIONS:
                problems.append(f"{each.file}:{each.line}: {each.name} has {each.length} lines; "
                                f"at most {LINES_OF_FUNCTION} are allowed")
    for key in [*LONG_FILES, *LONG_FUNCTIONS]:
        if key.partition(":")[0] in texts and key not in long:
            problems.append(f"{key} is an exception in .ci/counts.py, but it is not too long: remove it there")
    if len(blocks) > TWIN_BLOCKS:
        problems.append(f"{len(blocks)} blocks of {LINES_OF_BLOCK} lines and more are there twice; "
                        f"at most {TWIN_BLOCKS} are allowed")
    return problems


def count(root):
    texts = read(root)
    problems = problems_of(texts, *report(texts)) if texts else [f"{root} has no sources"]
    for problem in problems:
        print(f"error: {problem}")
    return 1 if problems else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("revision", nargs="?", help="of git; without it the working tree")
    parser.add_argument("--root", type=pathlib.Path, help="a folder that holds src, server and client")
    arguments = parser.parse_args()
    if arguments.revision is None:
        return count(arguments.root or pathlib.Path(__file__).resolve().parents[1])
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", arguments.revision, *AREAS], check=True, capture_output=True)
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        return count(pathlib.Path(folder))


if __name__ == "__main__":
    sys.exit(main())
