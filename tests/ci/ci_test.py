#!/usr/bin/env python3
"""The checks of the text in .ci find what they should, each on a tree or a text that is made up."""

import os
import pathlib
import runpy
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ.get("HOTLORA_TEST_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
COUNTS = SOURCE / ".ci/counts.py"


def function(name, lines):
    body = "".join(f"  x = {name}{i}(x);\n" for i in range(lines - 3))
    return f"int {name}(int x) {{\n{body}  return x;\n}}\n"


class CountsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.write("src/a.cc", function("Short", 60))

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run_counts(self):
        done = subprocess.run([COUNTS, "--root", self.root], capture_output=True, text=True)
        return done.returncode, [line for line in done.stdout.splitlines() if line.startswith("error: ")], done.stdout

    def assert_error(self, *parts):
        code, errors, text = self.run_counts()
        self.assertEqual((code, len(errors)), (1, 1), text)
        for part in parts:
            self.assertIn(part, errors[0])

    def test_a_tree_within_the_limits_passes(self):
        code, errors, text = self.run_counts()
        self.assertEqual((code, errors), (0, []), text)

    def test_an_empty_tree_is_an_error(self):
        (self.root / "src/a.cc").unlink()
        self.assert_error("no sources")

    def test_long_function(self):
        self.write("server/b.cc", "// A comment.\n\n" + function("Long", 61))
        self.assert_error("server/b.cc:3: Long has 61 lines")

    def test_long_file_and_long_header(self):
        self.write("src/b.cc", "\n" * 500)
        self.write("src/b.h", "\n" * 250)
        self.assertEqual(self.run_counts()[0], 0)
        self.write("src/b.h", "\n" * 251)
        self.assert_error("src/b.h has 251 lines")
        self.write("src/b.h", "")
        self.write("src/b.cc", "\n" * 501)
        self.assert_error("src/b.cc has 501 lines")

    def test_an_exception_that_is_not_needed(self):
        exception = next(iter(runpy.run_path(COUNTS)["LONG_FUNCTIONS"]))
        file, _, name = exception.partition(": ")
        self.write(file, function(name, 60))
        self.assert_error(f"{exception} is an exception", "remove it")
        self.write(file, function(name, 61))
        self.assertEqual(self.run_counts()[0], 0)

    def test_blocks_that_are_there_twice(self):
        most = runpy.run_path(COUNTS)["TWIN_BLOCKS"]
        for block in range(most + 1):
            lines = [f"  Call{block}({i});\n" for i in range(6)]
            self.write(f"src/first{block}.cc", "void F() {\n" + "".join(lines) + "}\n")
            self.write(f"src/second{block}.cc", f"void G{block}() {{\n  // why\n\n" + "  ".join(lines) + "  x();\n}\n")
        self.assert_error(f"{most + 1} blocks")
        self.assertIn("twin block: 6 lines: src/first0.cc:2 and src/second0.cc:4\n", self.run_counts()[2])
        self.write(f"src/second{most}.cc", "void G() {}\n")
        self.assertEqual(self.run_counts()[0], 0)


class CountResultsTest(unittest.TestCase):
    """What tests/count_results.py says of the results of ctest."""

    def count(self, *cases):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        results, tests = (pathlib.Path(folder.name) / name for name in ("results.xml", "tests.json"))
        results.write_text(f"<testsuite>{''.join(cases)}</testsuite>")
        tests.write_text('{"tests": []}')
        done = subprocess.run(["/usr/bin/python3", SOURCE / "tests/count_results.py", results, tests],
                              capture_output=True, text=True)
        return done.returncode, done.stdout.splitlines()

    def case(self, name, status, lines=()):
        return f'<testcase name="{name}" status="{status}"><system-out>{chr(10).join(lines)}</system-out></testcase>'

    def test_all_passed(self):
        self.assertEqual(self.count(self.case("a", "run", ["text"])), (0, ["1 passed, 0 failed, 0 skipped"]))

    def test_a_failed_test_is_named_with_the_end_of_its_output(self):
        code, lines = self.count(self.case("a", "run"), self.case("b", "fail", map(str, range(100))))
        last = [f"failed: | {number}" for number in range(60, 100)]
        self.assertEqual((code, lines), (1, ["failed: b", *last, "1 passed, 1 failed, 0 skipped"]))


class FunctionsTest(unittest.TestCase):
    """What counts as a function, and where it ends."""

    def functions(self, text):
        return [(each.name, each.line, each.length) for each in runpy.run_path(COUNTS)["functions_of"]("x.cc", text)]

    def test_functions(self):
        self.assertEqual(self.functions("""#define BRACE {
namespace a {
class B : public C {
 public:
  B(int x = {}) : x_{x}, y_([] { return "}"; }) {
    // }
  }
  bool operator==(const B& other) const { return x_ == other.x_; }
 private:
  int x_{1};
};
template <class T>
std::vector<T> F(
    T x) {
  const auto f = [&](char c) {
    if (c == '}') return;
  };
}
const int kTable[] = {
    G(1),
};
enum class E { kA };
}
"""), [("B", 5, 3), ("operator==", 8, 1), ("F", 12, 7)])

    def test_comments(self):
        share = runpy.run_path(COUNTS)["comment_share"]
        self.assertEqual(share('// one\n\nint x;  // not alone\nF("// text");\n/* two\n   three */\n'), (3, 5))


class LanguageTest(unittest.TestCase):
    def test_phrases(self):
        phrases_in = runpy.run_path(SOURCE / ".ci/check_language.py")["phrases_in"]
        good = "There is no file. It is no longer there. Of course. It is not a name."
        self.assertEqual(phrases_in("a.h", good), [])
        for bad in ("This is no name.", "Where there is no file", "Nobody waits", "for anybody", "made anew", "// Of EndLoading."):
            self.assertEqual(len(phrases_in("a.h", f"{good}\n{bad}\n")), 1, bad)
            self.assertIn("a.h:2: ", phrases_in("a.h", f"{good}\n{bad}\n")[0])
        wrapped = "// It is no\n// longer there, but\n  // it is no\n  // name.\n"
        self.assertEqual([place.split('"')[0] for place in phrases_in("a.h", wrapped)], ["a.h:3: "])


if __name__ == "__main__":
    unittest.main()
