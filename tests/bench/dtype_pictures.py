#!/usr/bin/env python3
"""How far are pictures in float16 and in bfloat16 from those in float32, with all networks or with the VAE alone in
these dtypes? On the CPU, with the demo model.

  HOTLORA_TEST_BIN=build/release/bin HOTLORA_TEST_SOURCE=$PWD VENV/bin/python tests/bench/dtype_pictures.py

VENV is the tests' own (deploy/install_dependencies.sh --test). Each picture of a half dtype is compared with the picture
that float32 makes of the same prompt, seed and adapters: the median PSNR, and the lowest. `effect` is how wrong the
adapter's effect is: the difference between the pictures with and without it, against the same difference in float32, as
a share of that difference's size. Small weights of an adapter show what rounding does to small changes.
"""

import io
import pathlib
import statistics
import sys

import numpy
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from hotlora_server import ALL_DEMO_ADAPTERS, Server, psnr, request_for  # noqa: E402

PROMPTS = (
    "a large red circle on a yellow background",
    "three orange stars on a blue background",
    "a small green ring at the top, white background",
    "a yellow square and a red triangle on a white background",
    "a green cross above a purple ring on black",
    "two blue squares on an orange background",
)
ADAPTERS = ("outline", "night", "stripes", "frame")
WEIGHTS = (0.02, 0.1, 1.0)
STEPS = 20
FORMS = {"float16": ("float16", "float32"), "bfloat16": ("bfloat16", "float32"),  # dtypes of the networks, of the VAE
         "VAE in float16": ("float32", "float16"), "VAE in bfloat16": ("float32", "bfloat16")}


def pictures(dtype, vae_dtype):
    """By (prompt, adapter, weight); without an adapter (prompt, None, 0)."""
    made = {}
    server = Server("--dtype", dtype, "--vae-dtype", vae_dtype, "--device", "cpu", "--apply", "merged",
                    adapters=ALL_DEMO_ADAPTERS)
    for prompt in PROMPTS:
        for name, weight in [(None, 0.0), *((name, weight) for name in ADAPTERS for weight in WEIGHTS)]:
            adapters = [(name, weight)] if name else []
            request = request_for(*adapters, prompt=prompt, width=128, height=128, steps=STEPS)
            made[prompt, name, weight] = numpy.asarray(Image.open(io.BytesIO(server.caller.image(request))), dtype=float)
    server.stop()
    return made


def main():
    exact = pictures("float32", "float32")
    print("| dtype | adapters | PSNR, dB: median | lowest | effect |")
    print("|---|---|---|---|---|")
    for form, dtypes in FORMS.items():
        made = pictures(*dtypes)
        for weight in (0.0, *WEIGHTS):
            keys = [key for key in exact if key[2] == weight]
            ratios = [psnr(made[key], exact[key]) for key in keys]
            errors = []
            for key in keys if weight else []:
                plain = (key[0], None, 0.0)
                wanted, got = exact[key] - exact[plain], made[key] - made[plain]
                if wanted.any():
                    errors.append(numpy.linalg.norm(got - wanted) / numpy.linalg.norm(wanted))
            effect = f"{statistics.median(errors):.3f}" if errors else ""
            print(f"| {form} | {f'one, weight {weight}' if weight else 'none'} | {statistics.median(ratios):.1f} "
                  f"| {min(ratios):.1f} | {effect} |")


if __name__ == "__main__":
    main()
