"""What the installed programs and libhotlora_cuda.so need is found by their own run paths, or belongs to a Debian package that
the image installs. The loader's cache of this machine is not asked: it may hold what no other machine has.

usage: run_paths_test.py BUILD_FOLDER C++_COMPILER [unittest's arguments]
"""

import collections
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

BUILD, COMPILER = pathlib.Path(sys.argv[1]), sys.argv[2]
SOURCE = pathlib.Path(__file__).resolve().parents[2]
LOADER = "/lib64/ld-linux-x86-64.so.2"


def output(*words):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


def compile_elf(path, *words, text="int main() {}\n"):
    subprocess.run([COMPILER, "-x", "c++", "-", "-x", "none", "-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined", "-o", path,
                    *words], check=True, input=text, text=True)
    return path


class Elf:
    """The dynamic section of a program or library."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        entries = collections.defaultdict(list)
        for kind, value in re.findall(r"\((NEEDED|SONAME|RPATH|RUNPATH)\).*\[(.*)\]", output("readelf", "-d", path)):
            entries[kind].append(value)
        self.needed, self.names = entries["NEEDED"], [self.path.name, *entries["SONAME"]]
        self.runpath = self.folders(entries["RUNPATH"])
        self.rpath = [] if self.runpath else self.folders(entries["RPATH"])

    def folders(self, values):
        texts = [text for value in values for text in value.split(":") if text]
        return [pathlib.Path(text.replace("$ORIGIN", str(self.path.parent))) for text in texts]


class DebianLibraries:
    """Libraries of the packages that the Dockerfile installs, and of the packages that these need."""

    def __init__(self):
        words = re.search(r"apt-get install -y --no-install-recommends \\\n(.*?)&&", (SOURCE / "Dockerfile").read_text(), re.DOTALL)
        needs = {}
        for line in output("dpkg-query", "-W", "-f", "${Package}\t${Depends}, ${Pre-Depends}\n").splitlines():
            package, depends = line.split("\t")
            needs[package] = re.findall(r"(?:^|[,|]) *([a-z0-9][a-z0-9.+-]*)", depends)
        packages, waiting = set(), words.group(1).replace("\\", " ").split()
        while waiting:
            package = waiting.pop()
            if package not in packages:
                packages.add(package)
                waiting += needs.get(package, [])
        files = output("dpkg-query", "-L", *(package for package in packages if package in needs))
        self.names = set(re.findall(r"^(?:/usr)?/lib(?:64|/x86_64-linux-gnu)/([^/\n]+)$", files, re.MULTILINE))

    def have(self, name):
        return name in self.names


class Process:
    """Finds libraries as glibc does for a program and what it loads later, but for the cache. `missing` says what was not found."""

    def __init__(self, debian):
        self.debian, self.loaded, self.missing = debian, {}, []

    def load(self, path, by=()):
        """`by`: what loads it, the nearest first. What is needed is found breadth first, each name once."""
        root = Elf(path)
        waiting = collections.deque([(root, by)])
        while waiting:
            elf, loaders = waiting.popleft()
            self.loaded.update(dict.fromkeys(elf.names, elf.path))
            for name in elf.needed:
                if name not in self.loaded:
                    found = self.find(name, elf, loaders)
                    self.loaded[name] = found
                    if found is not None:
                        waiting.append((Elf(found), (elf, *loaders)))
        return root

    def find(self, name, elf, loaders):
        # A RUNPATH is for the object itself. An RPATH is for all that it loads, too, but for objects with a RUNPATH.
        folders = elf.runpath or [folder for one in (elf, *loaders) for folder in one.rpath]
        for folder in folders:
            if (folder / name).exists():
                return folder / name
        if not self.debian.have(name):
            self.missing.append(f"{name}, needed by {elf.path}, is neither in its run path ({', '.join(map(str, folders)) or 'none'}) "
                                f"nor of a Debian package of the image")
        return None


def real_loader_finds(path):
    """What the loader of this machine says if it may not look into its cache."""
    run = subprocess.run([LOADER, "--inhibit-cache", "--list", path], capture_output=True, text=True, env={})
    return run.returncode == 0 and "not found" not in run.stdout


class RunPathsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.scratch = pathlib.Path(folder.name)
        prefix = cls.scratch / "prefix"
        output("cmake", "--install", BUILD, "--prefix", prefix, "--component", "runtime", "--strip")
        cls.debian = DebianLibraries()
        cls.server, cls.client = prefix / "bin/hotlora-server", prefix / "bin/hotlora"
        cls.library, cls.libtorch = prefix / "lib/hotlora/libhotlora_cuda.so", prefix / "lib/hotlora/libtorch"

    def process(self, *paths):
        process = Process(self.debian)
        root = process.load(paths[0])
        for path in paths[1:]:
            process.load(path, (root,))
        return process

    def assert_found(self, *paths):
        self.assertEqual(self.process(*paths).missing, [])
        for path in paths:
            self.assertTrue(real_loader_finds(path), path)

    def assert_missing(self, name, path):
        self.assertIn(name, " ".join(self.process(path).missing))
        self.assertFalse(real_loader_finds(path))

    def test_programs(self):
        self.assert_found(self.client)
        self.assert_found(self.server)

    def test_server_with_the_library_that_it_loads(self):
        self.assertEqual(self.process(self.server).find(self.library.name, Elf(self.server), ()).resolve(), self.library.resolve())
        self.assert_found(self.server, self.library)

    def test_library_alone(self):
        self.assert_found(self.library)
        elf = Elf(self.library)
        self.assertEqual(elf.runpath, [])
        self.assertLessEqual({"libtorch_cuda.so", "libc10_cuda.so", "libcudart.so.13"}, set(elf.needed))

    def test_build_tree(self):
        self.assert_found(BUILD / "bin/hotlora-server", BUILD / "lib/libhotlora_cuda.so")

    def test_programs_need_no_library_of_cuda(self):
        for program in (self.server, self.client):
            self.assertEqual([name for name in Elf(program).needed if re.search(r"cu(da|dart|blas|dnn)", name)], [])

    def test_negative_control_a_program_that_is_linked_to_the_runtime(self):
        torch, runtime = self.libtorch / "torch/lib", self.libtorch / "nvidia/cu13/lib"
        linked = [runtime / "libcudart.so.13", torch / "libtorch_cpu.so", torch / "libc10.so", "-Wl,--enable-new-dtags"]
        self.assert_missing("libcudart.so.13", compile_elf(self.scratch / "linked", *linked, f"-Wl,-rpath,{torch}"))
        self.assert_found(compile_elf(self.scratch / "with_path", *linked, f"-Wl,-rpath,{torch}:{runtime}"))

    def test_negative_control_a_run_path_is_not_inherited(self):
        libraries = self.scratch / "libraries"
        libraries.mkdir()
        inner = compile_elf(libraries / "libinner.so", "-shared", "-Wl,-soname,libinner.so")
        outer = compile_elf(libraries / "libouter.so", "-shared", "-Wl,-soname,libouter.so", inner)
        path = f"-Wl,-rpath,{libraries}"
        self.assert_missing("libinner.so", compile_elf(self.scratch / "runpath", outer, path, "-Wl,--enable-new-dtags"))
        self.assert_found(compile_elf(self.scratch / "rpath", outer, path, "-Wl,--disable-new-dtags"))

    def test_negative_control_a_package_that_the_image_lacks(self):
        before = self.debian.names
        self.addCleanup(setattr, self.debian, "names", before)
        self.debian.names = {name for name in before if not name.startswith("libspdlog.so")}
        self.assertIn("libspdlog.so", " ".join(self.process(self.server).missing))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
