#!/usr/bin/env python3
"""Writes the pipeline's weights as one checkpoint with Stability's SGM names, as the manifest of single_file describes it.

  single_file.py GOLDEN FILE      GOLDEN is tests/golden; the build runs this, so it needs nothing but Python

The table (single_file/tensors.txt) has a line for each tensor, in the file's order: name, dtype, shape, and one of

  copy KEY...       the bytes of these tensors of the pipeline, one behind the other; a KEY is FOLDER/NAME
  transpose KEY     a matrix of the pipeline, transposed
  values NUMBER...  these numbers
"""
import hashlib
import json
import pathlib
import struct
import sys

FILES = {"text_encoder": "model", "text_encoder_2": "model", "unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
FORMATS = {"F16": "e", "I64": "q"}  # struct's letters


def read(file):
    """Name -> (shape, bytes) of a safetensors file."""
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8:start]), content[start:]
    header.pop("__metadata__", None)
    return {name: (entry["shape"], body[slice(*entry["data_offsets"])]) for name, entry in header.items()}


def transposed(shape, data, size):
    rows, columns = shape
    return b"".join(data[(row * columns + column) * size:][:size] for column in range(columns) for row in range(rows))


def build(table, pipeline):
    """The checkpoint's bytes."""
    tensors = {}
    for folder, file in FILES.items():
        for name, tensor in read(pathlib.Path(pipeline) / folder / f"{file}.safetensors").items():
            tensors[f"{folder}/{name}"] = tensor
    header, body = {"__metadata__": {"format": "pt"}}, bytearray()
    for line in pathlib.Path(table).read_text().splitlines():
        name, dtype, shape, how, *sources = line.split()
        if how == "copy":
            data = b"".join(tensors[key][1] for key in sources)
        elif how == "transpose":
            data = transposed(*tensors[sources[0]], struct.calcsize(FORMATS[dtype]))
        elif how == "values":
            data = struct.pack(f"<{len(sources)}{FORMATS[dtype]}", *map(int if dtype == "I64" else float, sources))
        else:
            sys.exit(f"{table}: {name}: \"{how}\" is not copy, transpose or values")
        header[name] = {"dtype": dtype, "shape": json.loads(shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(body)


def main(golden, file):
    folder = pathlib.Path(golden) / "single_file"
    case, = json.loads((folder / "manifest.json").read_text())["cases"]
    content = build(folder / case["table"], folder / case["pipeline"])
    digest = hashlib.sha256(content).hexdigest()
    if digest != case["sha256"]:
        sys.exit(f"{file}: sha256 would be {digest}; {folder}/manifest.json says {case['sha256']}")
    pathlib.Path(file).write_bytes(content)


if __name__ == "__main__":
    main(*sys.argv[1:])
