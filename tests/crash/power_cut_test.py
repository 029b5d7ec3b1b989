"""Power cuts at random moments of a mixed load: what was acknowledged lasts, because it was synced before.

A preloaded library writes down what the server changes and syncs and kills it in the middle of a change; power_cut.py
says what the disk may have then, and the next server starts on that. The negative control takes the same journals and
pretends that nothing was synced: then something acknowledged must be lost.

  power_cut_test.py [--rounds 10] [--seed N]
"""

import random
import signal
import unittest

import crash_load
from crash_load import Load, Trial, check_files, check_served, e2e, files_in, put_peft
from power_cut import Disk

LIBRARY = e2e.BIN / "libhotlora_unsynced_writes.so"
CUTS = 100  # of one journal
MOST_CHANGES = 500  # before the kill; fewer than LEAST may come at the start, which removes what is left
LEAST_CHANGES = 30


class PowerCutTest(unittest.TestCase):
    def test_what_was_acknowledged_lasts(self):
        trial = Trial()
        losses = 0
        for _ in range(crash_load.ROUNDS):
            put_peft(trial.folder, trial.contents, trial.ledger)
            disk = Disk(trial.folder, trial.work / "disk", LIBRARY)
            self.run_until_cut(trial, disk)
            disk.check_journal()
            moments = disk.moments() + trial.ledger.ends()
            for moment in random.choices(moments, k=CUTS):
                losses += self.is_loss(trial, disk, moment)
                self.check_cut(trial, disk, moment)
            disk.write(disk.cut(random))
            server = trial.start()
            trial.check(server)
            self.assertEqual(server.stop(), 0)
        print(f"{crash_load.ROUNDS * CUTS} cuts, {trial.ledger.answered} answered changes; of as many cuts without syncs "
              f"{losses} lose something")
        self.assertGreater(losses, 0, "the negative control: without syncs nothing is lost")

    def run_until_cut(self, trial, disk):
        server = trial.start(disk.environment(kill_at=random.randrange(LEAST_CHANGES, MOST_CHANGES)))
        load = None
        try:
            check_served(server.caller, check_files(files_in(trial.folder), trial.ledger), trial.pictures)
            load = Load(server.target, trial.contents, trial.ledger, trial.pictures)
            self.assertEqual(server.wait(), -signal.SIGKILL, server.log())
        finally:
            server.kill()
            server.caller.close()
            if load:
                load.stop()

    def check_cut(self, trial, disk, moment, **how):
        """What a cut at that moment leaves. The next start removes the hidden files; here is none for each cut."""
        tree = disk.cut(random, moment, **how)
        visible = {path: content for path, content in tree.items()
                   if content is not None and not path.name.startswith(".hotlora-upload-")}
        check_files(visible, trial.ledger, moment)

    def is_loss(self, trial, disk, moment):
        try:
            self.check_cut(trial, disk, moment, ignore_syncs=True)
        except AssertionError:
            return True
        return False


if __name__ == "__main__":
    crash_load.main(__doc__)
