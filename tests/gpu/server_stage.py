#!/usr/bin/env python3
"""The stage `server`: the real server and client on the demo model, in bfloat16 and in float16.

In each: pictures without and with adapters, 300 swaps, and after them the same memory, no block taken from the device, the
base weights verified, the base picture equal to the byte, and exit status 0. Standard library only.
"""

import csv
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

from stage_line import StageWriter, stage_options

SOURCE = pathlib.Path(__file__).resolve().parents[2]
DEMO = SOURCE / "deploy/demo"
DTYPES = ("bfloat16", "float16")
PROMPT = "a large red circle on a blue background"
# Columns of the sheet; the last repeats the first, after the swaps.
PICTURES = ([], ["outline"], ["outline", "night:0.7"], ["stripes", "frame:0.5"], [])


class Failure(Exception):
    """A program did not do what it was asked."""


class Server:
    """hotlora-server on free ports of loopback, and its client."""

    def __init__(self, args, dtype, folder, patience):
        self.args, self.folder = args, folder
        self.environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self.environment["LD_LIBRARY_PATH"] = args.libraries
        ready = folder / "ready.json"
        command = [f"{args.bin}/hotlora-server", "--model", DEMO / "model", "--adapters", DEMO / "adapters", "--device", args.device,
                   "--dtype", dtype, "--adapter-device-bytes", "64MiB", "--adapter-host-bytes", "64MiB",
                   "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--ready-file", ready]
        self.process = subprocess.Popen(command, env=self.environment)
        end = time.monotonic() + patience
        while not ready.exists():
            if self.process.poll() is not None:
                raise Failure(f"the server in {dtype} ended with {self.process.returncode} before it was ready")
            if time.monotonic() > end:
                self.stop()
                raise Failure(f"the server in {dtype} was not ready after {patience:.0f} s")
            time.sleep(0.05)
        ports = json.loads(ready.read_text())
        self.address, self.metrics_port = f"127.0.0.1:{ports['grpc_port']}", ports["metrics_port"]

    def client(self, *words, patience):
        """What the client prints."""
        done = subprocess.run([f"{self.args.bin}/hotlora", "--server", self.address, *map(str, words)], env=self.environment,
                              capture_output=True, text=True, timeout=max(1.0, patience))
        print(done.stderr, file=sys.stderr)
        if done.returncode != 0:
            raise Failure(f"hotlora {' '.join(map(str, words))} ended with {done.returncode}: {(done.stdout + done.stderr)[-500:]}")
        return done.stdout

    def metrics(self):
        """Every sample that has no label but the device."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as page:
            text = page.read().decode()
        return {name: float(value) for name, value in re.findall(r'^(\w+)(?:\{device="[^"]*"\})? (\S+)$', text, re.MULTILINE)}

    def metrics_at_rest(self):
        """The scrape with the fewest allocated bytes of 20: a check of base weights holds a digest for a moment."""
        return min((self.metrics() for _ in range(20)), key=lambda scrape: scrape["hotlora_device_memory_allocated_bytes"])

    def stop(self):
        """The exit status; None if it had to be killed."""
        self.process.terminate()
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


def try_dtype(writer, args, dtype, pictures):
    tiny = args.size == "tiny"
    steps, swaps = (2, 10) if tiny else (20, 300)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        server = Server(args, dtype, pathlib.Path(folder), writer.seconds_left())
        writer.figure(f"{dtype}.start", "s", [time.monotonic() - begin])

        def picture(file, adapters):
            words = [word for adapter in adapters for word in ("--adapter", adapter)]
            begin = time.monotonic()
            server.client("generate", PROMPT, "--seed", 7, "--steps", steps, "--out", file, *words, patience=writer.seconds_left())
            return 1000 * (time.monotonic() - begin)

        def swap(count):
            """A row for each swap, in seconds (client/bench/swap_bench.cc). A request without a swap follows each."""
            table = pathlib.Path(folder) / "swaps.csv"
            server.client("bench", "swap", "--in-turn", "--warm-up", 0, "--iterations", count, "--size", 128, "--csv", table,
                          patience=writer.seconds_left())
            with table.open(newline="") as rows:
                return list(csv.DictReader(rows))

        try:
            files = [pictures / f"{dtype}-{number}.png" for number in range(len(PICTURES))]
            times = [picture(file, adapters) for file, adapters in zip(files[:-1], PICTURES)]
            writer.figure(f"{dtype}.picture", "ms", times)
            # Each adapter once, then the base: what is taken from the device for the first time is not counted.
            swap(4)
            picture(files[-1], [])
            before = server.metrics_at_rest()
            rows = swap(swaps)
            picture(files[-1], [])
            after = server.metrics_at_rest()
            verified = json.loads(server.client("--json", "verify", patience=writer.seconds_left()))
        finally:
            status = server.stop()
        memory = {name: (before[f"hotlora_device_memory_{name}"], after[f"hotlora_device_memory_{name}"])
                  for name in ("allocated_bytes", "reserved_bytes", "segments", "device_allocations_total")}
        writer.note(f"{dtype}.memory", {name: {"before": pair[0], "after": pair[1]} for name, pair in memory.items()})
        writer.note(f"{dtype}.swaps", swaps)
        writer.note(f"{dtype}.modules_verified", verified["modules_checked"])
        write_swaps(writer, dtype, rows)
        writer.check(f"{dtype}.makes_all_swaps", len(rows) == swaps and all(float(row["total"]) > 0 for row in rows))
        taken = memory["device_allocations_total"]
        writer.figure(f"{dtype}.device_allocations_of_the_swaps", "1", [taken[1] - taken[0]])
        writer.check(f"{dtype}.takes_nothing_from_the_device", taken[0] == taken[1])
        writer.check(f"{dtype}.allocated_bytes_are_equal", memory["allocated_bytes"][0] == memory["allocated_bytes"][1])
        writer.check(f"{dtype}.base_is_intact", verified["intact"] and int(verified["modules_checked"]) > 0 and
                     after["hotlora_base_restore_mismatch_total"] == 0)
        contents = [file.read_bytes() for file in files]
        writer.check(f"{dtype}.base_picture_is_equal", contents[0] == contents[-1])
        writer.check(f"{dtype}.adapters_change_the_picture", len(set(contents)) == len(contents) - 1)
        writer.check(f"{dtype}.exit_status_is_0", status == 0)
        return files


def write_swaps(writer, dtype, rows):
    for phase in ("lookup", "upload", "apply", "restore", "total"):
        writer.figure(f"{dtype}.swap.{phase}", "ms", [1000 * float(row[phase]) for row in rows])
    writer.figure(f"{dtype}.request_without_a_swap", "ms", [1000 * float(row["twin_seconds"]) for row in rows])


def main():
    parser = stage_options(__doc__)
    parser.add_argument("--bin", required=True, help="folder of the two programs")
    parser.add_argument("--libraries", default="", help="LD_LIBRARY_PATH of the programs")
    parser.add_argument("--pictures", help="PNG file to write: a row for each dtype, a column for each set of adapters")
    args = parser.parse_args()
    args.device = "cpu" if args.device.startswith("sim") else args.device  # which the server does not have
    writer = StageWriter("server", args)

    def body():
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for dtype in DTYPES:
                try:
                    files += try_dtype(writer, args, dtype, pathlib.Path(folder))
                except (Failure, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
                    print(f"stage server: {dtype}: {error}", file=sys.stderr)
                    writer.note(f"{dtype}.error", str(error))
                    writer.check(f"{dtype}.runs_to_its_end", False)
            if args.pictures and files:
                subprocess.run([f"{args.bin}/hotlora", "sheet", *files, "--columns", str(len(PICTURES)), "--out", args.pictures],
                               env={**os.environ, "LD_LIBRARY_PATH": args.libraries}, check=True)

    return writer.run(body)


if __name__ == "__main__":
    sys.exit(main())
