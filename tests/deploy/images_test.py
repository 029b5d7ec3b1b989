"""The image from the Dockerfile, and deploy/docker-compose.yml on it: health, a picture, a scrape, alerts, a drain."""

import json
import re
import shutil
import subprocess
import sys
import time
import unittest
import urllib.parse
import urllib.request

from balancers import SOURCE, e2e
import docker_daemon
from hotlora_server import request_for

DEPLOY = SOURCE / "deploy"


def get_json(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as page:
        return json.load(page)


def quick(name):
    """deploy/NAME with scrapes, windows and waits in seconds instead of minutes; steps are slow at ten times the baseline, which
    no busy machine makes of them. All else as shipped."""
    folder = e2e.temporary_folder() / name
    shutil.copytree(DEPLOY / name, folder)
    for file in folder.rglob("*.yml"):
        text = re.sub(r"(\b(?:scrape_interval|scrape_timeout|evaluation_interval|group_wait|group_interval):) \d+[sm]", r"\1 1s",
                      file.read_text())
        file.write_text(re.sub(r"(\bfor:) \d+[smh]", r"\1 2s", text).replace("[5m]", "[10s]").replace("avg5m > 1.5", "avg5m > 10"))
    for path in [folder.parent, folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)  # containers read them as somebody else
    return folder


class ImagesTest(unittest.TestCase):
    """In order, on one set of containers."""

    files = ["-f", DEPLOY / "docker-compose.yml"]
    painted = 0  # pictures so far

    @classmethod
    def setUpClass(cls):
        cls.daemon = daemon = docker_daemon.Daemon()
        cls.addClassCleanup(daemon.stop)
        daemon.docker("import", "--change", 'CMD ["bash"]', docker_daemon.base_tar(), docker_daemon.BASE)
        started = time.monotonic()
        base, source = docker_daemon.seed_build_base(daemon, SOURCE)
        daemon.docker("build", "--network", "host", "--target", "cpu", "--build-arg", f"BUILD_BASE={base}", "--build-arg",
                      f"SOURCE={source}", "-t", "hotlora:cpu", "-f", SOURCE / "Dockerfile", SOURCE, patience=3000)
        print(f"the image was built in {time.monotonic() - started:.0f} s", file=sys.stderr)
        services = json.loads(cls.compose("config", "--format", "json"))["services"]
        for name in ("prometheus", "alertmanager"):
            daemon.docker("build", "--network", "host", "--target", name, "-t", services[name]["image"],
                          "-f", SOURCE / "tests/deploy/monitoring.Dockerfile", SOURCE / "tests/deploy")

        override = e2e.temporary_folder() / "override.yml"
        override.write_text(json.dumps({"services": {
            "hotlora": {"environment": {"HOTLORA_FAULT_FILE": "/tmp/slow", "HOTLORA_DTYPE": e2e.DTYPE}},
            "prometheus": {"volumes": [f"{quick('prometheus')}:/etc/prometheus:ro"]},
            "alertmanager": {"volumes": [f"{quick('alertmanager')}:/etc/alertmanager:ro"]}}}))
        cls.files = [*cls.files, "-f", override]
        cls.addClassCleanup(cls.compose, "down", "-v", "-t", "30")
        # Grafana's image can only come from a hub.
        cls.compose("up", "--wait", "--wait-timeout", "120", "hotlora", "prometheus", "alertmanager")

    @classmethod
    def compose(cls, *words):
        any_free = {"HOTLORA_PORT": "0", "PROMETHEUS_PORT": "0", "ALERTMANAGER_PORT": "0"}
        return docker_daemon.output(docker_daemon.COMPOSE, *cls.files, *words,
                                    environment={**cls.daemon.environment, **any_free})

    def address(self, service, port):
        return self.compose("port", service, port).strip()

    def container(self):
        return self.compose("ps", "-q", "hotlora").strip()

    def inspect(self, template):
        return self.daemon.docker("inspect", "--format", template, self.container()).strip()

    def generate(self, *words, steps=4):
        picture = e2e.temporary_folder() / "picture.png"
        docker_daemon.output(e2e.CLIENT, "--server", self.address("hotlora", 50051), "generate", "a large red circle",
                             "--seed", "7", "--steps", steps, *words, "--out", picture)
        type(self).painted += 1
        return picture.read_bytes()

    def query(self, expression):
        url = f"http://{self.address('prometheus', 9090)}/api/v1/query?query={urllib.parse.quote(expression)}"
        return [float(entry["value"][1]) for entry in get_json(url)["data"]["result"]]

    def alerts(self):
        """Name and severity of what fires, as Alertmanager has it."""
        url = f"http://{self.address('alertmanager', 9093)}/api/v2/alerts?active=true"
        return {(alert["labels"]["alertname"], alert["labels"]["severity"]) for alert in get_json(url)}

    def test_1_it_is_small_and_has_no_rights(self):
        size = int(self.daemon.docker("image", "inspect", "--format", "{{.Size}}", "hotlora:cpu"))
        print(f"hotlora:cpu is {size / 1e6:.0f} MB", file=sys.stderr)
        self.assertLess(size, 900e6)  # LibTorch alone is 500
        self.assertEqual(self.compose("exec", "-T", "hotlora", "id", "-u").strip(), "10001")
        self.assertEqual(self.inspect("{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}"), "true [ALL]")
        written = e2e.run(docker_daemon.DOCKER, "exec", self.container(), "touch", "/file", environment=self.daemon.environment)
        self.assertNotEqual(written.returncode, 0)
        contents = self.daemon.docker("run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", "hotlora:cpu", "-c",
                                      "ls /src /root/.cache /usr/bin/g++ 2>/dev/null; ls /usr/local/share/hotlora")
        self.assertEqual(contents.split(), ["hotlora.protoset", "proto", "service_config.json"])

    def test_2_the_client_generates_through_it(self):
        self.assertEqual(self.generate("--adapter", "outline")[:4], b"\x89PNG")
        self.assertNotEqual(self.generate("--adapter", "outline"), self.generate())
        self.assertIn("serving", self.compose("exec", "-T", "hotlora", "hotlora", "health"))

    def test_3_prometheus_scrapes_it(self):
        e2e.wait_until(lambda: self.query('up{job="hotlora"}') == [1.0], "the target is up")
        self.generate()
        e2e.wait_until(lambda: sum(self.query("hotlora_images_total")) == self.painted, "every picture is counted")

    def test_4_a_server_that_hangs_is_an_alert_until_it_answers_again(self):
        down = ("HotloraTargetDown", "page")
        e2e.wait_until(lambda: down not in self.alerts(), "it is up")
        self.compose("pause", "hotlora")
        try:
            e2e.wait_until(lambda: down in self.alerts(), "the alert fires")
        finally:
            self.compose("unpause", "hotlora")
        e2e.wait_until(lambda: down not in self.alerts(), "the alert is over", patience=180)

    def test_5_steps_that_become_slow_are_an_alert_until_they_are_fast_again(self):
        drift = ("HotloraStepLatencyDrift", "page")
        e2e.wait_until(lambda: self.load(4) or drift not in self.alerts(), "nothing drifts", patience=180)
        self.compose("exec", "-T", "hotlora", "sh", "-c", "echo 5 > /tmp/slow")
        try:
            e2e.wait_until(lambda: self.load(1, steps=1) or drift in self.alerts(), "the alert fires", patience=180)
        finally:
            self.compose("exec", "-T", "hotlora", "rm", "/tmp/slow")
        e2e.wait_until(lambda: self.load(4) or drift not in self.alerts(), "the alert is over", patience=180)

    def load(self, pictures, **options):
        for _ in range(pictures):
            self.generate(**options)

    def test_6_health_shows_in_docker(self):
        e2e.wait_until(lambda: self.inspect("{{.State.Health.Status}}") == "healthy", "it is healthy")

    def test_7_the_access_log_is_in_its_output(self):
        e2e.wait_until(lambda: len(self.logged()) == self.painted, "every picture has its line")
        self.assertEqual([adapter["name"] for adapter in self.logged()[0]["adapters"]], ["outline"])

    def logged(self):
        lines = [json.loads(line) for line in self.compose("logs", "--no-log-prefix", "hotlora").splitlines() if line[:1] == "{"]
        return [line for line in lines if line["method"] == "StreamGenerateImages"]

    def test_8_sigterm_reaches_it_and_drains(self):
        caller = e2e.Caller(self.address("hotlora", 50051))
        self.addCleanup(caller.close)
        stream = caller.stream(request_for(steps=300))
        e2e.read_until(stream, "progress")
        container = self.container()
        stopping = subprocess.Popen([docker_daemon.DOCKER, "stop", "-t", "60", container], env=self.daemon.environment,
                                    stdout=subprocess.DEVNULL)
        self.assertTrue(e2e.read_until(stream, "summary").server_version)
        self.assertEqual(stopping.wait(timeout=90), 0)
        self.assertEqual(self.daemon.docker("inspect", "--format", "{{.State.ExitCode}}", container).strip(), "0")


if __name__ == "__main__":
    unittest.main(verbosity=2)
