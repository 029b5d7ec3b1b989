"""What a power cut leaves on a disk, from the journal of unsynced_writes.c.

The model is no file system's, but what all of them may do. A change of a folder's entries (a file or folder comes, goes
or is renamed) lasts once each folder that it touches was synced after it; before that it lasts or does not, whole.
A file's bytes last once the file was synced after them; before that there are all, some, none, or zeros.
"""

import math
import os
import pathlib
import shutil

import hotlora_server as e2e


class Folder:
    def __init__(self):
        self.entries = {}  # when the journal began
        self.now = {}


class File:
    def __init__(self, inode, synced):
        self.inode = inode
        self.synced = synced


class Change:
    """`apply(entries)` does it; `unsynced` are the folders whose sync it still needs."""

    def __init__(self, apply, *folders):
        self.apply = apply
        self.unsynced = set(folders)


class Disk:
    """One folder, from now until a cut. `library` is unsynced_writes.c; `work` is on the folder's file system."""

    def __init__(self, folder, work, library):
        self.folder = folder
        self.kept = work / "kept"
        self.journal = work / "journal"
        self.library = library
        shutil.rmtree(self.kept, ignore_errors=True)
        self.kept.mkdir(parents=True)
        self.journal.unlink(missing_ok=True)
        self.inodes = {}
        self.root = self._scan(folder)

    def _scan(self, path):
        node = self.inodes[path.stat().st_ino] = Folder()
        for entry in sorted(path.iterdir()):
            node.entries[entry.name] = self._scan(entry) if entry.is_dir() else self._keep(entry)
        return node

    def _keep(self, path):
        inode = path.stat().st_ino
        if inode not in self.inodes:
            self.inodes[inode] = File(inode, synced=True)
            os.link(path, self.kept / str(inode))
        return self.inodes[inode]

    def environment(self, kill_at):
        """For a server whose changes are written down, and which is killed after so many."""
        return e2e.clean_environment(
            LD_PRELOAD=str(self.library), UNSYNCED_FOLDER=str(self.folder.resolve()),
            UNSYNCED_JOURNAL=str(self.journal), UNSYNCED_KEPT=str(self.kept), UNSYNCED_KILL_AT=str(kill_at),
            OMP_WAIT_POLICY="PASSIVE", ASAN_OPTIONS="verify_asan_link_order=0")

    def _lines(self):
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [(float(when), kind, words) for when, kind, *words in (line.split("\t") for line in lines)]

    def moments(self):
        """When the changes were done."""
        return [when for when, _, _ in self._lines()]

    def _read_journal(self, end=math.inf, ignore_syncs=False):
        """The changes until then in their order; files know whether they were synced."""
        changes, inodes = [], dict(self.inodes)
        for when, kind, words in self._lines():
            if when > end:
                break
            if kind == "write":
                inodes[int(words[0])].synced = False
            elif kind == "sync":
                node = inodes[int(words[0])]
                if ignore_syncs:
                    continue
                if isinstance(node, File):
                    node.synced = True
                for change in changes if isinstance(node, Folder) else ():
                    change.unsynced.discard(node)
            elif kind == "rename":
                changes.append(rename(inodes[int(words[0])], words[1], inodes[int(words[2])], words[3]))
            elif kind == "unlink":
                changes.append(unlink(inodes[int(words[0])], words[1]))
            else:
                if kind != "link":
                    inodes[int(words[2])] = Folder() if kind == "mkdir" else File(int(words[2]), synced=False)
                changes.append(link(inodes[int(words[0])], words[1], inodes[int(words[2])]))
        return changes

    def _tree(self, changes):
        """Paths and the files there; folders are None."""
        for node in self.inodes.values():
            if isinstance(node, Folder):
                node.now = dict(node.entries)
        for change in changes:
            change.apply()
        tree = {}

        def walk(folder, path):
            for name, node in folder.now.items():
                tree[path / name] = node if isinstance(node, File) else None
                if isinstance(node, Folder):
                    walk(node, path / name)

        walk(self.root, pathlib.Path())
        return tree

    def check_journal(self):
        """The journal says what is on the disk, so nothing went past it."""
        tree = self._tree(self._read_journal())
        by_journal = {str(path): node.inode if node else None for path, node in tree.items()}
        on_disk = {str(path.relative_to(self.folder)): None if path.is_dir() else path.stat().st_ino
                   for path in self.folder.rglob("*")}
        if by_journal != on_disk:
            raise AssertionError(f"the journal and the disk differ: {by_journal.items() ^ on_disk.items()}")

    def cut(self, random, moment=math.inf, ignore_syncs=False):
        """What a cut at that moment may leave: paths and bytes (None: a folder)."""
        chance = random.choice((0, 0.5, 0.9))  # of each change that was not synced
        changes = self._read_journal(moment, ignore_syncs)
        tree = self._tree([change for change in changes if not change.unsynced or random.random() < chance])
        return {path: self._bytes(node, random) if node else None for path, node in tree.items()}

    def _bytes(self, file, random):
        whole = (self.kept / str(file.inode)).read_bytes()
        if file.synced:
            return whole
        part = whole[: random.randrange(len(whole) + 1)]
        return random.choice((whole, part, part + bytes(len(whole) - len(part)), bytes(len(whole)), b""))

    def write(self, tree):
        """Makes the folder what the cut left. `Disk` begins anew after it."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path, content in tree.items():
            target = self.folder / path
            (target if content is None else target.parent).mkdir(parents=True, exist_ok=True)
            if content is not None:
                target.write_bytes(content)


def link(folder, name, node):
    def apply():
        folder.now[name] = node

    return Change(apply, folder)


def unlink(folder, name):
    return Change(lambda: folder.now.pop(name, None), folder)


def rename(old_folder, old_name, folder, name):
    def apply():
        if old_name in old_folder.now:
            folder.now[name] = old_folder.now.pop(old_name)

    return Change(apply, old_folder, folder)
