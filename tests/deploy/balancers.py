"""HAProxy and Envoy as deploy/ configures them, in front of replicas on loopback: only addresses differ from what is shipped."""

import atexit
import json
import os
import pathlib
import socket
import subprocess
import sys
import urllib.request

SOURCE = pathlib.Path(os.environ["HOTLORA_TEST_SOURCE"])
TOOLS = pathlib.Path(os.environ["HOTLORA_TEST_TOOLS"])
sys.path.insert(0, str(SOURCE / "tests/e2e"))

import hotlora_server as e2e  # noqa: E402


def free_port():
    """A port below those that the kernel gives to outgoing connections, so that a server finds its own again.

    Tests that run at the same time have process ids close together: those begin a hundred ports and more apart.
    """
    for port in range(20000 + os.getpid() * 97 % 110 * 100, 32000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in free_port.given:
                free_port.given.add(port)
                return port
    raise AssertionError("no free port")


free_port.given = set()


def replace(text, *pairs):
    """`text` with each old part, which must be there, replaced by the new one."""
    for old, new in pairs:
        if old not in text:
            raise AssertionError(f"the configuration has no {old!r} any more: this test must follow it")
        text = text.replace(old, new)
    return text


class Replica(e2e.Server):
    """A hotlora-server of one compute thread whose ports stay the same over restarts."""

    def __init__(self, adapters, *flags, ports=None):
        self.ports = ports or (free_port(), free_port())
        self.flags = flags
        self.adapter_folder = adapters
        grpc_port, metrics_port = self.ports
        super().__init__(*flags, adapters=adapters, environment=e2e.clean_environment(OMP_NUM_THREADS="1"),
                         listen=f"127.0.0.1:{grpc_port}", metrics_listen=f"127.0.0.1:{metrics_port}")

    def restarted(self):
        """The next one in its place, after this one has drained."""
        if self.stop() != 0:
            raise AssertionError(f"a drained server ended with {self.process.returncode}:\n{self.log()}")
        return Replica(self.adapter_folder, *self.flags, ports=self.ports)


class Balancer:
    """A proxy's process; `is_up` waits until it takes every replica for healthy."""

    def __init__(self, name, command):
        self.name = name
        self.log_path = e2e.temporary_folder() / f"{name}.log"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=e2e.clean_environment())
        atexit.register(self.stop)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def page(self, url):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended:\n{self.log_path.read_text()}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=10) as page:
                return page.read().decode()
        except OSError:
            return ""

    def wait_for_replicas(self, count):
        e2e.wait_until(lambda: self.healthy() == count, f"{self.name} sees {count} healthy replicas")


class HAProxy(Balancer):
    def __init__(self, replicas, policy="hdr(x-adapter-key)"):
        port, self.metrics_port = free_port(), free_port()
        servers = "\n".join(f"  server replica{i} 127.0.0.1:{replica.ports[0]} port {replica.ports[1]} check-proto h1"
                            for i, replica in enumerate(replicas, 1))
        text = replace((SOURCE / "deploy/haproxy/haproxy.cfg").read_text(),
                       ("bind :50050", f"bind 127.0.0.1:{port}"),
                       ("bind :8405", f"bind 127.0.0.1:{self.metrics_port}"),
                       ("  server-template replica 8 replicas:50051 check-proto h1 resolvers dns init-addr none", servers),
                       ("balance hdr(x-adapter-key)", f"balance {policy}"))
        config = e2e.temporary_folder() / "haproxy.cfg"
        config.write_text(text)
        super().__init__("haproxy", ["haproxy", "-db", "-f", config])
        self.target = f"127.0.0.1:{port}"
        self.wait_for_replicas(len(replicas))

    def healthy(self):
        page = self.page(f"http://127.0.0.1:{self.metrics_port}/metrics")
        return sum(line.endswith(" 1") for line in page.splitlines()
                   if line.startswith('haproxy_server_check_status{proxy="hotlora"') and 'state="L7OK"' in line)


class Envoy(Balancer):
    """gRPC at `target`, REST at `rest_url`; with `page` also the page to try it, at "/"."""

    def __init__(self, replicas, policy="MAGLEV", page=False):
        port, admin, self.metrics_port = free_port(), free_port(), free_port()
        endpoint = "- endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}".format
        endpoints = "\n              ".join(endpoint("127.0.0.1", replica.ports[0]) for replica in replicas)
        text = replace((SOURCE / "deploy/envoy/envoy.yaml").read_text(),
                       ("0.0.0.0, port_value: 50050", f"127.0.0.1, port_value: {port}"),
                       ("0.0.0.0, port_value: 9902", f"127.0.0.1, port_value: {self.metrics_port}"),
                       ("port_value: 9901", f"port_value: {admin}"),
                       ("type: STRICT_DNS", "type: STATIC"),
                       (endpoint("replicas", 50051), endpoints),
                       ("lb_policy: MAGLEV", f"lb_policy: {policy}"),
                       ("/usr/local/share/hotlora/hotlora.protoset", str(e2e.BIN.parent / "hotlora.protoset")),
                       ("/etc/envoy/", f"{SOURCE}/deploy/envoy/"))
        config = e2e.temporary_folder() / "envoy.yaml"
        config.write_text(text)
        runtime = "{layered_runtime: {layers: [{name: page, static_layer: {hotlora.page: 100}}]}}" if page else "{}"
        super().__init__("envoy", [TOOLS / "envoy", "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning",
                                   "--file-flush-interval-msec", "20", "-c", config, "--config-yaml", runtime])
        self.target = f"127.0.0.1:{port}"
        self.rest_url = f"http://127.0.0.1:{port}"
        self.wait_for_replicas(len(replicas))

    def access_log(self):
        """What it logged of each call that ended so far."""
        return [json.loads(line) for line in self.log_path.read_text().splitlines() if line.startswith("{")]

    def healthy(self):
        page = self.page(f"http://127.0.0.1:{self.metrics_port}/stats/prometheus")
        for line in page.splitlines():
            if line.startswith('envoy_cluster_membership_healthy{envoy_cluster_name="hotlora"}'):
                return int(float(line.split(" ")[1]))
        return 0
