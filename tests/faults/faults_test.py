#!/usr/bin/env python3
"""Something fails, at one point after the other, in hotlora-faulty-server: nothing crashes, nothing leaks, the answer is right
or says what was wrong, and the next one is right.

Without arguments, a sample of the points (test faults.ci). By hand, with the variables of tests/README.md:

  faults_test.py --all [--operations Upload,Load,...,Start,Drain] [--most 200] [--random 100] [--seed N]

every point from 1 to --most of each kind that an operation passes, with all that can happen there, then random ones.
"""

import argparse
import collections
import itertools
import pathlib
import random
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import hotlora_server as e2e
import operations
from faults import ACTIONS, KINDS, Faults
from hotlora_server import adapters_pb2, server_pb2
from operations import FaultyServer, Violation, require

Point = collections.namedtuple("Point", "operation kind n action count")


class Running:
    """Runs points on one server; a new one where a point has ended it."""

    def __init__(self):
        self.at = None
        self.ranges = {}

    def server(self):
        if self.at is None or self.at.server.process.poll() is not None:
            self.at = FaultyServer()
        return self.at

    def passed(self, operation):
        """By kind, the points that the operation passes if nothing fails."""
        if operation not in self.ranges:
            task = operation(self.server())
            for _ in range(2):  # the first time may do more, once and for all
                task.prepare()
                before = self.at.faults.passed()
                answer = task.run()
                after = self.at.faults.passed()
                require(not isinstance(answer, e2e.Problem), f"{operation.__name__} fails by itself: {answer}")
                task.check_answer(answer)
                task.clean("")
            self.at.check_sound()
            self.ranges[operation] = {kind: after[kind] - before[kind] for kind in KINDS}
        return self.ranges[operation]

    def run(self, point):
        """Violation where something does not hold."""
        at = self.server()
        task = point.operation(at)
        task.prepare()
        at.faults.arm(point.kind, point.n, point.action, point.count)
        try:
            answer = task.run()
        finally:
            at.faults.disarm(point.kind)
            at.faults.set("clock_nanoseconds", 0)
        at.check_alive()
        if isinstance(answer, e2e.Problem):
            task.check_problem(answer, point.action)
        else:
            task.check_answer(answer)
        task.clean(point.kind)
        at.check_sound()
        return "failed" if isinstance(answer, e2e.Problem) else "right"

    def stop(self):
        if self.at is not None:
            self.at.stop()


class Start:
    """The first image of a sound start is what all others must show."""

    image = None

    @classmethod
    def passed(cls):
        faults = Faults()
        cls.image = operations.start_with(faults, None)
        # Buffers are those of requests. A start makes the tokenizers' tables too, of Abseil's and nlohmann's containers,
        # which do not survive that memory runs out.
        return {**faults.passed(), "buffer": 0}

    @classmethod
    def run(cls, point):
        faults = Faults()
        faults.arm(point.kind, point.n, point.action, point.count)
        outcome = operations.start_with(faults, cls.image)
        return "refused" if outcome == "refused" else "right"


class Drain:
    @staticmethod
    def passed():
        faults = Faults()
        before = {}
        operations.drain_with(faults, lambda: before.update(faults.passed()))
        after = faults.passed()
        return {kind: after[kind] - before[kind] for kind in KINDS}

    @staticmethod
    def run(point):
        faults = Faults()
        return operations.drain_with(faults, lambda: faults.arm(point.kind, point.n, point.action, point.count))


def points_of(operation, passed, most, rotate):
    """The first `most` points of each kind and a tenth as many of the last, with each action; with `rotate` one action a
    point, in turn."""
    for kind in KINDS:
        actions = list(ACTIONS[kind])
        for n in sorted({*range(1, min(passed[kind], most) + 1), *range(max(1, passed[kind] - most // 10), passed[kind] + 1)}):
            for action in [actions[n % len(actions)]] if rotate else actions:
                yield Point(operation, kind, n, action, 1)


def random_point(chance, operation, passed):
    kind = chance.choice([kind for kind in KINDS if passed[kind] > 0])
    beside = ["hour on", "hour back"] + ["stuck"] * (kind == "kernel")
    action = chance.choice([*ACTIONS[kind], *beside])
    count = 1 if action in beside else chance.choice([1, 1, 2, 5, 1000])
    return Point(operation, kind, chance.randint(1, passed[kind]), action, count)


class Everything:
    """The recorded run."""

    def __init__(self, args):
        self.args = args
        self.running = Running()
        self.began = time.monotonic()
        self.violations = []
        self.outcomes = collections.defaultdict(collections.Counter)

    def runner_of(self, operation):
        if operation in (Start, Drain):
            return operation.run, operation.passed()
        return self.running.run, self.running.passed(operation)

    def try_point(self, run, point):
        name = point.operation.__name__
        try:
            outcome = run(point)
        except Exception as error:
            outcome = "VIOLATION"
            self.violations.append(point)
            print(f"{name} {point.kind} {point.n} {point.action} x{point.count}: {error}", flush=True)
            if self.running.at is not None:
                self.running.at.server.kill()  # what it holds now says nothing about the next point
        self.outcomes[name, point.kind][outcome] += 1

    def is_time_left(self):
        return time.monotonic() - self.began < 60 * self.args.minutes

    def run(self):
        chosen = {operation.__name__: operation for operation in [*operations.RUNNING, Start, Drain]}
        names = self.args.operations.split(",") if self.args.operations else list(chosen)
        kinds = self.args.kinds.split(",") if self.args.kinds else KINDS
        runners = {}
        for name in names:
            run, passed = runners[chosen[name]] = self.runner_of(chosen[name])
            began = time.monotonic()
            for point in points_of(chosen[name], passed, self.args.most, rotate=chosen[name] in (Start, Drain)):
                if point.kind in kinds and self.is_time_left():
                    self.try_point(run, point)
            print(f"{name}: passes {passed}, {time.monotonic() - began:.0f} s", flush=True)
        chance = random.Random(self.args.seed)
        print(f"{self.args.random} random points, seed {self.args.seed}", flush=True)
        for _ in range(self.args.random if self.is_time_left() else 0):
            operation = chance.choice(list(runners))
            run, passed = runners[operation]
            self.try_point(run, random_point(chance, operation, passed))
        self.running.stop()
        total = collections.Counter()
        for (name, kind), counts in self.outcomes.items():
            print(f"{name:22s} {kind:7s} {dict(counts)}")
            total.update(counts)
        if not self.is_time_left():
            print(f"ended after {self.args.minutes} minutes: not every point was tried")
        print(f"{sum(total.values())} points: {dict(total)}")
        return 1 if self.violations else 0


class SampleTest(unittest.TestCase):
    """50 points: those that have ended the server once, and others spread over operations and kinds."""

    RUNNING, STARTS, DRAINS = 44, 4, 2

    def run_points(self, run, points):
        for point in points:
            with self.subTest(operation=point.operation.__name__, kind=point.kind, n=point.n, action=point.action):
                run(point)

    def sample(self, chance, points, count):
        """One of each operation and kind in turn."""
        groups = collections.defaultdict(list)
        for point in points:
            groups[point.operation, point.kind].append(point)
        for group in groups.values():
            chance.shuffle(group)
        order = list(groups.values())
        chance.shuffle(order)
        turns = itertools.chain.from_iterable(itertools.zip_longest(*order))
        return list(itertools.islice((point for point in turns if point is not None), count))

    def test_running_server(self):
        running = Running()
        points = []
        reached = collections.Counter()
        for operation in operations.RUNNING:
            reached.update(running.passed(operation))
            points += points_of(operation, running.passed(operation), 200, rotate=False)
        self.assertEqual({kind for kind in KINDS if reached[kind] == 0}, {"map"}, "a kind of point that is never passed")
        buffers = {operation: running.passed(operation)["buffer"] for operation in operations.RUNNING}
        found = [Point(operations.Load, "buffer", n, "ENOMEM", 1) for n in range(1, buffers[operations.Load] + 1)]
        found.append(Point(operations.GenerateFromText, "buffer", buffers[operations.GenerateFromText], "ENOMEM", 1))
        self.run_points(running.run, found + self.sample(random.Random(13), points, self.RUNNING - len(found)))
        running.stop()

    def test_start(self):
        passed = Start.passed()
        self.assertGreater(passed["map"], 0)
        points = list(points_of(Start, passed, 200, rotate=True))
        self.run_points(Start.run, self.sample(random.Random(13), points, self.STARTS))

    def test_drain(self):
        passed = Drain.passed()
        points = [point for point in points_of(Drain, passed, 200, rotate=True) if point.kind != "buffer"]
        found = [Point(Drain, "buffer", passed["buffer"], "ENOMEM", 1)]
        self.run_points(Drain.run, found + self.sample(random.Random(13), points, self.DRAINS - len(found)))

    def test_a_leak_is_found(self):
        running = Running()
        with self.assertRaisesRegex(Violation, "leaked.*allocated bytes"):
            running.run(Point(operations.Load, "read", 1, "leak", 1))
        running.stop()


class ClockTest(unittest.TestCase):
    """The system's clock is set while something waits."""

    HOUR = 3600 * 10**9

    @classmethod
    def setUpClass(cls):
        cls.at = FaultyServer("--max-batch", 1)
        cls.caller = cls.at.caller

    @classmethod
    def tearDownClass(cls):
        cls.at.stop()

    def tearDown(self):
        self.set_clock(0)

    def set_clock(self, hours):
        self.at.faults.set("clock_nanoseconds", hours * self.HOUR)

    def test_time_limits_are_what_they_are(self):
        at = FaultyServer("--max-request-seconds", 3)
        for hours in (1, -1):
            stream = at.caller.stream(e2e.request_for(steps=1000, num_images=4), timeout=e2e.PATIENCE)
            e2e.read_until(stream, "progress")
            at.faults.set("clock_nanoseconds", hours * self.HOUR)
            began = time.monotonic()
            problem = e2e.problem_of(lambda: list(stream))
            self.assertEqual(problem.reason, "REQUEST_TIME_LIMIT")
            self.assertGreater(time.monotonic() - began, 1, "ended by the clock")  # of 3 s at least this is left
            at.faults.set("clock_nanoseconds", 0)
        at.stop()

    def test_who_waits_hears_of_it(self):
        with e2e.ended(self.caller.stream(e2e.request_for(steps=1000, num_images=16), timeout=e2e.PATIENCE)) as running:
            e2e.read_until(running, "progress")
            self.set_clock(-1)
            with e2e.ended(self.caller.stream(e2e.request_for(), timeout=30)) as waiting:
                self.assertEqual(e2e.read_until(waiting, "waiting").queue_position, 1)

    def test_base_is_checked(self):
        for hours in (-1, 0, 1):
            self.set_clock(hours)
            report = self.caller.info.VerifyBase(server_pb2.VerifyBaseRequest(), timeout=e2e.PATIENCE)
            self.assertEqual(report.mismatches, 0)

    def test_uploads_go_on(self):
        """That a stalled one ends is up to gRPC's alarms: version 1.51 waits for them by the system's clock, so that after it
        was set back they may come as much later."""
        for hours in (1, -1):
            first, rest = threading.Event(), threading.Event()

            def messages():
                for number, message in enumerate(operations.upload_messages("new", operations.Upload.data)):
                    yield message
                    if number == 1:
                        first.set()
                        rest.wait(e2e.PATIENCE)

            call = self.caller.adapters.UploadAdapter.future(messages(), timeout=e2e.PATIENCE)
            first.wait(e2e.PATIENCE)
            self.set_clock(hours)
            rest.set()
            self.assertTrue(call.result().content_sha256)
            self.set_clock(0)
            (self.at.folder / "new.safetensors").unlink()

    def test_new_files_are_listed(self):
        def names():
            listed = self.caller.adapters.ListAdapters(adapters_pb2.ListAdaptersRequest(page_size=1000), timeout=e2e.PATIENCE)
            return {adapter.name for adapter in listed.adapters}

        self.set_clock(1)
        names()
        self.set_clock(0)
        (self.at.folder / "later.safetensors").write_bytes(operations.Upload.data)
        self.assertIn("later", names())

    def test_drain_ends_in_time(self):
        at = FaultyServer("--drain-timeout", 1)
        stream = at.caller.stream(e2e.request_for(steps=1000, num_images=16), timeout=e2e.PATIENCE)
        e2e.read_until(stream, "progress")
        at.server.signal()
        e2e.wait_until(lambda: not at.server.ready_file.exists(), "it drains")
        at.faults.set("clock_nanoseconds", -self.HOUR)
        self.assertEqual(e2e.problem_of(lambda: list(stream)).code, "UNAVAILABLE")
        self.assertEqual(at.server.wait(), 0)


if __name__ == "__main__":
    if "--all" in sys.argv:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--all", action="store_true")
        parser.add_argument("--operations", help="some of them, joined by commas")
        parser.add_argument("--kinds", help="some of them, joined by commas")
        parser.add_argument("--most", type=int, default=200, help="of each kind that an operation passes")
        parser.add_argument("--random", type=int, default=100)
        parser.add_argument("--minutes", type=float, default=120, help="bound of the whole run")
        parser.add_argument("--seed", type=int, default=random.randrange(2**32))
        sys.exit(Everything(parser.parse_args()).run())
    unittest.main()
