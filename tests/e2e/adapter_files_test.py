"""Adapter files that come, change and go while the server runs: uploads, deletes, replacements in every rude way."""

import hashlib
import os
import shutil
import signal
import threading
import unittest

import grpc
from PIL import Image, ImageChops, ImageStat

import hotlora_server as e2e
from hotlora_server import adapters_pb2, images_pb2, server_pb2

OUTLINE = (e2e.DEMO_ADAPTERS / "outline.safetensors").read_bytes()
NIGHT = (e2e.DEMO_ADAPTERS / "night.safetensors").read_bytes()
BROKEN = (e2e.GOLDEN / "broken_adapters/nan_weights.safetensors").read_bytes()
LASTING = 400  # steps
CROWD = 100  # callers at once
LOADS = "hotlora_adapter_loads_total"


def request_for(*adapters, **fields):
    """Bare pixels: a PNG would say which adapter made it."""
    return e2e.request_for(*adapters, format=images_pb2.IMAGE_FORMAT_RAW_RGB8, **fields)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def messages(name, data, size=None, digest=None, replace=False, chunk=100_000):
    header = adapters_pb2.UploadHeader(name=name, size=len(data) if size is None else size,
                                       sha256=digest or sha256(data), replace=replace)
    yield adapters_pb2.UploadAdapterRequest(header=header)
    for begin in range(0, len(data), chunk):
        yield adapters_pb2.UploadAdapterRequest(chunk=data[begin : begin + chunk])


def slow_messages(name, goes_on):
    """An upload that stays where it is after each chunk until the event is set."""
    for message in messages(name, OUTLINE):
        yield message
        if message.HasField("chunk"):
            goes_on.wait(e2e.PATIENCE)


def difference(one, other):
    """The mean over pixels and colours."""
    pictures = [Image.frombytes("RGB", (64, 64), data) for data in (one, other)]
    return sum(ImageStat.Stat(ImageChops.difference(*pictures)).mean) / 3


class AdapterFilesCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = e2e.temporary_folder()
        cls.server = e2e.Server("--max-batch", 1, "--max-queue", CROWD, adapters=cls.folder)
        cls.caller = cls.server.caller
        cls.upload("outline", OUTLINE)
        cls.upload("night", NIGHT)
        cls.expected = {name: cls.caller.image(request_for(name)) for name in ("outline", "night")}
        cls.base = cls.caller.image(request_for())

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    @classmethod
    def upload(cls, name, data, **more):
        return cls.caller.adapters.UploadAdapter(messages(name, data, **more), timeout=e2e.PATIENCE)

    @classmethod
    def delete(cls, name):
        return cls.caller.adapters.DeleteAdapter(adapters_pb2.DeleteAdapterRequest(name=name), timeout=e2e.PATIENCE)

    def files(self):
        return sorted(str(file.relative_to(self.folder)) for file in self.folder.rglob("*") if file.is_file())

    def statistics(self):
        return self.caller.info.GetStatistics(server_pb2.GetStatisticsRequest(), timeout=e2e.PATIENCE)

    def verify(self):
        return self.caller.info.VerifyBase(server_pb2.VerifyBaseRequest(), timeout=e2e.PATIENCE)

    def check_unhurt(self):
        """Nothing is held, the base is what it was, and who asks for an adapter gets it."""
        self.server.wait_for_metric(0, "hotlora_adapter_refs")
        self.assertEqual(self.caller.image(request_for()), self.base)
        self.assertEqual(self.caller.image(request_for("night")), self.expected["night"])
        self.assertTrue(self.caller.is_serving())


class UploadTest(AdapterFilesCase):
    def test_an_uploaded_adapter_is_what_a_copied_file_would_be(self):
        answer = self.upload("styles/new", OUTLINE)
        self.assertEqual((answer.name, answer.content_sha256, answer.bytes), ("styles/new", sha256(OUTLINE), len(OUTLINE)))
        self.assertEqual((self.folder / "styles/new.safetensors").read_bytes(), OUTLINE)
        self.assertEqual(self.caller.image(request_for("styles/new")), self.expected["outline"])
        self.delete("styles/new")
        problem = e2e.problem_of(lambda: self.caller.generate(request_for("styles/new")))
        self.assertEqual((problem.code, problem.reason), ("NOT_FOUND", "ADAPTER_NOT_FOUND"))

    def test_refusals_leave_nothing(self):
        before = self.files()
        cases = [
            (messages("x", OUTLINE[:-1], size=len(OUTLINE)), "INVALID_ARGUMENT", "UPLOAD_SIZE"),
            (messages("x", OUTLINE, digest="0" * 64), "INVALID_ARGUMENT", "UPLOAD_CHECKSUM"),
            (messages("x", BROKEN), "INVALID_ARGUMENT", "ADAPTER_INVALID"),
            (messages("x", b"<html>"), "INVALID_ARGUMENT", "ADAPTER_INVALID"),
            (messages("outline", NIGHT), "ALREADY_EXISTS", "ADAPTER_EXISTS"),
            (messages("outline", BROKEN, replace=True), "INVALID_ARGUMENT", "ADAPTER_INVALID"),
            (messages("../x", OUTLINE), "INVALID_ARGUMENT", "INVALID_REQUEST"),
            (messages("x", OUTLINE, size=1 << 50), "RESOURCE_EXHAUSTED", "ADAPTER_BUDGET"),
        ]
        for stream, code, reason in cases:
            problem = e2e.problem_of(lambda: self.caller.adapters.UploadAdapter(stream, timeout=e2e.PATIENCE))
            self.assertEqual((problem.code, problem.reason), (code, reason), problem)
            self.assertNotIn(str(self.folder), repr(problem))
            self.assertEqual(self.files(), before)
        self.assertEqual(self.caller.image(request_for("outline")), self.expected["outline"])

    def test_a_caller_who_vanishes_leaves_no_file(self):
        before = self.files()
        goes_on = threading.Event()
        call = self.caller.adapters.UploadAdapter.future(slow_messages("gone", goes_on), timeout=e2e.PATIENCE)
        e2e.wait_until(lambda: self.files() != before, "the upload has begun")
        call.cancel()
        goes_on.set()
        e2e.wait_until(lambda: self.files() == before, "what had come is gone")

    def test_the_client_uploads_and_deletes(self):
        file = e2e.temporary_folder() / "mine.safetensors"
        file.write_bytes(NIGHT)
        run = lambda *words: e2e.run(e2e.CLIENT, "--server", self.server.target, "adapters", *words)
        self.assertIn(sha256(NIGHT), run("upload", file).stdout)
        self.assertEqual(run("upload", file).returncode, 1)
        self.assertEqual(run("upload", file, "--replace").returncode, 0)
        self.assertEqual(run("upload", file, "--name", "a/b").returncode, 0)
        self.assertEqual(run("delete", "mine").returncode, 0)
        self.assertEqual(run("delete", "mine").returncode, 1)
        self.assertEqual(run("upload", "/nowhere").returncode, 2)
        self.assertTrue((self.folder / "a/b.safetensors").exists())
        self.delete("a/b")

    def test_deleted_while_in_use(self):
        self.upload("doomed", OUTLINE)
        alone = self.caller.image(request_for("outline", steps=LASTING))
        stream = self.caller.stream(request_for("doomed", steps=LASTING))
        e2e.read_until(stream, "progress")
        self.delete("doomed")
        problem = e2e.problem_of(lambda: self.caller.generate(request_for("doomed")))
        self.assertEqual(problem.code, "NOT_FOUND")
        self.assertEqual(e2e.read_until(stream, "image").data, alone)
        self.check_unhurt()


class KilledTest(unittest.TestCase):
    def test_what_a_killed_server_left_is_gone_at_the_next_start(self):
        folder = e2e.temporary_folder()
        server = e2e.Server(adapters=folder)
        goes_on = threading.Event()
        call = server.caller.adapters.UploadAdapter.future(slow_messages("half", goes_on), timeout=e2e.PATIENCE)
        e2e.wait_until(lambda: list(folder.iterdir()), "the upload has begun")
        server.signal(signal.SIGKILL)
        server.wait()
        goes_on.set()
        self.assertEqual(call.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(len(list(folder.iterdir())), 1, "the negative control")
        server = e2e.Server(adapters=folder)
        self.assertEqual(list(folder.iterdir()), [])
        self.assertEqual(list(server.caller.adapters.ListAdapters(adapters_pb2.ListAdaptersRequest()).adapters), [])
        server.stop()


class ReplacedTest(AdapterFilesCase):
    """T-25, T-26: a file is replaced in every rude way while it is used. Who runs keeps what it has."""

    def rename_over(self, path, data):
        draft = self.folder / "draft"
        draft.write_bytes(data)
        os.replace(draft, path)

    def overwrite(self, path, data):
        with open(path, "r+b") as file:
            file.write(data)
            file.truncate()

    def test_while_it_denoises(self):
        alone = self.caller.image(request_for("outline", steps=LASTING))
        path = self.folder / "changing.safetensors"
        flipped = bytearray(OUTLINE)
        flipped[-1] ^= 1
        rudeness = {
            "renamed over": (lambda: self.rename_over(path, NIGHT), sha256(NIGHT)),
            "overwritten in place": (lambda: self.overwrite(path, NIGHT), sha256(NIGHT)),
            "one bit flipped": (lambda: self.overwrite(path, flipped), sha256(flipped)),
            "truncated to nothing": (lambda: os.truncate(path, 0), sha256(OUTLINE)),
            "overwritten with rubbish": (lambda: self.overwrite(path, b"rubbish"), sha256(OUTLINE)),
        }
        for what, (replace, next_version) in rudeness.items():
            with self.subTest(what):
                self.rename_over(path, OUTLINE)
                stream = self.caller.stream(request_for("changing", steps=LASTING))
                e2e.read_until(stream, "progress")
                replace()
                self.assertEqual(e2e.read_until(stream, "image").data, alone)
                self.assertEqual(e2e.read_until(stream, "summary").adapters[0].content_sha256, sha256(OUTLINE))
                summary = self.caller.generate(request_for("changing")).summary
                self.assertEqual(summary.adapters[0].content_sha256, next_version)
        path.unlink()
        self.check_unhurt()

    def test_while_it_is_read(self):
        """A writer never rests; each image is that of one version, or the request hears that the file is no good."""
        path = self.folder / "hot.safetensors"
        self.rename_over(path, OUTLINE)
        stop = threading.Event()

        def rewrite():
            turn = 0
            while not stop.is_set():
                turn += 1
                write = self.overwrite if turn % 3 else self.rename_over
                write(path, NIGHT if turn % 2 else OUTLINE)

        writer = threading.Thread(target=rewrite)
        writer.start()
        try:
            images = set()
            for _ in range(40):
                try:
                    images.add(self.caller.image(request_for("hot")))
                except grpc.RpcError as error:
                    self.assertEqual(e2e.Problem(error).reason, "ADAPTER_INVALID")
        finally:
            stop.set()
            writer.join()
        self.assertLessEqual(images, set(self.expected.values()))
        path.unlink()
        self.check_unhurt()

    def test_a_broken_replacement_leaves_the_old_version_serving(self):
        path = self.folder / "kept.safetensors"
        self.rename_over(path, OUTLINE)
        image = self.caller.image(request_for("kept"))
        refused = dict(outcome="error", reason="adapter_invalid")
        before = self.server.metrics().value(LOADS, **refused)
        self.rename_over(path, BROKEN)
        self.assertEqual(self.caller.image(request_for("kept")), image)
        self.assertEqual(self.server.metrics().value(LOADS, **refused), before + 1)
        problem = e2e.problem_of(
            lambda: self.caller.adapters.LoadAdapter(adapters_pb2.LoadAdapterRequest(name="kept"), timeout=e2e.PATIENCE)
        )
        self.assertEqual((problem.code, problem.reason), ("FAILED_PRECONDITION", "ADAPTER_INVALID"))
        listed = self.caller.adapters.GetAdapter(adapters_pb2.GetAdapterRequest(name="kept"), timeout=e2e.PATIENCE)
        self.assertEqual(listed.state, adapters_pb2.ADAPTER_STATE_FAILED)
        path.unlink()
        self.check_unhurt()


class CrowdTest(AdapterFilesCase):
    """T-27, T-23: many at once."""

    def test_a_hundred_first_requests_are_one_read(self):
        shutil.copyfile(e2e.DEMO_ADAPTERS / "outline.safetensors", self.folder / "cold.safetensors")
        (self.folder / "bad.safetensors").write_bytes(BROKEN)

        def crowd(name):
            calls = [
                self.caller.images.GenerateImages.future(request_for(name, steps=1), timeout=e2e.PATIENCE)
                for _ in range(CROWD)
            ]
            return [call.exception() for call in calls]

        self.assertEqual(set(crowd("cold")), {None})
        counts = {entry.adapter.name: entry for entry in self.statistics().adapters}
        self.assertEqual(counts["cold"].reads, 1)
        self.assertEqual(counts["cold"].requests, CROWD)
        reasons = {e2e.Problem(error).reason for error in crowd("bad")}
        self.assertEqual(reasons, {"ADAPTER_INVALID"}, "a failure is told to all")
        (self.folder / "bad.safetensors").write_bytes(OUTLINE)
        self.assertEqual(self.caller.image(request_for("bad")), self.expected["outline"], "and not remembered")
        self.check_unhurt()

    def test_loads_and_unloads_from_all_sides_while_images_are_made(self):
        allowed = {None, grpc.StatusCode.RESOURCE_EXHAUSTED}
        seen = set()

        def load_and_unload():
            for turn in range(256):
                if turn % 2:
                    request, call = adapters_pb2.UnloadAdapterRequest(name="outline"), self.caller.adapters.UnloadAdapter
                else:
                    request, call = adapters_pb2.LoadAdapterRequest(name="outline"), self.caller.adapters.LoadAdapter
                try:
                    call(request, timeout=e2e.PATIENCE)
                    seen.add(None)
                except grpc.RpcError as error:
                    seen.add(error.code())

        threads = [threading.Thread(target=load_and_unload) for _ in range(32)]
        for thread in threads:
            thread.start()
        images = {self.caller.image(request_for("outline")) for _ in range(10)}
        for thread in threads:
            thread.join()
        self.assertLessEqual(seen, allowed)
        self.assertEqual(images, {self.expected["outline"]})
        integrity = self.verify()
        self.assertEqual((integrity.mismatches, integrity.intact), (0, True))
        self.check_unhurt()


class StatisticsTest(AdapterFilesCase):
    def test_figures_are_exact(self):
        self.upload("counted", OUTLINE)
        for _ in range(3):
            self.caller.image(request_for("counted"))
        statistics = self.statistics()
        counted = next(entry for entry in statistics.adapters if entry.adapter.name == "counted")
        self.assertEqual((counted.requests, counted.reads, counted.host_hits, counted.failed_reads), (3, 1, 2, 0))
        self.assertGreater(counted.last_used.seconds, 0)
        host = next(tier for tier in statistics.tiers if tier.tier == adapters_pb2.ADAPTER_TIER_HOST)
        scrape = self.server.metrics()
        self.assertEqual(host.used_bytes, scrape.value("hotlora_adapter_cache_bytes", tier="host"))
        self.assertGreaterEqual(scrape.value("hotlora_adapter_upload_bytes_total"), len(OUTLINE))
        self.assertEqual(host.capacity_bytes, 4 << 30)
        self.assertEqual(host.hits, scrape.value("hotlora_adapter_cache_requests_total", tier="host", result="hit"))
        planned = {area.what: area.planned_bytes for area in statistics.memory}
        for what in ("unet weights", "text encoder weights", "vae weights", "clean weights of adaptable modules"):
            self.assertGreater(planned[what], 0)
        weights = sum(size for what, size in planned.items() if "weights" in what)
        self.assertLessEqual(weights + host.used_bytes, statistics.device_memory.allocated_bytes)
        set_aside = planned["encoded prompts for further requests"] + sum(
            tier.capacity_bytes for tier in statistics.tiers if tier.tier == adapters_pb2.ADAPTER_TIER_DEVICE)
        self.assertLess(statistics.device_memory.allocated_bytes - set_aside, 1.5 * (weights + host.used_bytes))
        text = e2e.run(e2e.CLIENT, "--server", self.server.target, "statistics").stdout
        self.assertIn("counted", text)
        self.assertIn("unet weights", text)
        self.assertIn("memory plan", self.server.log())

    def test_verify(self):
        integrity = self.verify()
        self.assertTrue(integrity.intact)
        self.assertGreater(integrity.modules_checked, 50)
        self.assertEqual(integrity.mismatches, 0)
        self.assertEqual(e2e.run(e2e.CLIENT, "--server", self.server.target, "verify").returncode, 0)


class BaseAdapterTest(unittest.TestCase):
    def test_a_base_adapter_is_in_every_image_and_in_the_models_hash(self):
        plain = e2e.Server(adapters=e2e.DEMO_ADAPTERS)
        merged = e2e.Server("--base-adapter", "outline:0.7", adapters=e2e.DEMO_ADAPTERS)
        wanted = plain.caller.generate(request_for(("outline", 0.7)))
        got = merged.caller.generate(request_for())
        # The merged base is rounded to the dtype of the checkpoint, so the two are close rather than equal.
        base = plain.caller.image(request_for())
        self.assertLess(10 * difference(got.images[0].data, wanted.images[0].data),
                        difference(base, wanted.images[0].data))
        self.assertNotEqual(got.summary.model_sha256, wanted.summary.model_sha256)
        self.assertEqual(len(got.summary.adapters), 0)
        self.assertTrue(merged.caller.info.VerifyBase(server_pb2.VerifyBaseRequest(), timeout=e2e.PATIENCE).intact)
        self.assertEqual((plain.stop(), merged.stop()), (0, 0))

    def test_one_that_is_not_there_ends_the_start(self):
        result = e2e.run(e2e.SERVER, "--model", e2e.GOLDEN / "pipeline", "--adapters", e2e.DEMO_ADAPTERS,
                         "--base-adapter", "nowhere:1", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
        self.assertEqual(result.returncode, 1)
        self.assertIn("--base-adapter nowhere", result.stderr)


if __name__ == "__main__":
    unittest.main()
