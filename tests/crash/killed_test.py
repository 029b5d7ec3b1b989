"""kill -9 at random moments of a mixed load, again and again on the same folders.

Nothing half-written is served, and nothing that was acknowledged is lost.

  killed_test.py [--rounds 10] [--seed N]
"""

import json
import random
import signal
import time
import unittest

import crash_load
from crash_load import ABSENT, KEPT, Load, Trial, check_files, files_in, put_peft, sha256

MOST_ANSWERS = 80  # before a kill


class KilledTest(unittest.TestCase):
    def test_a_server_that_is_killed_under_load(self):
        trial = Trial()
        undecided = 0
        for _ in range(crash_load.ROUNDS):
            server = trial.start()
            trial.check(server)
            put_peft(trial.folder, trial.contents, trial.ledger)
            load = Load(server.target, trial.contents, trial.ledger, trial.pictures)
            try:
                goal = trial.ledger.answered + random.randrange(MOST_ANSWERS)
                crash_load.e2e.wait_until(lambda: trial.ledger.answered >= goal or load.faults, "callers are answered")
                time.sleep(random.uniform(0, 0.05))  # any moment between two answers
            finally:
                server.signal(signal.SIGKILL)
                load.stop()
            self.assertEqual(server.wait(), -signal.SIGKILL, server.log())
            server.caller.close()
            undecided += sum(len(trial.ledger.allowed(name)) > 1 for name in trial.ledger.deeds)
        server = trial.start()
        trial.check(server)
        self.assertEqual(server.stop(), 0)
        self.check_access_log(trial)
        print(f"{crash_load.ROUNDS} kills, {trial.ledger.answered} answered changes, {undecided} names with a change "
              "under way")
        self.assertGreater(undecided, 0, "no kill came in the middle of anything")

    def check_access_log(self, trial):
        """Whole lines, but for one that a kill has cut."""
        cut = 0
        for line in (trial.process_folder / "access.log").read_bytes().splitlines():
            try:
                self.assertIn("method", json.loads(line))
            except ValueError:
                cut += 1
        self.assertLessEqual(cut, crash_load.ROUNDS)


class ControlTest(unittest.TestCase):
    """The negative controls: the checks see what must not be."""

    def setUp(self):
        self.folder = crash_load.e2e.temporary_folder()
        self.ledger = crash_load.Ledger()
        (self.folder / "a.safetensors").write_bytes(b"old")
        self.ledger.settle({"a": sha256(b"old")})
        check_files(files_in(self.folder), self.ledger)

    def refuses(self, what):
        with self.assertRaises(AssertionError, msg=what):
            check_files(files_in(self.folder), self.ledger)

    def test_what_is_half_written_lost_or_left(self):
        deed = self.ledger.begin("a", sha256(b"new"))
        (self.folder / "a.safetensors").write_bytes(b"ne")
        self.refuses("half a file")
        for content in (b"old", b"new"):
            (self.folder / "a.safetensors").write_bytes(content)
            check_files(files_in(self.folder), self.ledger)
        self.ledger.acknowledge(deed)
        check_files(files_in(self.folder), self.ledger)
        (self.folder / "a.safetensors").write_bytes(b"old")
        self.refuses("an acknowledged upload is lost")
        self.ledger.acknowledge(self.ledger.begin("a", ABSENT))
        self.refuses("a deleted adapter is back")
        (self.folder / "a.safetensors").unlink()
        check_files(files_in(self.folder), self.ledger)
        (self.folder / ".hotlora-upload-1").write_bytes(b"")
        self.refuses("a hidden file is left")

    def test_of_two_changes_at_once_either_may_be_the_last(self):
        first, second = self.ledger.begin("a", sha256(b"1")), self.ledger.begin("a", sha256(b"2"))
        self.ledger.acknowledge(second)
        self.ledger.acknowledge(first)
        self.assertEqual(self.ledger.allowed("a"), {sha256(b"1"), sha256(b"2")})
        self.ledger.acknowledge(self.ledger.begin("a", ABSENT))
        self.assertEqual(self.ledger.allowed("a"), {ABSENT})
        self.ledger.begin("a", sha256(b"3"))
        self.assertEqual(self.ledger.allowed("a"), {ABSENT, sha256(b"3")})
        self.assertEqual(self.ledger.allowed(KEPT), {ABSENT})


if __name__ == "__main__":
    crash_load.main(__doc__)
