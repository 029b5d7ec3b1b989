#!/usr/bin/env python3
"""The pages of the repository name files, test programs and sections that exist, and keep to the width of a line.

Standard library only: .ci/run --checks runs it too.
"""

import os
import pathlib
import re
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ.get("HOTLORA_TEST_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
TOP = ("cmake", "client", "deploy", "docs", "proto", "server", "src", "tests", ".ci")
# CHANGELOG.md is not among them: it names files as they were.
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md", "tests/**/README.md", "deploy/**/README.md")
COLUMNS = 120  # of these pages; table rows and links may be longer
SHORT_CELL_PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md", "tests/README.md")
MOST_SENTENCES = 2  # in a cell of a table
LONG_CELLS = ("threat_model.md",)  # a row there is a defence with all its limits

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
BARE_FILE = re.compile(r"[\w/*]+\.(h|cc|cu|proto)")


def expand(word):
    """a.{h,cc} as a.h and a.cc; <name> as a pattern that any name fits."""
    word = re.sub(r"<\w+>", "*", word)
    braces = re.search(r"\{([^{}]*)\}", word)
    if not braces:
        return [word]
    return [each for choice in braces[1].split(",") for each in expand(word[:braces.start()] + choice + word[braces.end():])]


def code_words(text):
    """The words of all code in a page, in backticks and in blocks."""
    spans = [block.strip("`") for block in FENCE.findall(text)] + re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    return {word.rstrip(",.;:)") for span in spans for word in span.split()}


def slug(heading):
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


class Repository:
    def __init__(self, root):
        self.root = root
        self.files = [str(path.relative_to(root)) for top in TOP for path in (root / top).rglob("*") if path.is_file()]
        declared = "".join(path.read_text() for path in (root / "tests").rglob("CMakeLists.txt"))
        self.test_programs = {f"{name}_test" for name in re.findall(r"\bhotlora_test\((\w+)", declared)}
        self.test_programs |= set(re.findall(r"\bhotlora_program\((\w+)", declared))

    def pages(self, patterns):
        return sorted(page for pattern in patterns for page in self.root.glob(pattern))

    def has(self, word):
        """Whether what a word of code names is there; true for words that name neither file nor test program."""
        if re.fullmatch(r"(build/\w+/bin/)?\w+_test", word):
            return word.split("/")[-1] in self.test_programs
        if word.split("/")[0] in TOP and "/" in word:
            return any(self.root.glob(word.rstrip("/")))
        if BARE_FILE.fullmatch(word):
            return any(pathlib.PurePath(file).match(word) for file in self.files)
        return True

    def missing_names(self, page):
        return sorted(word for word in code_words(page.read_text()) if not all(map(self.has, expand(word))))

    def broken_links(self, page):
        broken = []
        for link in LINK.findall(FENCE.sub("", page.read_text())):
            if re.match(r"\w+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if not target.exists():
                broken.append(link)
            elif anchor and anchor not in map(slug, re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)):
                broken.append(link)
        return broken

    def wide_lines(self, page):
        text = FENCE.sub(lambda block: "\n" * block[0].count("\n"), page.read_text())
        return [number for number, line in enumerate(text.splitlines(), 1)
                if len(line) > COLUMNS and not line.startswith("|") and not LINK.search(line)]

    def long_cells(self, page):
        rows = [line for line in FENCE.sub("", page.read_text()).splitlines() if line.startswith("|")]
        cells = [cell for row in rows for cell in row.split("|")]
        return [cell for cell in cells if len(re.findall(r"[^.]\.( +[A-Z`]|\s*$)", cell)) > MOST_SENTENCES]


class DocumentsTest(unittest.TestCase):
    def setUp(self):
        self.repository = Repository(SOURCE)

    def none(self, find, patterns=PAGES):
        found = {str(page.relative_to(SOURCE)): find(page) for page in self.repository.pages(patterns)}
        self.assertTrue(found)
        self.assertEqual({page: what for page, what in found.items() if what}, {})

    def test_what_pages_name_is_there(self):
        self.none(self.repository.missing_names)

    def test_links_lead_somewhere(self):
        self.none(self.repository.broken_links)

    def test_lines_are_narrow(self):
        self.none(self.repository.wide_lines)

    def test_cells_are_short(self):
        self.none(lambda page: [] if page.name in LONG_CELLS else self.repository.long_cells(page), SHORT_CELL_PAGES)


class NegativeControlTest(unittest.TestCase):
    """Each check sees a mistake in a repository of one page."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        root = pathlib.Path(folder.name)
        for name, text in (("src/nn/linear.h", ""), ("src/nn/linear.cc", ""),
                           ("tests/nn/CMakeLists.txt", "hotlora_test(nn SRCS linear_test.cc)")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        self.page = root / "README.md"
        self.repository = Repository(root)

    def write(self, text):
        self.page.write_text(text)
        return self.page

    def test_names(self):
        good = "`src/nn/linear.{h,cc}`, `linear.h`, `src/nn/<name>.cc`, `nn_test`, `docs`, `/metrics`, `styles/neon`\n"
        self.assertEqual(self.repository.missing_names(self.write(good + "```\nbuild/dev/bin/nn_test src/nn\n```\n")), [])
        bad = ["src/nn/lines.h", "src/nn/linear.{h,cu}", "conv2d.h", "conv_test", "tests/<name>.py", "build/dev/bin/no_test"]
        page = self.write(" ".join(f"`{word} -x`" for word in bad[:4]) + f"\n```\n{bad[4]}\n{bad[5]}\n```\n")
        self.assertEqual(self.repository.missing_names(page), sorted(bad))

    def test_links(self):
        page = self.write("# A page's name\n[a](src/nn) [b](#a-pages-name) [c](https://example.org/x)\n")
        self.assertEqual(self.repository.broken_links(page), [])
        self.assertEqual(self.repository.broken_links(self.write("# A\n[a](src/no) [b](#b)\n")), ["src/no", "#b"])

    def test_lines_and_cells(self):
        wide = "x" * (COLUMNS + 1)
        page = self.write(f"{wide}\n| {wide} |\n```\n{wide}\n```\n[{wide}](src)\n\n{wide}\n")
        self.assertEqual(self.repository.wide_lines(page), [1, 8])
        page = self.write("| One. Two. | `a.h` does this. It does that. `b.h` more. |\n")
        self.assertEqual(self.repository.long_cells(page), [" `a.h` does this. It does that. `b.h` more. "])


if __name__ == "__main__":
    unittest.main()
