"""The server as a process among others: signals, settings read anew, a log that is not read, and what --check refuses."""

import collections
import http.client
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import time
import unittest

import grpc

import hotlora_server as e2e
from hotlora_server import request_for, server_pb2

FIRST, SECOND = "first-token-0123456", "second-token-012345"


class Process:
    """A server whose standard error is a pipe, or a file; it need not be ready."""

    def __init__(self, *flags, stderr=subprocess.DEVNULL, **more):
        self.ready_file = e2e.temporary_folder() / "ready.json"
        command = [e2e.SERVER, "--model", e2e.DEMO, "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0",
                   "--adapters", e2e.DEMO_ADAPTERS, "--ready-file", self.ready_file, *flags]
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=stderr, env=e2e.clean_environment(), **more)

    def caller(self):
        e2e.wait_until(self.ready_file.exists, "the server is ready")
        return e2e.Caller(f"127.0.0.1:{json.loads(self.ready_file.read_text())['grpc_port']}")

    def kill(self):
        self.process.kill()
        self.process.wait()


def blocks(pid, number):
    """Whether the process has blocked the signal, so that it waits for the thread that takes it."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


class ThreadsTest(unittest.TestCase):
    def start(self, **environment):
        inherited = {name: value for name, value in e2e.clean_environment().items() if not name.startswith(("OMP_", "GOMP_", "MKL_"))}
        server = e2e.Server(adapters=e2e.DEMO_ADAPTERS, environment={**inherited, **environment})
        self.addCleanup(server.kill)
        return server

    def threads(self, server):
        """The ids of the server's threads, by name. A team's threads have the name of the thread that started it."""
        named = collections.defaultdict(set)
        for task in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir():
            try:
                named[(task / "comm").read_text().strip()].add(task.name)
            except (FileNotFoundError, ProcessLookupError):
                pass  # it has ended
        return named

    def images(self, server):
        for adapters in ((), ("outline",), ("night", "outline")):
            server.caller.image(request_for(*adapters, width=128, height=128))

    def settings(self, server):
        variables = pathlib.Path(f"/proc/{server.process.pid}/environ").read_text().split("\0")
        return {variable for variable in variables if variable.startswith(("OMP_", "GOMP_"))}

    def test_the_step_thread_alone_keeps_its_team_and_keeps_the_same_one(self):
        server = self.start(OMP_NUM_THREADS="2")
        self.images(server)
        before = self.threads(server)
        self.images(server)
        after = self.threads(server)
        self.assertEqual(len(after["step"]), 2)
        self.assertEqual(after["step"], before["step"])
        for name in ("decode", "adapter", "picture"):
            e2e.wait_until(lambda: len(self.threads(server)[name]) == 1, f"the team of {name} has ended")

    def test_the_server_says_how_threads_wait_unless_the_environment_does(self):
        self.assertIn("OMP_WAIT_POLICY=PASSIVE", self.settings(self.start()))
        given = self.start(OMP_WAIT_POLICY="ACTIVE", OMP_NUM_THREADS="1")
        self.assertEqual(self.settings(given), {"OMP_WAIT_POLICY=ACTIVE", "OMP_NUM_THREADS=1"})


class LogTest(unittest.TestCase):
    def test_a_log_that_is_not_read_holds_up_no_call_and_no_stop(self):
        server = Process(stderr=subprocess.PIPE)  # 64 KiB, some 550 calls
        self.addCleanup(server.process.stderr.close)
        self.addCleanup(server.kill)
        caller = server.caller()
        self.addCleanup(caller.close)
        for _ in range(1500):
            caller.info.GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=20)
        self.assertTrue(caller.image(request_for(), timeout=20))
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.process.wait(timeout=30), 0)


class SignalTest(unittest.TestCase):
    def test_sigterm_while_it_starts_is_a_good_end(self):
        for delay in (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5):
            server = Process()
            self.addCleanup(server.kill)
            # Before main, while its libraries are loaded, a signal does what it does to any process.
            e2e.wait_until(lambda: blocks(server.process.pid, signal.SIGTERM), "the server takes signals")
            time.sleep(delay)  # the moments differ by machine; each must end well
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(server.process.wait(timeout=30), 0, f"after {delay} s")
            self.assertFalse(server.ready_file.exists())

    def test_signals_that_mean_nothing_end_nothing_and_sigquit_drains(self):
        server = Process()
        self.addCleanup(server.kill)
        caller = server.caller()
        self.addCleanup(caller.close)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
            server.process.send_signal(number)
        self.assertTrue(caller.image(request_for()))
        self.assertIsNone(server.process.poll())
        server.process.send_signal(signal.SIGQUIT)
        self.assertEqual(server.process.wait(timeout=30), 0)

    def test_sighup_revokes_a_token_and_a_broken_file_changes_nothing(self):
        tokens = e2e.temporary_folder() / "tokens"
        tokens.write_text(f"{FIRST} admin\n")
        server = e2e.Server("--tokens-file", tokens)
        self.addCleanup(server.kill)
        self.addCleanup(server.caller.close)

        def code(token):
            try:
                server.caller.info.GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=e2e.PATIENCE,
                                                 metadata=[("authorization", f"Bearer {token}")])
            except grpc.RpcError as error:
                return error.code().name
            return "OK"

        self.assertEqual((code(FIRST), code(SECOND)), ("OK", "UNAUTHENTICATED"))
        tokens.write_text(f"{SECOND} admin\n")
        server.signal(signal.SIGHUP)
        server.wait_for_metric(1, "hotlora_config_reloads_total", outcome="ok")
        self.assertEqual((code(FIRST), code(SECOND)), ("UNAUTHENTICATED", "OK"))
        tokens.write_text("broken\n")
        server.signal(signal.SIGHUP)
        server.wait_for_metric(1, "hotlora_config_reloads_total", outcome="error")
        self.assertEqual(code(SECOND), "OK")
        self.assertIn("--tokens-file", server.log())


class StuckStepTest(unittest.TestCase):
    def test_sigterm_does_not_wait_for_it_and_callers_hear_the_end(self):
        fault = e2e.temporary_folder() / "fault"
        server = e2e.Server("--fault-file", fault, "--drain-timeout", "1")
        self.addCleanup(server.kill)
        self.addCleanup(server.caller.close)
        fault.write_text("60")  # for a step
        call = server.caller.images.GenerateImages.future(request_for())
        server.wait_for_metric(1, "hotlora_requests_in_flight")
        server.signal(signal.SIGTERM)
        self.assertEqual(server.wait(patience=45), 0)
        problem = e2e.problem_of(call.result)
        self.assertEqual((problem.code, problem.reason), ("UNAVAILABLE", "DRAINING"))
        self.assertIn("not ready: draining", server.log())


class DescriptorTest(unittest.TestCase):
    """More connections than the process may have descriptors."""

    def test_the_port_answers_again_once_they_are_free(self):
        few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))  # noqa: E731
        server = Process(preexec_fn=few)
        self.addCleanup(server.kill)
        early = server.caller()
        self.addCleanup(early.close)
        self.assertTrue(early.image(request_for()))  # it is connected now
        ready = json.loads(server.ready_file.read_text())
        for _ in range(3):
            flood = [socket.create_connection(("127.0.0.1", ready["grpc_port"])) for _ in range(100)]
            e2e.wait_until(lambda: self.probe(ready["metrics_port"]) == 503, "the probe says so")
            self.assertTrue(early.image(request_for("night")))  # which reads a file
            for connection in flood:
                connection.close()
            late = e2e.Caller(f"127.0.0.1:{ready['grpc_port']}")
            self.addCleanup(late.close)
            grpc.channel_ready_future(late.channel).result(timeout=30)
            self.assertTrue(late.image(request_for(), timeout=30))
            e2e.wait_until(lambda: self.probe(ready["metrics_port"]) == 200, "it is ready again")
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.process.wait(timeout=30), 0)

    def probe(self, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/-/ready")
        status = connection.getresponse().status
        connection.close()
        return status


class CheckTest(unittest.TestCase):
    """--check refuses what a start would refuse."""

    def check(self, *flags):
        return e2e.run(e2e.SERVER, "--model", e2e.DEMO, "--check", *flags)

    def test_tokens(self):
        folder = e2e.temporary_folder()
        for name, text, mode in (("broken", "short admin\n", 0o600), ("empty", "", 0o600), ("open", f"{FIRST} admin\n", 0o666)):
            (folder / name).write_text(text)
            os.chmod(folder / name, mode)
            done = self.check("--tokens-file", folder / name)
            self.assertEqual(done.returncode, 2, name)
            self.assertIn(f"--tokens-file {folder / name}: ", done.stderr)

    def test_a_secret_that_all_may_read_is_a_warning(self):
        tokens = e2e.temporary_folder() / "tokens"
        tokens.write_text(f"{FIRST} admin\n")
        for mode, warned in ((0o644, True), (0o640, False)):
            os.chmod(tokens, mode)
            done = self.check("--tokens-file", tokens)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(f"--tokens-file {tokens}: every user of this machine may read it" in done.stderr, warned)

    def test_certificates(self):
        folder = e2e.temporary_folder()
        for name in ("good", "other"):
            made = e2e.run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                           "-subj", "/CN=localhost", "-days", "2", "-keyout", folder / f"{name}.key", "-out",
                           folder / f"{name}.pem")
            self.assertEqual(made.returncode, 0, made.stderr)
        for cert, key, code in (("good", "good", 0), ("good", "other", 2)):
            done = self.check("--tls-cert", folder / f"{cert}.pem", "--tls-key", folder / f"{key}.key")
            self.assertEqual(done.returncode, code, done.stderr)


if __name__ == "__main__":
    unittest.main()
