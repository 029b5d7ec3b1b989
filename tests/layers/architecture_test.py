#!/usr/bin/env python3
"""The table of modules in docs/architecture.md is that of cmake/check_layers.cmake, and its column on LibTorch is true.

Standard library only.
"""

import os
import pathlib
import re
import unittest

SOURCE = pathlib.Path(os.environ.get("HOTLORA_TEST_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', re.MULTILINE)


def headers_by_module():
    """The headers of each module, as paths from the repository's root."""
    modules = {}
    for top in ("src", "server", "client"):
        for path in sorted((SOURCE / top).rglob("*.h")):
            file = path.relative_to(SOURCE)
            module = "/".join(file.parts[:2]) if top == "src" else top
            modules.setdefault(module, []).append(str(file))
    return modules


def has_libtorch(header, seen):
    """Whether the header includes LibTorch, itself or through other headers of ours."""
    if re.match(r"(ATen|c10|torch)/", header):
        return True
    if header in seen or not (SOURCE / header).is_file():
        return False
    seen.add(header)
    return any(has_libtorch(each, seen) for each in INCLUDE.findall((SOURCE / header).read_text()))


def problem_of(cell, with_libtorch, without):
    """What is wrong with a cell of the column "LibTorch in its headers"; None if it is true."""
    form = re.fullmatch(r"(no|yes|only|all but)((?: `\w+\.h`,?)*)", cell)
    named = set(re.findall(r"\w+\.h", cell))
    if not form or bool(named) != (form[1] in ("only", "all but")):
        return 'is neither "no", "yes", "only `x.h`, `y.h`" nor "all but `x.h`, `y.h`"'
    if form[1] == "no" and with_libtorch:
        return f"has LibTorch in {sorted(with_libtorch)}"
    if form[1] == "yes" and not with_libtorch:
        return "has no LibTorch in any header"
    if form[1] == "only" and named != with_libtorch:
        return f"has LibTorch in {sorted(with_libtorch)}"
    if form[1] == "all but" and named != without:
        return f"has no LibTorch in {sorted(without)}"
    return None


class ArchitectureTest(unittest.TestCase):
    def setUp(self):
        page = (SOURCE / "docs/architecture.md").read_text()
        table = page[page.index("| module | its one job | LibTorch in its headers |"):]
        rows = re.findall(r"^\| `([\w/]+?)/?` \| .+ \| (.+) \|$", table[:table.index("\n\n")], re.MULTILINE)
        self.cells = dict(rows)
        self.modules = headers_by_module()

    def test_the_page_and_the_check_name_the_modules_that_exist(self):
        check = (SOURCE / "cmake/check_layers.cmake").read_text()
        rows = {row for row in re.findall(r"^set\(may_include_(\S+)", check, re.MULTILINE) if not row.endswith(".h")}
        self.assertEqual(set(self.cells), rows)
        self.assertEqual(set(self.modules), rows)

    def test_the_column_on_libtorch_is_true(self):
        problems = {}
        for module, headers in self.modules.items():
            torch = {header for header in headers if has_libtorch(header, set())}
            problem = problem_of(self.cells.get(module, ""), {os.path.basename(header) for header in torch},
                                 {os.path.basename(header) for header in set(headers) - torch})
            if problem:
                problems[module] = problem
        self.assertEqual(problems, {})

    def test_a_cell_that_is_not_true_is_found(self):
        for cell in ("", "maybe", "no", "only `a.h`", "only `a.h`, `b.h`, `c.h`", "all but `a.h`", "only", "yes `a.h`"):
            self.assertIsNotNone(problem_of(cell, {"a.h", "b.h"}, {"c.h"}), cell)
        for cell in ("yes", "only `a.h`, `b.h`", "all but `c.h`"):
            self.assertIsNone(problem_of(cell, {"a.h", "b.h"}, {"c.h"}), cell)
        self.assertIsNotNone(problem_of("yes", set(), {"c.h"}))


if __name__ == "__main__":
    unittest.main()
