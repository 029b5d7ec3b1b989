"""A real Prometheus on loopback with the rules of deploy/prometheus, which scrapes one hotlora-server every second."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

sys.path.insert(0, str(__import__("pathlib").Path(__file__).parents[1] / "e2e"))
import hotlora_server as e2e  # noqa: E402

CONFIG = e2e.SOURCE / "deploy/prometheus/prometheus.yml"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def configuration(target):
    """The shipped configuration, faster, for one target, and with nobody to tell of alerts."""
    text = CONFIG.read_text()
    text = re.sub(r"(scrape_interval|evaluation_interval|scrape_timeout): \S+", r"\1: 1s", text)
    text = re.sub(r"alerting:\n.*?(?=\nscrape_configs)", "", text, flags=re.DOTALL)
    text = re.sub(r"\n  - job_name: prometheus\n.*", "", text, flags=re.DOTALL)
    return text.replace("rules/*.yml", str(CONFIG.parent / "rules/*.yml")).replace("hotlora:9464", target)


class Prometheus:
    def __init__(self, target):
        self.folder = e2e.temporary_folder()
        (self.folder / "prometheus.yml").write_text(configuration(target))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/data",
                 f"--web.listen-address=127.0.0.1:{port}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        e2e.atexit.register(self.stop)
        e2e.wait_until(self.is_ready, "Prometheus is ready")

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError("Prometheus ended:\n" + (self.folder / "log").read_text())
        time.sleep(0.1)
        try:
            return self.opener.open(self.url + "/-/ready", timeout=5).status == 200
        except OSError:
            return False

    def get(self, path, **parameters):
        """The data of an API answer; the error's text as ValueError."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}"
        try:
            with self.opener.open(url, timeout=e2e.PATIENCE) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from None

    def query(self, expression):
        """(labels, value) pairs."""
        return [(each["metric"], float(each["value"][1])) for each in self.get("query", query=expression)["result"]]

    def wait_for(self, expression):
        """Until the query has an answer."""

        def answered():
            time.sleep(0.2)
            return self.query(expression)

        return e2e.wait_until(answered, expression)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
