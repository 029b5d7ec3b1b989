"""What a server is asked to do while something fails, and what must hold afterwards."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import time

import grpc
import numpy
from PIL import Image

import hotlora_server as e2e
from hotlora_server import adapters_pb2, images_pb2
from faults import Faults

MODEL = e2e.GOLDEN / "pipeline"
ADAPTERS = e2e.GOLDEN / "adapters/files"
EMBEDDINGS = e2e.GOLDEN / "textual_inversion"
FLAGS = ["--adapter-host-bytes", 64 << 20, "--adapter-device-bytes", 16 << 20]
ERRORS = {"RESOURCE_EXHAUSTED", "INTERNAL", "FAILED_PRECONDITION", "UNAVAILABLE"}
# For calls that a fault may make slow, and for what a server does on its own. Nothing here is measured.
PATIENCE = 60.0


class Violation(AssertionError):
    """What must hold does not."""


def require(holds, what):
    if not holds:
        raise Violation(what)


def hidden_files(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


class FaultyServer:
    """A server with faults, its folder of adapters, and what it was like before the first fault."""

    def __init__(self, *flags):
        self.faults = Faults()
        self.folder = e2e.copy_adapters(ADAPTERS)
        self.access_log = e2e.temporary_folder() / "access.log"
        environment = e2e.clean_environment(OMP_NUM_THREADS="2", OMP_WAIT_POLICY="PASSIVE", **self.faults.environment)
        self.server = e2e.Server(*FLAGS, "--embeddings", EMBEDDINGS, "--access-log", self.access_log, *flags,
                                 model=MODEL, adapters=self.folder, program=e2e.FAULTY_SERVER, environment=environment)
        self.caller = self.server.caller
        self.references = {}
        self.next_requests = [e2e.request_for(), e2e.request_for("kohya_sgm_named")]
        for request in self.next_requests:
            self.reference(request)
        self.unload_all()
        self.before = None
        e2e.wait_until(self._is_settled, "allocated bytes and descriptors stay the same")

    def _is_settled(self):
        last, self.before = self.before, self.holdings()
        time.sleep(0.02)  # a descriptor that a scrape had is closed by its own thread
        return last == self.before

    def reference(self, request):
        """The image of an undisturbed run."""
        key = request.SerializeToString()
        if key not in self.references:
            self.references[key] = self.caller.image(request)
        return self.references[key]

    def unload(self, name):
        try:
            self.caller.adapters.UnloadAdapter(adapters_pb2.UnloadAdapterRequest(name=name), timeout=PATIENCE)
        except grpc.RpcError as error:
            require(error.code() == grpc.StatusCode.NOT_FOUND, f"unloading {name}: {e2e.Problem(error)}")

    def unload_all(self):
        listed = self.caller.adapters.ListAdapters(adapters_pb2.ListAdaptersRequest(page_size=1000), timeout=PATIENCE)
        for adapter in listed.adapters:
            if adapter.tier != adapters_pb2.ADAPTER_TIER_DISK:
                self.unload(adapter.name)

    def holdings(self):
        """What must be the same whenever nothing is asked and nothing is resident."""
        scrape = self.server.metrics()
        return {
            "allocated bytes": scrape.sum("hotlora_device_memory_allocated_bytes"),
            "cached bytes": scrape.sum("hotlora_adapter_cache_bytes"),
            "leases": scrape.sum("hotlora_adapter_refs"),
            "queued": scrape.sum("hotlora_queue_depth"),
            "descriptors": len(os.listdir(f"/proc/{self.server.process.pid}/fd")),
        }

    def check_alive(self):
        status = self.server.process.poll()
        require(status is None, f"the server ended with {status}:\n{self.server.log()[-3000:]}")

    def check_sound(self):
        """Nothing crashed, nothing leaked, and the next requests are right."""
        self.check_alive()
        for request in self.next_requests:
            image = self.caller.image(request, timeout=PATIENCE)
            require(image == self.reference(request), f"the next image is another one: {request}")
        self.unload_all()
        try:
            e2e.wait_until(lambda: self.holdings() == self.before, "all is given back", patience=10)
        except AssertionError:
            raise Violation(f"leaked: {self.holdings()}, before: {self.before}") from None
        require(not hidden_files(self.folder), f"left behind: {hidden_files(self.folder)}")

    def stop(self):
        return self.server.stop()


# --- operations on a server that runs: `prepare`, `call`, then `check` with the answer or the Problem, then `clean`


class Operation:
    def __init__(self, at):
        self.at = at

    def prepare(self):
        pass

    def clean(self, kind):
        pass

    def check_answer(self, answer):
        pass

    def check_problem(self, problem, action):
        require(problem.code in ERRORS or (problem.code == "INVALID_ARGUMENT" and action == "end"), f"ended with {problem}")
        require(problem.message and problem.reason, f"says nothing: {problem}")

    def run(self):
        """The answer, or the Problem."""
        try:
            return self.call()
        except grpc.RpcError as error:
            return e2e.Problem(error)


def upload_messages(name, data):
    digest = hashlib.sha256(data).hexdigest()
    yield adapters_pb2.UploadAdapterRequest(header=adapters_pb2.UploadHeader(name=name, size=len(data), sha256=digest))
    for begin in range(0, len(data), 20_000):
        yield adapters_pb2.UploadAdapterRequest(chunk=data[begin : begin + 20_000])


class Upload(Operation):
    name = "sent/now/new"
    data = (ADAPTERS / "kohya_sgm_named.safetensors").read_bytes()

    def file(self):
        return self.at.folder / f"{self.name}.safetensors"

    def call(self):
        return self.at.caller.adapters.UploadAdapter(upload_messages(self.name, self.data), timeout=PATIENCE)

    def check_answer(self, answer):
        require(answer.content_sha256 == hashlib.sha256(self.data).hexdigest(), f"another hash: {answer}")
        require(self.file().read_bytes() == self.data, "another file than was sent")

    def check_problem(self, problem, action):
        super().check_problem(problem, action)
        require(not self.file().exists() or self.file().read_bytes() == self.data, "half a file")

    def clean(self, kind):
        if kind == "unlink":  # what could not be removed stays hidden until the next start
            for name in hidden_files(self.at.folder):
                (self.at.folder / name).unlink()
        shutil.rmtree(self.at.folder / "sent", ignore_errors=True)
        self.at.unload(self.name)


class Load(Operation):
    name = "lycoris_loha"

    def prepare(self):
        self.at.unload(self.name)

    def call(self):
        request = adapters_pb2.LoadAdapterRequest(name=self.name, tier=adapters_pb2.ADAPTER_TIER_DEVICE)
        return self.at.caller.adapters.LoadAdapter(request, timeout=PATIENCE)

    def check_answer(self, answer):
        require(answer.tier == adapters_pb2.ADAPTER_TIER_DEVICE, f"not on the device: {answer}")


def png(size, colour):
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def pixels(image):
    return numpy.asarray(Image.open(io.BytesIO(image)).convert("RGB")).astype(int)


class Generate(Operation):
    def prepare(self):
        self.at.reference(self.request)
        self.at.unload_all()

    def call(self):
        return self.at.caller.image(self.request, timeout=PATIENCE)

    def check_answer(self, answer):
        require(answer == self.at.reference(self.request), "another image")


class GenerateFromText(Generate):
    request = e2e.request_for("peft_dora", ("kohya_locon_convolutions", 0.5), negative_prompt="blur", num_images=2)

    def check_answer(self, answer):
        """After a step that failed its two images go on alone, in products of other shapes, which are rounded otherwise."""
        difference = numpy.abs(pixels(answer) - pixels(self.at.reference(self.request))).max()
        require(difference <= 2, f"another image: pixels differ by up to {difference}")


class GenerateFromImage(Generate):
    request = e2e.request_for("lycoris_lokr_full_factors", init_image=png((96, 80), (200, 30, 30)), strength=0.9,
                              mask_image=png((64, 64), (255, 255, 255)), format=images_pb2.IMAGE_FORMAT_WEBP)


class GenerateWithEmbedding(Generate):
    request = e2e.request_for(prompt="a picture of multi", embeddings=[images_pb2.EmbeddingRef(name="multi")], format=images_pb2.IMAGE_FORMAT_JPEG,
                              sampler=images_pb2.SAMPLER_HEUN)


class StreamPreviews(Generate):
    request = e2e.request_for("peft_attention", preview_every=1, format=images_pb2.IMAGE_FORMAT_RAW_RGB8)

    def call(self):
        chunks = []
        for event in self.at.caller.stream(self.request, timeout=PATIENCE):
            if event.WhichOneof("event") == "image":
                chunks.append(event.image.data)
        return b"".join(chunks)


class Delete(Operation):
    name = "doomed"

    def file(self):
        return self.at.folder / f"{self.name}.safetensors"

    def prepare(self):
        shutil.copyfile(ADAPTERS / "peft_convolutions.safetensors", self.file())

    def call(self):
        self.at.caller.adapters.DeleteAdapter(adapters_pb2.DeleteAdapterRequest(name=self.name), timeout=PATIENCE)

    def check_answer(self, answer):
        require(not self.file().exists(), "it is still there")

    def clean(self, kind):
        self.file().unlink(missing_ok=True)


RUNNING = [Upload, Load, GenerateFromText, GenerateFromImage, GenerateWithEmbedding, StreamPreviews, Delete]


# --- a server's beginning and end: each has a server of its own


def words_of(folder, ready_file):
    words = ["--model", MODEL, "--adapters", folder, "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0",
             "--ready-file", ready_file, "--access-log", ready_file.parent / "access.log", "--pin", "kohya_sgm_named",
             "--drain-timeout", 5, *FLAGS]
    return e2e.command_of(e2e.FAULTY_SERVER, *words)


class Process:
    """A server that is being started."""

    def __init__(self, faults):
        self.folder = e2e.copy_adapters(ADAPTERS / "kohya_sgm_named.safetensors")
        self.place = e2e.temporary_folder()
        self.ready_file = self.place / "ready.json"
        environment = e2e.clean_environment(OMP_NUM_THREADS="2", OMP_WAIT_POLICY="PASSIVE", **faults.environment)
        with open(self.place / "log", "wb") as log:
            self.process = subprocess.Popen(words_of(self.folder, self.ready_file), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=environment)

    def log(self):
        return (self.place / "log").read_text(errors="replace")

    def is_decided(self):
        return self.process.poll() is not None or self.ready_file.exists()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.place, ignore_errors=True)

    def end(self, patience=PATIENCE):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=patience)


def check_failed_start(process):
    status = process.process.returncode
    require(status in (1, 2), f"the start ended with {status}:\n{process.log()[-3000:]}")
    require(any(line.startswith("hotlora-server: ") for line in process.log().splitlines()),
            f"the start failed without a line:\n{process.log()[-3000:]}")
    require(not list(process.place.glob("ready*")), "a ready file of a server that is not ready")


def start_with(faults, reference):
    """A start after `faults` were armed."""
    process = Process(faults)
    try:
        e2e.wait_until(process.is_decided, "the server is ready or has ended", patience=PATIENCE)
        if process.process.poll() is not None:
            check_failed_start(process)
            return "refused"
        ready = json.loads(process.ready_file.read_text())
        require(ready["pid"] == process.process.pid, f"the ready file says {ready}")
        caller = e2e.Caller(f"127.0.0.1:{ready['grpc_port']}")
        image = None
        for _ in range(2):  # the fault may have waited until now
            try:
                image = caller.image(e2e.request_for("kohya_sgm_named"), timeout=PATIENCE)
                break
            except grpc.RpcError as error:
                require(error.code().name in ERRORS, f"ended with {e2e.Problem(error)}")
        require(image is not None and image == (reference or image), "the first image is another one")
        caller.close()
        status = process.end()
        require(status == 0, f"SIGTERM ended it with {status}:\n{process.log()[-3000:]}")
        return image
    finally:
        process.kill()


def drain_with(faults, arm):
    """A server that is told to stop while a request runs; `arm` is called before."""
    process = Process(faults)
    try:
        e2e.wait_until(process.is_decided, "the server is ready", patience=PATIENCE)
        ready = json.loads(process.ready_file.read_text())
        caller = e2e.Caller(f"127.0.0.1:{ready['grpc_port']}")
        stream = caller.stream(e2e.request_for("kohya_sgm_named", steps=100), timeout=PATIENCE)
        e2e.read_until(stream, "progress")
        arm()
        process.process.send_signal(signal.SIGTERM)
        try:
            for _ in stream:
                pass
            outcome = "finished"
        except grpc.RpcError as error:
            require(error.code().name in ERRORS, f"ended with {e2e.Problem(error)}")
            outcome = "failed"
        try:
            status = process.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            raise Violation(f"not ended after 30 s:\n{process.log()[-3000:]}") from None
        require(status == 0, f"ended with {status}:\n{process.log()[-3000:]}")
        caller.close()
        return outcome
    finally:
        process.kill()
