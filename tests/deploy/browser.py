"""Headless Chromium, driven by the DevTools protocol over a pair of pipes."""

import base64
import json
import os
import select
import subprocess
import time

from balancers import e2e


class Browser:
    """One page of a browser of its own, without cookies or cache from before."""

    def __init__(self):
        to_browser, self.commands = os.pipe()
        self.answers, from_browser = os.pipe()
        words = ["chromium-headless-shell", "--no-sandbox", "--disable-gpu", "--no-proxy-server", "--remote-debugging-pipe",
                 "--window-size=1040,680", f"--user-data-dir={e2e.temporary_folder()}", "about:blank"]
        # It reads commands from 3 and writes answers to 4.
        placed = ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "bash", *words]
        self.process = subprocess.Popen(placed, pass_fds=(to_browser, from_browser), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=e2e.clean_environment())
        os.close(to_browser)
        os.close(from_browser)
        self.last, self.unread, self.session = 0, b"", None
        self.messages = []  # of the page's console and policy
        (page,) = [target for target in self.call("Target.getTargets")["targetInfos"] if target["type"] == "page"]
        self.session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        os.close(self.commands)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.answers)

    def call(self, method, **parameters):
        self.last += 1
        command = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            command["sessionId"] = self.session
        os.write(self.commands, json.dumps(command).encode() + b"\0")
        deadline = time.monotonic() + e2e.PATIENCE
        while True:
            message = self.read(deadline)
            if message.get("id") == self.last:
                if "error" in message:
                    raise AssertionError(f"{method}: {message['error']['message']}")
                return message["result"]
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.messages.append(json.dumps(message["params"]))

    def read(self, deadline):
        while b"\0" not in self.unread:
            if not select.select([self.answers], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError("the browser does not answer")
            part = os.read(self.answers, 1 << 20)
            if not part:
                raise AssertionError(f"the browser ended with {self.process.wait(timeout=10)}")
            self.unread += part
        message, self.unread = self.unread.split(b"\0", 1)
        return json.loads(message)

    def open(self, url):
        self.call("Page.navigate", url=url)
        e2e.wait_until(lambda: self.value("document.readyState") == "complete", f"{url} is loaded")

    def value(self, expression):
        """What a JavaScript expression is; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def screenshot(self):
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
