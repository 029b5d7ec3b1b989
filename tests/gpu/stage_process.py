"""Runs the command of a stage: with a time limit, in a process group of its own, and with its output in the log at once.

Standard library only.
"""

import os
import signal
import subprocess
import threading
import time

KEPT_BYTES = 400_000  # of a stage's output: its begin; and as much of its end


class Log:
    """The one log of a run. What a stage prints beyond 2 * KEPT_BYTES is left out from its middle."""

    def __init__(self, file):
        self.out = open(file, "wb", buffering=0)

    def size(self):
        return os.fstat(self.out.fileno()).st_size

    def say(self, text):
        self.out.write(text.encode() + b"\n")

    def copy(self, stream):
        """Copies until the end of the stream. The begin is written at once, the last part when the stream ends."""
        begun, end, left_out = 0, bytearray(), 0
        while chunk := stream.read1(65536):
            if begun < KEPT_BYTES:
                begun += self.out.write(chunk)
                continue
            end += chunk
            if len(end) > 2 * KEPT_BYTES:
                left_out += len(end) - KEPT_BYTES
                del end[:-KEPT_BYTES]
        if len(end) > KEPT_BYTES:
            left_out += len(end) - KEPT_BYTES
            del end[:-KEPT_BYTES]
        if left_out:
            self.say(f"... {left_out} bytes are left out here ...")
        self.out.write(bytes(end))


class StageProcess:
    """One command. `run` returns its exit status, negative for a signal, None if the limit ended it."""

    def __init__(self, command, environment, log, folder):
        self.command, self.environment, self.log, self.folder = command, environment, log, folder
        self.process = None

    def run(self, limit):
        self.process = subprocess.Popen(self.command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=os.setpgrp)
        reader = threading.Thread(target=self.log.copy, args=(self.process.stdout,), daemon=True)
        reader.start()
        try:
            status = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            self.end()
        reader.join(5)  # a grandchild in another group may keep the pipe open
        return status

    def end(self):
        """Ends the group: the process with a chance to clean up, then all that is left of it."""
        for number, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 10)):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                return
            end = time.monotonic() + patience
            while self.process.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
