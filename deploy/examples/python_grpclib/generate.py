#!/usr/bin/env python3
"""Paints a picture and shows how far it is, by grpclib: gRPC of asyncio, without gRPC's own library.

grpclib knows no service config. The retry policy of deploy/service_config.json is applied here.
"""

import argparse
import asyncio
import json
import os
import pathlib
import random
import sys
import unicodedata
import urllib.parse

from google.rpc import error_details_pb2
from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError

from hotlora.v1 import images_pb2
from hotlora.v1.images_grpc import ImageServiceStub

SERVICE_CONFIG = pathlib.Path(__file__).resolve().parents[2] / "service_config.json"


def retry_policy():
    return json.loads(SERVICE_CONFIG.read_text())["methodConfig"][0]["retryPolicy"]


def seconds(text):
    return float(text.removesuffix("s"))


def retry_delay(error, attempt, policy):
    """The seconds to wait before attempt `attempt` + 1, or None if the error stays. The server's RetryInfo comes first."""
    if attempt >= policy["maxAttempts"]:
        return None
    if isinstance(error, GRPCError):
        if error.status.name not in policy["retryableStatusCodes"]:
            return None
        for detail in error.details or ():
            if isinstance(detail, error_details_pb2.RetryInfo):
                return detail.retry_delay.ToTimedelta().total_seconds()
        if error.status.name == "RESOURCE_EXHAUSTED":
            return None  # without RetryInfo it does not go away by itself
    longest = seconds(policy["initialBackoff"]) * policy["backoffMultiplier"] ** (attempt - 1)
    return random.uniform(0, min(longest, seconds(policy["maxBackoff"])))


async def paint(channel, request, show, timeout=600):
    """The image's bytes and the summary; `show` hears each event's kind and content. What did not start is tried again."""
    policy, attempt = retry_policy(), 1
    while True:
        data, summary, begun = b"", None, False
        try:
            stub = ImageServiceStub(channel)
            async with stub.StreamGenerateImages.open(timeout=timeout, metadata=routing(request)) as stream:
                await stream.send_message(request, end=True)
                async for event in stream:
                    begun = True
                    kind = event.WhichOneof("event")
                    show(kind, getattr(event, kind))
                    if kind == "image":
                        data += event.image.data  # over 2 MiB it comes in parts
                    elif kind == "summary":
                        summary = event.summary
            if summary is None:
                raise ConnectionError("the connection ended before the summary")
            return data, summary
        except (GRPCError, StreamTerminatedError, ConnectionError) as error:
            delay = None if begun else retry_delay(error, attempt, policy)
            if delay is None:
                raise
        await asyncio.sleep(delay)
        attempt += 1


def routing(request):
    """Metadata by which load balancers route: the adapters' names in order, percent-encoded, or "base"."""
    names = (unicodedata.normalize("NFC", adapter.name) for adapter in request.adapters)
    return [("x-adapter-key", ",".join(urllib.parse.quote(name, safe="/") for name in names) or "base")]


def show_progress(kind, content):
    if kind == "progress":
        print(f"step {content.step} of {content.total_steps}", file=sys.stderr, flush=True)


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt")
    parser.add_argument("--adapter", action="append", default=[], help="repeatable")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int)
    arguments = parser.parse_args()

    request = images_pb2.GenerateImagesRequest(
        prompt=arguments.prompt, steps=arguments.steps, seed=arguments.seed,
        adapters=[images_pb2.AdapterRef(name=name) for name in arguments.adapter])
    host, _, port = os.environ.get("HOTLORA_SERVER", "127.0.0.1:50051").rpartition(":")
    async with Channel(host, int(port)) as channel:
        try:
            data, summary = await paint(channel, request, show_progress)
        except GRPCError as error:
            sys.exit(f"{error.status.name}: {error.message}")
        except (StreamTerminatedError, OSError) as error:
            sys.exit(f"UNAVAILABLE: {error}")
    pathlib.Path("picture.png").write_bytes(data)
    print(f"picture.png: {len(data)} bytes in {summary.total_seconds:.2f} s")


if __name__ == "__main__":
    asyncio.run(main())
