"""What the end-to-end tests share: a server process, stubs made from proto/, decoded errors, and parsed metrics.

Nothing here waits without a bound, and every process is stopped by its own pid.
"""

import atexit
import contextlib
import functools
import io
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import grpc
import numpy
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from grpc_tools import protoc
from PIL import Image

SOURCE = pathlib.Path(os.environ["HOTLORA_TEST_SOURCE"])
BIN = pathlib.Path(os.environ["HOTLORA_TEST_BIN"])
SERVER = BIN / "hotlora-server"
CLIENT = BIN / "hotlora"
FAULTY_SERVER = BIN / "hotlora-faulty-server"  # tests/faults

ALLOCATED = "hotlora_device_memory_allocated_bytes"
DEMO = SOURCE / "deploy/demo/model"
ALL_DEMO_ADAPTERS = SOURCE / "deploy/demo/adapters"
DEMO_CONTROLS = SOURCE / "deploy/demo/controls"
GOLDEN = SOURCE / "tests/golden"
SINGLE_FILE = BIN.parent / "golden/tiny_sdxl_sgm.safetensors"  # golden/pipeline in one file; the build makes it

# What servers compute in if their test names no dtype. What `auto` picks differs from machine to machine.
DTYPE = os.environ.get("HOTLORA_TEST_DTYPE") or "float32"
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}[DTYPE]

# For whatever must happen at all; no test measures it. Sanitizer builds on busy machines are slow.
PATIENCE = 60.0


def clean_environment(**extra):
    """This process's environment without proxies and without settings of hotlora."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HOTLORA_") and not name.lower().endswith("_proxy")
    }
    return {**kept, **extra}


def temporary_folder():
    """A folder that goes when the process ends."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="hotlora-e2e-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def golden_controlnets():
    """A folder with the nets lines, depth and union (six types) for the golden checkpoint; whoever changes it copies it."""
    folder = temporary_folder()
    subprocess.run([BIN / "write_golden_controlnets", folder], check=True, timeout=PATIENCE)
    return folder


def wait_until(condition, what, patience=PATIENCE):
    """Polls until `condition()` is true and returns what it said."""
    end = time.monotonic() + patience
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"after {patience} s still not so: {what}")
        time.sleep(0.005)


# --- stubs


def _make_stubs():
    """Compiles proto/hotlora as any foreign client would, and imports what comes out."""
    out = temporary_folder()
    files = sorted((SOURCE / "proto/hotlora").rglob("*.proto"))
    well_known = pathlib.Path(protoc.__file__).parent / "_proto"
    arguments = ["", f"-I{SOURCE / 'proto'}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if protoc.main(arguments + [str(file) for file in files]) != 0:
        raise AssertionError("protoc failed")
    sys.path.insert(0, str(out))


_make_stubs()
from hotlora.v1 import adapters_pb2, adapters_pb2_grpc  # noqa: E402
from hotlora.v1 import controls_pb2, controls_pb2_grpc  # noqa: E402
from hotlora.v1 import image_prompts_pb2, image_prompts_pb2_grpc  # noqa: E402
from hotlora.v1 import images_pb2, images_pb2_grpc  # noqa: E402
from hotlora.v1 import server_pb2, server_pb2_grpc  # noqa: E402

CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
]


class Caller:
    """A channel with all stubs."""

    def __init__(self, target, credentials=None, options=CHANNEL_OPTIONS):
        self.channel = (
            grpc.secure_channel(target, credentials, options)
            if credentials
            else grpc.insecure_channel(target, options)
        )
        self.images = images_pb2_grpc.ImageServiceStub(self.channel)
        self.adapters = adapters_pb2_grpc.AdapterServiceStub(self.channel)
        self.controls = controls_pb2_grpc.ControlServiceStub(self.channel)
        self.image_prompts = image_prompts_pb2_grpc.ImagePromptServiceStub(self.channel)
        self.info = server_pb2_grpc.ServerServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def close(self):
        self.channel.close()

    def generate(self, request, timeout=PATIENCE):
        return self.images.GenerateImages(request, timeout=timeout)

    def image(self, request, timeout=PATIENCE):
        """The bytes of the request's one image."""
        return self.generate(request, timeout).images[0].data

    def stream(self, request, timeout=PATIENCE, **more):
        return self.images.StreamGenerateImages(request, timeout=timeout, **more)

    def is_serving(self, service=""):
        answer = self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
        return answer.status == health_pb2.HealthCheckResponse.SERVING


def adapter_refs(*wanted):
    """AdapterRefs from names or (name, weight) pairs."""
    pairs = [entry if isinstance(entry, tuple) else (entry, None) for entry in wanted]
    return [images_pb2.AdapterRef(name=name, weight=weight) for name, weight in pairs]


def request_for(*adapters, **fields):
    """A small request; the demo model's own size is 128."""
    defaults = {"prompt": "a large red circle", "seed": 7, "steps": 2, "width": 64, "height": 64}
    return images_pb2.GenerateImagesRequest(adapters=adapter_refs(*adapters), **{**defaults, **fields})


def read_until(stream, kind):
    """The stream's next event of that kind."""
    for event in stream:
        if event.WhichOneof("event") == kind:
            return getattr(event, kind)
    raise AssertionError(f"the stream ended without {kind}")


def expect_picture(test, made, expected, least_psnr, name, most=2):
    """That two pictures differ by `most` of 255 in float32. In the other types sums are rounded otherwise: by PSNR."""
    if DTYPE == "float32":
        test.assertLessEqual(numpy.abs(made - expected).max(), most, name)
    else:
        test.assertGreaterEqual(psnr(made, expected), least_psnr[DTYPE], name)


def psnr(picture, reference):
    """How near two pictures of 8 bits are, in dB: 20 log10(255 / root of the mean square of the differences)."""
    mean_square = numpy.square(numpy.subtract(picture, reference, dtype=float)).mean()
    return numpy.inf if mean_square == 0 else 10 * numpy.log10(255**2 / mean_square)


# --- errors


class Problem:
    """What an RpcError says: code name, message, reason, bad fields, seconds until a retry, and metadata."""

    def __init__(self, error):
        self.code = error.code().name
        self.message = error.details()
        self.trailers = dict(error.trailing_metadata() or ())
        self.initial = dict(error.initial_metadata() or ())
        self.reason = self.domain = self.retry_seconds = None
        self.fields = {}
        status = rpc_status.from_call(error)
        for detail in status.details if status else ():
            info = error_details_pb2.ErrorInfo()
            bad = error_details_pb2.BadRequest()
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                self.reason, self.domain = info.reason, info.domain
            elif detail.Unpack(bad):
                self.fields = {violation.field: violation.description for violation in bad.field_violations}
            elif detail.Unpack(retry):
                self.retry_seconds = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9

    def __repr__(self):
        return f"{self.code} {self.reason}: {self.message} {self.fields or ''}"


def problem_of(call):
    """The error that `call()` ends with."""
    try:
        call()
    except grpc.RpcError as error:
        return Problem(error)
    raise AssertionError("the call succeeded")


# --- metrics

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


class Scrape:
    """One /metrics page: `samples` maps (name, frozenset of label pairs) to the value, `types` a family to its type."""

    def __init__(self, text):
        self.text = text
        self.samples = {}
        self.types = {}
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                self.types[name] = kind
            elif line and not line.startswith("#"):
                name, labels, value = _SAMPLE.match(line).groups()
                key = (name, frozenset(_LABEL.findall(labels or "")))
                if key in self.samples:
                    raise AssertionError(f"twice on the page: {line}")
                self.samples[key] = float(value)

    def matching(self, name, /, **labels):
        wanted = set(labels.items())
        return {key: value for key, value in self.samples.items() if key[0] == name and wanted <= key[1]}

    def sum(self, name, /, **labels):
        return sum(self.matching(name, **labels).values())

    def value(self, name, /, **labels):
        found = self.matching(name, **labels)
        if len(found) != 1:
            raise AssertionError(f"{len(found)} samples of {name} {labels}")
        return next(iter(found.values()))

    def label_names(self, family):
        """The label names of each of the family's samples, without a histogram's `le`."""
        names = {family, family + "_bucket", family + "_sum", family + "_count"}
        return {
            frozenset(label for label, _ in labels if label != "le")
            for name, labels in self.samples
            if name in names
        }


# --- processes


def command_of(program, *words):
    """The command line as text; a server's names DTYPE if `words` name no dtype."""
    if program in (SERVER, FAULTY_SERVER) and "--dtype" not in words:
        words = ("--dtype", DTYPE, *words)
    return [str(word) for word in (program, *words)]


class Server:
    """A hotlora-server on free loopback ports; ready when the constructor returns.

    `folder` has its ready file and its log, to which the next server of that folder appends. `address_space` is its
    RLIMIT_AS. `patience`: seconds until it must be ready.
    """

    def __init__(self, *flags, model=DEMO, adapters=None, environment=None, credentials=None,
                 listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", program=SERVER, folder=None, address_space=None,
                 patience=PATIENCE):
        self.folder = folder or temporary_folder()
        self.ready_file = self.folder / "ready.json"
        self.log_path = self.folder / "server.log"
        words = ["--model", model, "--listen", listen, "--metrics-listen", metrics_listen, "--ready-file", self.ready_file]
        words += ["--adapters", adapters] if adapters else []
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                command_of(program, *words, *flags),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment or clean_environment(),
                preexec_fn=address_space and (lambda: resource.setrlimit(resource.RLIMIT_AS, (address_space,) * 2)),
            )
        atexit.register(self.kill)
        ready = wait_until(self._ready, "the server is ready", patience)
        self.target = f"127.0.0.1:{ready['grpc_port']}"
        self.metrics_url = f"http://127.0.0.1:{ready['metrics_port']}/metrics"
        self.caller = Caller(self.target, credentials)

    def _ready(self):
        """What the ready file says, once it is this process's and not that of one that was killed."""
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log()}")
        try:
            ready = json.loads(self.ready_file.read_text())
        except FileNotFoundError:
            return None
        return ready if ready["pid"] == self.process.pid else None

    def log(self):
        return self.log_path.read_text(errors="replace")

    def metrics_text(self):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.metrics_url, timeout=PATIENCE) as page:
            return page.read().decode()

    def metrics(self):
        return Scrape(self.metrics_text())

    def metrics_at_rest(self):
        """A scrape while no check of base weights holds a digest: the scrape before it has the same allocated bytes."""
        before = self.metrics()
        while True:
            scrape = self.metrics()
            if scrape.sum(ALLOCATED) == before.sum(ALLOCATED):
                return scrape
            before = scrape

    def allocated_bytes(self):
        """Of the allocator, once what was cancelled has ended."""
        for method in ("GenerateImages", "StreamGenerateImages"):
            self.wait_for_metric(0, "hotlora_requests_in_flight", method=method)
        return self.metrics_at_rest().sum(ALLOCATED)

    def wait_for_metric(self, value, name, **labels):
        wait_until(lambda: self.metrics().sum(name, **labels) == value, f"{name} {labels} is {value}")

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, patience=PATIENCE):
        """The exit status."""
        return self.process.wait(timeout=patience)

    def stop(self):
        self.caller.close()
        if self.process.poll() is None:
            self.signal()
        return self.wait()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def run(program, *words, patience=PATIENCE, environment=None, **more):
    """Runs a program to its end; standard output and error come back as text."""
    return subprocess.run(
        command_of(program, *words),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=patience,
        env=environment or clean_environment(),
        text=True,
        **more,
    )


def copy_adapters(*sources):
    """A new folder with copies of these files and the files of these folders."""
    folder = temporary_folder()
    for source in sources:
        for file in sorted(source.iterdir()) if source.is_dir() else [source]:
            shutil.copyfile(file, folder / file.name)
    return folder


@functools.lru_cache(maxsize=None)
def resident_bytes(adapters, *names):
    """What each of the folder's adapters takes in the host's tier, in the demo model and DTYPE, as a server measures it."""
    server = Server(adapters=adapters)

    def load(name):
        before = server.metrics().value("hotlora_adapter_cache_bytes", tier="host")
        wanted = adapters_pb2.LoadAdapterRequest(name=name, tier=adapters_pb2.ADAPTER_TIER_HOST)
        server.caller.adapters.LoadAdapter(wanted, timeout=PATIENCE)
        return int(server.metrics().value("hotlora_adapter_cache_bytes", tier="host") - before)

    sizes = [load(name) for name in names]
    server.stop()
    return sizes


DEMO_ADAPTERS = copy_adapters(*(ALL_DEMO_ADAPTERS / f"{name}.safetensors" for name in ("night", "outline")))


def pixels(data):
    """The picture in an image file: int [height, width, 3]. Files also say what made them, adapters' and models' hashes included."""
    return numpy.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@contextlib.contextmanager
def ended(call):
    """Cancels a streaming call at the end, whatever happened."""
    try:
        yield call
    finally:
        call.cancel()
