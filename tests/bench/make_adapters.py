#!/usr/bin/env python3
"""Writes random adapters for a diffusers-layout model: as many as wanted, in one format and rank or in all of them mixed.

  make_adapters.py --model DIR --out DIR --count 200 --format mixed [--rank 64]      # ranks 1 to 64, files of all formats
  make_adapters.py --model DIR --out DIR --count 2 --format lora --rank 16 --modules all
  make_adapters.py ... --broken 4                                                    # and files that must be refused

Modules come from the UNet file's own header: "attention" are the linear layers of its attentions, "all" every linear
layer of its transformers; "mixed" takes a part of them each time, and convolutions in LoCon. Values are seeded by the
adapter's number and small, so that pictures stay pictures. Needs numpy and safetensors.
"""
import argparse
import json
import pathlib
import struct

import numpy
from safetensors.numpy import save_file

FORMATS = ("lora", "kohya", "locon", "loha", "lokr", "dora", "full")
STRENGTH = 0.02  # of a change beside a weight's standard deviation 1 / sqrt(inputs), per unit of both factors


def unet_shapes(model):
    """Shapes of the UNet's tensors by name, from the headers of its files."""
    shapes = {}
    for path in sorted(pathlib.Path(model, "unet").glob("*.safetensors")):
        with open(path, "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        shapes.update({name: entry["shape"] for name, entry in header.items() if name != "__metadata__"})
    return shapes


def linears(shapes, which):
    """(module, shape) of the transformers' linear layers."""
    wanted = ".attn" if which == "attention" else ".attentions."
    return [(name.removesuffix(".weight"), shape) for name, shape in sorted(shapes.items())
            if wanted in name and name.endswith(".weight") and len(shape) == 2]


def convolutions(shapes):
    return [(name.removesuffix(".weight"), shape) for name, shape in sorted(shapes.items())
            if ".resnets." in name and name.endswith(".weight") and len(shape) == 4]


class Writer:
    """Tensors of one adapter."""

    def __init__(self, seed, dtype):
        self.random = numpy.random.default_rng(seed)
        self.dtype = dtype
        self.tensors = {}

    def values(self, *shape, scale):
        return (self.random.standard_normal(shape, dtype=numpy.float32) * scale).astype(self.dtype)

    def pair(self, out, inputs, rank):
        """Two factors whose product has a part STRENGTH of a weight's deviation."""
        return (self.values(out, rank, scale=STRENGTH / rank**0.5),
                self.values(rank, inputs, scale=1 / inputs**0.5))

    def add(self, name, form, shape, rank):
        out, inputs = shape[0], int(numpy.prod(shape[1:]))
        kohya = "lora_unet_" + name.replace(".", "_")
        alpha = numpy.array(rank / 2, dtype=self.dtype)
        if form in ("lora", "dora"):
            up, down = self.pair(out, inputs, rank)
            self.tensors[f"unet.{name}.lora_A.weight"] = down
            self.tensors[f"unet.{name}.lora_B.weight"] = up
            if form == "dora":
                self.tensors[f"unet.{name}.lora_magnitude_vector"] = 1 + self.values(out, scale=STRENGTH)
        elif form in ("kohya", "locon"):
            up, down = self.pair(out, inputs, rank)
            if len(shape) == 4:
                up, down = up.reshape(out, rank, 1, 1), down.reshape(rank, *shape[1:])
            self.tensors.update({f"{kohya}.lora_up.weight": up, f"{kohya}.lora_down.weight": down,
                                 f"{kohya}.alpha": alpha})
        elif form == "loha":
            for side in ("hada_w1", "hada_w2"):
                a, b = self.pair(out, inputs, rank)
                self.tensors[f"{kohya}.{side}_a"] = a / self.dtype(STRENGTH**0.5)
                self.tensors[f"{kohya}.{side}_b"] = b
            self.tensors[f"{kohya}.alpha"] = alpha
        elif form == "lokr":
            self.tensors[f"{kohya}.lokr_w1"] = self.values(4, 4, scale=0.5)
            up, down = self.pair(out // 4, inputs // 4, rank)
            self.tensors.update({f"{kohya}.lokr_w2_a": up, f"{kohya}.lokr_w2_b": down, f"{kohya}.alpha": alpha})
        else:
            self.tensors[f"{kohya}.diff"] = self.values(*shape, scale=STRENGTH / inputs**0.5)


def write_one(path, shapes, form, rank, which, seed, dtype, partly):
    writer = Writer(seed, dtype)
    modules = linears(shapes, which)
    if form == "locon":
        modules = modules + convolutions(shapes)
    if partly:  # mixed: files differ in which modules they change
        keep = writer.random.random(len(modules)) < writer.random.uniform(0.3, 1.0)
        modules = [module for module, kept in zip(modules, keep) if kept] or modules[:1]
    for name, shape in modules:
        most = min(shape[0], int(numpy.prod(shape[1:])), 8 if form == "loha" else rank)
        writer.add(name, form, shape, max(1, min(rank, most)))
    save_file(writer.tensors, path, metadata={"format": "pt", "seed": str(seed)})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--format", choices=(*FORMATS, "mixed"), default="lora")
    parser.add_argument("--rank", type=int, default=16, help="with --format mixed the largest; 1 to that are drawn")
    parser.add_argument("--modules", choices=("attention", "all"), default="attention")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--broken", type=int, default=0, help="files named broken_NN that must be refused")
    parser.add_argument("--name", default="adapter", help="files are NAME_0000.safetensors and so on")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    shapes = unet_shapes(args.model)
    dtype = getattr(numpy, args.dtype)
    draw = numpy.random.default_rng(args.seed)
    mixed = args.format == "mixed"
    for number in range(args.count):
        form = FORMATS[number % len(FORMATS)] if mixed else args.format
        rank = int(draw.integers(1, args.rank + 1)) if mixed else args.rank
        which = ("attention", "all")[number % 2] if mixed else args.modules
        write_one(out / f"{args.name}_{number:04d}.safetensors", shapes, form, rank, which, args.seed + number, dtype, mixed)
    for number in range(args.broken):
        path = out / f"broken_{number:02d}.safetensors"
        write_one(path, shapes, "lora", 4, "attention", args.seed + number, dtype, False)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * (number + 1) // (args.broken + 1)])


if __name__ == "__main__":
    main()
