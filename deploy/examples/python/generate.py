#!/usr/bin/env python3
"""Paints a picture and shows how far it is. Needs the package of deploy/python."""

import argparse
import os
import sys

import grpc
import hotlora
from hotlora.v1 import images_pb2, images_pb2_grpc


def paint(channel, request, show):
    """The image's bytes and the summary; `show` hears each event's kind and content."""
    images = images_pb2_grpc.ImageServiceStub(channel)
    data, summary = b"", None
    for event in images.StreamGenerateImages(request, timeout=600, metadata=hotlora.routing(request)):
        kind = event.WhichOneof("event")
        show(kind, getattr(event, kind))
        if kind == "image":
            data += event.image.data  # over 2 MiB it comes in parts
        elif kind == "summary":
            summary = event.summary
    return data, summary


def show_progress(kind, content):
    if kind == "accepted":
        print(f"accepted, {content.queue_position} before it, seed {content.seed}", file=sys.stderr)
    elif kind == "waiting":
        print(f"waiting: {content.stage}", file=sys.stderr)
    elif kind == "progress":
        print(f"step {content.step} of {content.total_steps}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt")
    parser.add_argument("--adapter", action="append", default=[], help="repeatable")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--out", default="picture.png")
    arguments = parser.parse_args()

    request = images_pb2.GenerateImagesRequest(
        prompt=arguments.prompt, steps=arguments.steps, seed=arguments.seed,
        adapters=[images_pb2.AdapterRef(name=name) for name in arguments.adapter])
    with hotlora.connect(os.environ.get("HOTLORA_SERVER", "127.0.0.1:50051")) as channel:
        try:
            data, summary = paint(channel, request, show_progress)
        except grpc.RpcError as error:
            sys.exit(f"{error.code().name}: {error.details()}")
    with open(arguments.out, "wb") as file:
        file.write(data)
    print(f"{arguments.out}: {len(data)} bytes in {summary.total_seconds:.2f} s")


if __name__ == "__main__":
    main()
