"""gRPC that is not gRPC core's: grpclib, with HTTP/2 by h2, and Go's. Each runs its example of deploy/ as it is shipped."""

import asyncio
import contextlib
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import unittest

import hotlora_server as e2e
from google.rpc import error_details_pb2  # noqa: F401  grpclib decodes the details whose modules are loaded
from grpc_tools import protoc
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, TrailersReceived
from hotlora_server import images_pb2, request_for

EXAMPLES = e2e.SOURCE / "deploy/examples"
GRPCLIB_EXAMPLE = EXAMPLES / "python_grpclib/generate.py"
GO_PACKAGES = "/usr/share/gocode"  # Debian's
STEPS = 1000  # the most that a request may have
DEADLINE = 3  # seconds: a request begins within them on a busy machine too
PICTURE = ("a large red circle", "outline", 7, 2)  # prompt, adapter, seed, steps


def endless(*adapters):
    """A request that takes far longer than any test waits for."""
    return request_for(*adapters, steps=STEPS, width=256, height=256)


TRAILERS = (1, 5)  # HEADERS with END_STREAM and END_HEADERS


class FrameHeaders:
    """Reads the bytes of one direction of HTTP/2, in any pieces."""

    def __init__(self):
        self.rest = b""

    def read(self, data):
        """Type and flags of each frame that is whole by now."""
        self.rest += data
        frames = []
        while len(self.rest) >= 9 and len(self.rest) >= (size := 9 + int.from_bytes(self.rest[:3], "big")):
            frames.append((self.rest[3], self.rest[4]))
            self.rest = self.rest[size:]
        return frames


class Relay:
    """A TCP port that passes connections on to one server, and from `switch` on to another one.

    With `successor` it switches to that once a call has ended, in the moment in which the client waits before it tries again.
    """

    def __init__(self, target, successor=None):
        self.target = target
        self.successor = successor
        self.sockets = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                client, _ = self.listener.accept()
                host, port = self.target.split(":")
                server = socket.create_connection((host, int(port)))
                self.sockets += [client, server]
                for source, sink, answers in ((client, server, None), (server, client, FrameHeaders())):
                    threading.Thread(target=self.copy, args=(source, sink, answers), daemon=True).start()

    def copy(self, source, sink, answers):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
                if answers and self.successor and TRAILERS in answers.read(data):
                    self.switch(self.successor)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()

    def switch(self, target):
        """Ends every connection; the next ones go to `target`."""
        self.target, self.successor = target, None
        ends, self.sockets = self.sockets, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.switch(None)
        self.listener.close()


class ExampleTests:
    """The shipped example, run as a program. A stack's class gives `example(prompt, adapter, seed, steps)`, its command."""

    def start_server(self, *flags):
        server = e2e.Server("--max-batch", "1", "--max-queue", "1", *flags, adapters=e2e.DEMO_ADAPTERS)
        self.addCleanup(server.kill)
        self.addCleanup(server.caller.close)
        return server

    def ended(self, server, code):
        return server.metrics().value("hotlora_requests_total", method="StreamGenerateImages", code=code)

    def start_example(self, target, *picture):
        """The running program and the folder that it writes picture.png to."""
        folder = e2e.temporary_folder()
        environment = e2e.clean_environment(HOTLORA_SERVER=target, **self.environment)
        program = subprocess.Popen(self.example(*(picture or PICTURE)), cwd=folder, env=environment, text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(program.wait)
        self.addCleanup(program.kill)
        return program, folder

    def finish_and_compare(self, program, folder, server):
        """The example has painted what gRPC core's client gets."""
        _, errors = program.communicate(timeout=e2e.PATIENCE)
        self.assertEqual(program.returncode, 0, errors)
        self.assertEqual(re.findall(r"step \d+ of \d+", errors), ["step 1 of 2", "step 2 of 2"])
        prompt, adapter, seed, steps = PICTURE
        expected = server.caller.image(request_for(adapter, prompt=prompt, seed=seed, steps=steps, width=128, height=128))
        self.assertEqual((folder / "picture.png").read_bytes(), expected)

    def test_the_example_paints(self):
        server = self.start_server()
        self.finish_and_compare(*self.start_example(server.target), server)

    def test_the_example_names_an_error(self):
        program, folder = self.start_example(self.start_server().target, "a circle", "unknown", 7, 2)
        _, errors = program.communicate(timeout=e2e.PATIENCE)
        self.assertNotEqual(program.returncode, 0)
        self.assertRegex(errors.splitlines()[-1], '(NOT_FOUND|NotFound): no adapter "unknown"$')
        self.assertFalse((folder / "picture.png").exists())

    def test_a_full_queue_is_tried_again(self):
        server = self.start_server()
        with contextlib.ExitStack() as occupants:
            for kind in ("progress", "accepted"):
                stream = occupants.enter_context(e2e.ended(server.caller.stream(endless())))
                e2e.read_until(stream, kind)
            program, folder = self.start_example(server.target)
            e2e.wait_until(lambda: self.ended(server, "RESOURCE_EXHAUSTED"), "it is turned away once")
            self.assertIsNone(program.poll())
        self.finish_and_compare(program, folder, server)

    def test_a_draining_replica_is_left_for_another(self):
        draining, other = self.start_server("--drain-timeout", e2e.PATIENCE), self.start_server()
        relay = Relay(draining.target, successor=other.target)
        self.addCleanup(relay.close)
        with e2e.ended(draining.caller.stream(endless())) as running:
            e2e.read_until(running, "progress")
            draining.signal()
            e2e.wait_until(lambda: "draining" in draining.log(), "it drains")
            self.finish_and_compare(*self.start_example(relay.address), other)
            self.assertEqual(self.ended(draining, "UNAVAILABLE"), 1)
        self.assertEqual(self.ended(other, "OK"), 1)

    def test_what_has_begun_is_not_begun_again(self):
        first, other = self.start_server(), self.start_server()
        relay = Relay(first.target)
        self.addCleanup(relay.close)
        program, folder = self.start_example(relay.address, "a circle", "outline", 7, STEPS)
        self.assertRegex(program.stderr.readline(), f"step 1 of {STEPS}")
        relay.switch(other.target)
        program.communicate(timeout=e2e.PATIENCE)
        self.assertNotEqual(program.returncode, 0)
        self.assertFalse((folder / "picture.png").exists())
        e2e.wait_until(lambda: self.ended(first, "CANCELLED") == 1, "the first server has ended it")
        self.assertEqual(other.metrics().sum("hotlora_requests_total", method="StreamGenerateImages"), 0)


def make_grpclib_stubs():
    """The folder with what grpclib's users generate from proto/."""
    folder = e2e.temporary_folder()
    plugin = pathlib.Path(sys.executable).parent / "protoc-gen-grpclib_python"
    well_known = pathlib.Path(protoc.__file__).parent / "_proto"
    files = sorted(str(file) for file in (e2e.SOURCE / "proto/hotlora/v1").glob("*.proto"))
    arguments = ["", f"-I{e2e.SOURCE / 'proto'}", f"-I{well_known}", f"--plugin=protoc-gen-grpclib_python={plugin}",
                 f"--python_out={folder}", f"--grpclib_python_out={folder}"]
    if protoc.main(arguments + files) != 0:
        raise AssertionError("protoc failed")
    return folder


class GrpclibTest(ExampleTests, unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        stubs = make_grpclib_stubs()
        cls.environment = {"PYTHONPATH": str(stubs)}
        sys.path.append(str(stubs))  # `hotlora` is a namespace: the messages are those of hotlora_server
        from hotlora.v1.images_grpc import ImageServiceStub

        cls.stub_class = ImageServiceStub

    def example(self, prompt, adapter, seed, steps):
        return [sys.executable, GRPCLIB_EXAMPLE, prompt, "--adapter", adapter, "--seed", str(seed), "--steps", str(steps)]

    async def asyncSetUp(self):
        asyncio.get_running_loop().slow_callback_duration = e2e.PATIENCE  # a server's start holds the loop up, which is meant

    @contextlib.asynccontextmanager
    async def images(self, server):
        host, port = server.target.split(":")
        async with Channel(host, int(port)) as channel:
            yield self.stub_class(channel)

    async def problem_of(self, call):
        with self.assertRaises(GRPCError) as caught:
            await call
        return caught.exception

    def details(self, error):
        return {type(detail).__name__: detail for detail in error.details}

    async def start(self, stream, request):
        """Sends the request and returns once it runs."""
        await stream.send_message(request, end=True)
        async for event in stream:
            if event.WhichOneof("event") == "progress":
                return
        self.fail("the stream ended without progress")

    async def test_unary_and_stream_give_the_same_bytes(self):
        server = self.start_server()
        async with self.images(server) as images:
            request = request_for("outline")
            answer = await images.GenerateImages(request, timeout=e2e.PATIENCE)
            async with images.StreamGenerateImages.open(timeout=e2e.PATIENCE) as stream:
                await stream.send_message(request, end=True)
                events = [event async for event in stream]
            self.assertIn("x-request-id", stream.trailing_metadata)
        self.assertEqual([event.WhichOneof("event") for event in events],
                         ["accepted", "progress", "progress", "image", "summary"])
        self.assertEqual(events[3].image.data, answer.images[0].data)
        self.assertEqual(server.caller.image(request), answer.images[0].data)

    async def test_errors_have_their_details(self):
        server = self.start_server()
        async with self.images(server) as images:
            error = await self.problem_of(images.GenerateImages(request_for(steps=0, width=7)))
            self.assertEqual(error.status, Status.INVALID_ARGUMENT)
            details = self.details(error)
            self.assertEqual((details["ErrorInfo"].domain, details["ErrorInfo"].reason), ("hotlora", "INVALID_REQUEST"))
            self.assertEqual([violation.field for violation in details["BadRequest"].field_violations], ["width", "steps"])
            error = await self.problem_of(images.GenerateImages(request_for("unknown")))
            self.assertEqual(error.status, Status.NOT_FOUND)
            self.assertEqual(self.details(error)["ErrorInfo"].reason, "ADAPTER_NOT_FOUND")
            async with images.StreamGenerateImages.open() as running, images.StreamGenerateImages.open() as waiting:
                await self.start(running, endless())
                await waiting.send_message(endless(), end=True)
                self.assertEqual((await waiting.recv_message()).WhichOneof("event"), "accepted")
                error = await self.problem_of(images.GenerateImages(request_for()))
                self.assertEqual(error.status, Status.RESOURCE_EXHAUSTED)
                self.assertEqual(self.details(error)["ErrorInfo"].reason, "QUEUE_FULL")
                self.assertGreaterEqual(self.details(error)["RetryInfo"].retry_delay.seconds, 1)
                await waiting.cancel()
                await running.cancel()
            e2e.wait_until(lambda: self.ended(server, "CANCELLED") == 2, "the server has ended both")
            await images.GenerateImages(request_for(), timeout=e2e.PATIENCE)

    async def test_the_next_request_works_after_a_deadline_and_after_a_cancellation(self):
        server = self.start_server()
        async with self.images(server) as images:
            request = request_for("outline")
            before = (await images.GenerateImages(request, timeout=e2e.PATIENCE)).images[0].data
            # The client and the server each have a timer. If the client's is first, the server hears of a cancellation.
            with self.assertRaises((asyncio.TimeoutError, GRPCError)) as caught:
                async with images.StreamGenerateImages.open(timeout=DEADLINE) as stream:
                    await self.start(stream, endless("outline"))
                    async for _ in stream:
                        pass
            if isinstance(caught.exception, GRPCError):
                self.assertEqual(caught.exception.status, Status.DEADLINE_EXCEEDED)
            e2e.wait_until(lambda: self.ended(server, "DEADLINE_EXCEEDED") + self.ended(server, "CANCELLED") == 1,
                           "the server has ended it")
            self.assertEqual((await images.GenerateImages(request, timeout=e2e.PATIENCE)).images[0].data, before)
            cancelled = self.ended(server, "CANCELLED")
            async with images.StreamGenerateImages.open() as stream:
                await self.start(stream, endless("outline"))
                await stream.cancel()
            e2e.wait_until(lambda: self.ended(server, "CANCELLED") == cancelled + 1, "the server has ended it")
            self.assertEqual(server.metrics().value("hotlora_adapter_refs"), 0)
            self.assertEqual((await images.GenerateImages(request, timeout=e2e.PATIENCE)).images[0].data, before)


class StrictHttp2Test(unittest.TestCase):
    """h2 ends a connection on which a frame comes for a stream that the server has ended."""

    def setUp(self):
        self.server = e2e.Server("--max-batch", "1", adapters=e2e.DEMO_ADAPTERS)
        self.addCleanup(self.server.kill)
        self.addCleanup(self.server.caller.close)
        host, port = self.server.target.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=e2e.PATIENCE)
        self.addCleanup(self.socket.close)
        self.connection = H2Connection(H2Configuration(header_encoding="utf-8"))
        self.connection.initiate_connection()

    def begin(self, request, timeout):
        """Starts a call that the server alone ends. Returns its stream."""
        stream = self.connection.get_next_available_stream_id()
        self.connection.send_headers(stream, [
            (":method", "POST"), (":scheme", "http"), (":path", "/hotlora.v1.ImageService/StreamGenerateImages"),
            (":authority", self.server.target), ("te", "trailers"), ("content-type", "application/grpc"),
            ("grpc-timeout", timeout)])
        message = request.SerializeToString()
        self.connection.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
        return stream

    def trailers(self, stream):
        """What the call ends with."""
        while True:
            self.socket.sendall(self.connection.data_to_send())
            data = self.socket.recv(1 << 16)
            self.assertTrue(data, "the server has closed the connection")
            for event in self.connection.receive_data(data):
                if isinstance(event, DataReceived):
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if isinstance(event, TrailersReceived) and event.stream_id == stream:
                    return dict(event.headers)

    def test_a_deadline_ends_a_call_once_and_says_so(self):
        for _ in range(2):
            late = self.trailers(self.begin(endless("outline"), "500m"))
            self.assertEqual((late["grpc-status"], late["grpc-message"]), ("4", "the call's deadline has passed"))
            self.assertIn("x-request-id", late)
            self.assertIn("grpc-status-details-bin", late)
            self.assertEqual(self.trailers(self.begin(request_for("outline"), "60S"))["grpc-status"], "0")


class GoTest(ExampleTests, unittest.TestCase):
    """Debian's Go compiles the example, and the calls of tests/e2e/go with it, from Debian's packages alone."""

    environment = {"GRPC_GO_RETRY": "on"}  # Debian's grpc-go is older than 1.40

    @classmethod
    def setUpClass(cls):
        workspace = e2e.temporary_folder()
        folder = workspace / "src/hotlora-example"
        shutil.copytree(EXAMPLES / "go", folder)
        for file in (e2e.SOURCE / "tests/e2e/go").glob("*_test.go"):
            shutil.copyfile(file, folder / file.name)
        environment = e2e.clean_environment(
            HOTLORA_PROTO=str(e2e.SOURCE / "proto"), GO111MODULE="off", GOFLAGS="", GOPROXY="off",
            GOPATH=f"{workspace}:{GO_PACKAGES}")
        cls.program, cls.calls = folder / "hotlora-example", folder / "calls"
        for words in [["./generate_stubs.sh"], ["go", "vet", "."], ["go", "build", "-o", cls.program, "."],
                      ["go", "test", "-c", "-o", cls.calls, "."]]:
            done = e2e.run(*words, cwd=folder, environment=environment, patience=300)
            if done.returncode != 0:
                raise AssertionError(f"{words}: {done.stdout}{done.stderr}")

    def example(self, prompt, adapter, seed, steps):
        return [self.program, "-adapter", adapter, "-seed", str(seed), "-steps", str(steps), prompt]

    def test_calls(self):
        server = self.start_server()
        environment = e2e.clean_environment(HOTLORA_SERVER=server.target, **self.environment)
        done = e2e.run(self.calls, "-test.v", patience=300, environment=environment)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        source = (e2e.SOURCE / "tests/e2e/go/calls_test.go").read_text()
        self.assertEqual(re.findall(r"^--- PASS: (\w+)", done.stdout, re.MULTILINE),
                         re.findall(r"^func (Test\w+)", source, re.MULTILINE))
        # Three were cancelled and one had a deadline, which is a cancellation too if the client's timer is first.
        e2e.wait_until(lambda: self.ended(server, "CANCELLED") + self.ended(server, "DEADLINE_EXCEEDED") == 4,
                       "the server has ended what was cancelled, and what had a deadline")
        scrape = server.metrics()
        self.assertEqual((scrape.value("hotlora_adapter_refs"), scrape.value("hotlora_queue_depth")), (0, 0))


if __name__ == "__main__":
    unittest.main()
