#!/usr/bin/env python3
"""Requests per second by OpenAI's path and AUTOMATIC1111's over gRPC's, all through one Envoy as deploy/ ships it.

The demo model at 128x128, 20 steps, one adapter, 8 callers. A round has a block of each kind in an order that is drawn; a block
is so many requests, all with the same picture. The ratio is that of all
seconds; its 95 % interval is by rounds drawn again (bootstrap).
Exit status 1 if a lower bound is below 0.9.

usage: HOTLORA_TEST_BIN=build/release/bin HOTLORA_TEST_SOURCE=. HOTLORA_TEST_TOOLS=VENV/bin PYTHON tests/bench/rest_throughput.py
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import pathlib
import random
import sys
import threading
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(os.environ["HOTLORA_TEST_SOURCE"]) / "tests/deploy"))

import balancers  # noqa: E402
from balancers import e2e  # noqa: E402
import numpy  # noqa: E402
from hotlora_server import request_for  # noqa: E402

CALLERS = 8
BAR = 0.9
PROMPT = "a large red circle on a yellow background"
STEPS, SIDE, GUIDANCE = 20, 128, 5.0


class Grpc:
    def __init__(self, envoy):
        self.caller = e2e.Caller(envoy.target, options=[*e2e.CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)])
        self.request = request_for("outline", prompt=PROMPT, steps=STEPS, width=SIDE, height=SIDE, guidance_scale=GUIDANCE)

    def __call__(self):
        answer = self.caller.images.GenerateImages(self.request, timeout=600, metadata=[("x-adapter-key", "outline")])
        assert len(answer.images) == 1


class Rest:
    """A kept connection to one path."""

    def __init__(self, envoy, path, body):
        self.connection = http.client.HTTPConnection(urllib.parse.urlsplit(envoy.rest_url).netloc, timeout=600)
        self.path, self.body = path, json.dumps(body)

    def __call__(self):
        self.connection.request("POST", self.path, self.body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        data = answer.read()
        assert answer.status == 200, data
        json.loads(data)


def openai(envoy):
    return Rest(envoy, "/v1/images/generations", {
        "prompt": PROMPT, "model": "outline", "seed": 7, "steps": STEPS, "size": f"{SIDE}x{SIDE}", "guidance_scale": GUIDANCE})


def automatic1111(envoy):
    return Rest(envoy, "/sdapi/v1/txt2img", {
        "prompt": f"{PROMPT}<lora:outline:1>", "seed": 7, "steps": STEPS, "width": SIDE, "height": SIDE, "cfg_scale": GUIDANCE})


KINDS = {"gRPC": Grpc, "OpenAI's path": openai, "AUTOMATIC1111's path": automatic1111}


def block_seconds(make, envoy, requests):
    """How long the callers take for so many requests together."""
    local = threading.local()

    def call(_):
        if not hasattr(local, "call"):
            local.call = make(envoy)
        local.call()

    with concurrent.futures.ThreadPoolExecutor(CALLERS) as callers:
        begin = time.monotonic()
        for done in [callers.submit(call, i) for i in range(requests)]:
            done.result()
        return time.monotonic() - begin


def interval(grpc, rest, chance):
    """Of the ratio of all seconds, by rounds drawn again."""
    drawn = chance.integers(len(grpc), size=(10000, len(grpc)))
    return numpy.percentile(grpc[drawn].sum(axis=1) / rest[drawn].sum(axis=1), [2.5, 97.5])


def processor():
    return next(line.split(": ")[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8") if line.startswith("model name"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--requests", type=int, default=8, help="in a block")
    options = parser.parse_args()
    server = e2e.Server("--max-queue", 64, adapters=e2e.ALL_DEMO_ADAPTERS)
    server.ports = [int(server.target.rsplit(":", 1)[1])]
    envoy = balancers.Envoy([server])
    for make in KINDS.values():
        block_seconds(make, envoy, CALLERS)
    seconds = {kind: [] for kind in KINDS}
    order = list(KINDS)
    for number in range(options.rounds):
        random.Random(number).shuffle(order)
        for kind in order:
            seconds[kind].append(block_seconds(KINDS[kind], envoy, options.requests))
        print(f"round {number + 1}: " + ", ".join(f"{kind} {options.requests / seconds[kind][-1]:.2f}/s" for kind in KINDS), flush=True)
    envoy.stop()
    server.stop()
    print(f"{processor()}, {os.cpu_count()} CPUs, {e2e.DTYPE}, {options.rounds} rounds of {options.requests} requests")
    passed = True
    by_grpc = numpy.array(seconds["gRPC"])
    print(f"gRPC: {options.requests / by_grpc.mean():.2f} requests/s")
    for kind in list(KINDS)[1:]:
        taken = numpy.array(seconds[kind])
        low, high = interval(by_grpc, taken, numpy.random.default_rng(1))
        passed &= low >= BAR
        print(f"{kind}: {options.requests / taken.mean():.2f} requests/s, {by_grpc.sum() / taken.sum():.3f} of gRPC's [{low:.3f}, {high:.3f}]")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
