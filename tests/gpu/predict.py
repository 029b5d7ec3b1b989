#!/usr/bin/env python3
"""What an H100 SXM can do at most with SDXL's shapes, for each figure that gpu_probe measures, as a table of Markdown.

A time is the larger one of two: the operations at the share of the peak that good libraries reach, and the bytes at the
share of the bandwidth. The work is counted from SDXL's own layers. `tests/gpu/predict.py` prints the table of
docs/gpu.md; `tests/gpu/predict.py out/gpu/results.json` fills the column of what was measured. Standard library only.
"""

import json
import pathlib
import sys

# NVIDIA H100 SXM: dense peak of its tensor cores in bfloat16 and float16, memory, and PCIe 5 x16 from pinned memory.
PEAK = 989.4e12
PEAK_TF32 = 494.7e12
BANDWIDTH = 3.35e12
PCIE = 55e9

# Shares of the peak that are assumed.
GEMM_SHARE = 0.6  # large products by cuBLAS
CONVOLUTION_SHARE = 0.4  # cuDNN, NHWC
ATTENTION_SHARE = 0.45  # FlashAttention and cuDNN, heads of 64
BANDWIDTH_SHARE = 0.84  # measured elsewhere: 2.8 TB/s

# (channels, blocks of a transformer, resnets and transformers on the way down, and up), outermost first.
LEVELS = ((320, 0, 2, 3), (640, 2, 2, 3), (1280, 10, 2, 3))
TEXT_TOKENS, TEXT_WIDTH = 77, 2048
HALF = 2  # bytes of a number


class Work:
    """Multiplications with an addition, by kind, and bytes that elementwise work reads and writes."""

    def __init__(self):
        self.gemm = self.convolution = self.attention = 0
        self.elementwise = 0

    def times(self, count):
        """`count` times as much work."""
        for kind in vars(self):
            setattr(self, kind, count * getattr(self, kind))
        return self

    def flop(self):
        return 2 * (self.gemm + self.convolution + self.attention)

    def seconds(self, peak=PEAK):
        return (2 * self.gemm / (peak * GEMM_SHARE) + 2 * self.convolution / (peak * CONVOLUTION_SHARE)
                + 2 * self.attention / (peak * ATTENTION_SHARE) + self.elementwise / (BANDWIDTH * BANDWIDTH_SHARE))


def resnet(work, channels_in, channels, pixels):
    work.convolution += pixels * 9 * (channels_in * channels + channels * channels)
    if channels_in != channels:
        work.convolution += pixels * channels_in * channels
    # Two norms with SiLU and two additions, each read and written once.
    work.elementwise += HALF * pixels * (2 * channels_in + 6 * channels)


def transformer(work, channels, blocks, pixels):
    work.gemm += 2 * pixels * channels * channels  # proj_in, proj_out
    for _ in range(blocks):
        work.gemm += pixels * channels * channels * (4 + 2)  # attn1: q k v out; attn2: q out
        work.gemm += 2 * TEXT_TOKENS * TEXT_WIDTH * channels  # attn2: k v
        work.gemm += pixels * channels * channels * (8 + 4)  # feed forward
        work.attention += 2 * pixels * pixels * channels + 2 * pixels * TEXT_TOKENS * channels
        # Three norms, three additions and the product of the feed forward's halves.
        work.elementwise += HALF * pixels * channels * (3 * 2 + 3 * 3 + 12)


def unet(rows, pixels):
    """One call of the UNet: `rows` latents for pictures of pixels x pixels."""
    work = Work()
    size = (pixels // 8) ** 2
    work.convolution += 9 * size * 2 * 4 * LEVELS[0][0]  # conv_in, conv_out
    skips = [LEVELS[0][0]]
    previous = LEVELS[0][0]
    for level, (channels, blocks, down, _) in enumerate(LEVELS):
        here = size >> (2 * level)
        for _ in range(down):
            resnet(work, previous, channels, here)
            previous = channels
            if blocks:
                transformer(work, channels, blocks, here)
            skips.append(channels)
        if level + 1 < len(LEVELS):
            work.convolution += 9 * (here >> 2) * channels * channels
            skips.append(channels)
    channels, blocks = LEVELS[-1][:2]
    smallest = size >> (2 * (len(LEVELS) - 1))
    resnet(work, channels, channels, smallest)
    transformer(work, channels, blocks, smallest)
    resnet(work, channels, channels, smallest)
    for level, (channels, blocks, _, up) in reversed(list(enumerate(LEVELS))):
        here = size >> (2 * level)
        for _ in range(up):
            resnet(work, previous + skips.pop(), channels, here)
            previous = channels
            if blocks:
                transformer(work, channels, blocks, here)
        if level > 0:
            work.convolution += 9 * 4 * here * channels * channels
    return work.times(rows)


def vae(pixels):
    """Decoding one picture."""
    work = Work()
    size = (pixels // 8) ** 2
    work.convolution += 9 * size * 4 * 512 + size * 4 * 4
    resnet(work, 512, 512, size)
    work.gemm += 4 * size * 512 * 512
    work.attention += 2 * size * size * 512
    resnet(work, 512, 512, size)
    previous = 512
    for level, channels in enumerate((512, 512, 256, 128)):
        here = size << (2 * level)
        for _ in range(3):
            resnet(work, previous, channels, here)
            previous = channels
        if level < 3:
            work.convolution += 9 * 4 * here * channels * channels
    work.convolution += 9 * pixels * pixels * 128 * 3
    return work


def text(prompts):
    work = Work()
    for width, layers in ((768, 12), (1280, 32)):
        work.gemm += layers * TEXT_TOKENS * 12 * width * width
        work.attention += layers * 2 * TEXT_TOKENS * TEXT_TOKENS * width
    work.gemm += 1280 * 1280
    return work.times(prompts)


def adapted_layers():
    """(inputs, outputs) of each linear layer of the transformers: what an adapter on all of them changes."""
    layers = []
    for level, (channels, blocks, down, up) in enumerate(LEVELS):
        if not blocks:
            continue
        for _ in range(down + up + (level + 1 == len(LEVELS))):
            layers += 2 * [(channels, channels)]
            for _ in range(blocks):
                layers += 6 * [(channels, channels)] + 2 * [(TEXT_WIDTH, channels)]
                layers += [(channels, 8 * channels), (4 * channels, channels)]
    return layers


def adapter_bytes(rank):
    return HALF * rank * sum(inputs + outputs for inputs, outputs in adapted_layers())


def merge_seconds(rank):
    """Reads the clean weights and the adapter, writes the live weights."""
    weights = HALF * sum(inputs * outputs for inputs, outputs in adapted_layers())
    return (2 * weights + adapter_bytes(rank)) / (BANDWIDTH * BANDWIDTH_SHARE)


def side_seconds(rank):
    """What a side branch adds to a step of two rows: reads the input and reads and writes the output once more."""
    bytes_moved = flop = 0
    for inputs, outputs in adapted_layers():
        # K and V of the text work on 77 tokens, the others on a level's pixels.
        tokens = TEXT_TOKENS if inputs == TEXT_WIDTH else 4096 if min(inputs, outputs) == 640 else 1024
        bytes_moved += HALF * 2 * tokens * (inputs + 2 * outputs)
        flop += 2 * 2 * tokens * rank * (inputs + outputs)
    return max(bytes_moved / (BANDWIDTH * BANDWIDTH_SHARE), flop / (PEAK * GEMM_SHARE))


def attention_seconds(heads, queries, keys):
    return 2 * 2 * 2 * heads * queries * keys * 64 / (PEAK * ATTENTION_SHARE)


def predictions():
    """(figure's name without the dtype where it makes no difference, unit, prediction, how)."""
    rows = []

    def add(name, unit, value, how):
        rows.append((name, unit, value, how))

    add("matmul.bfloat16.8192.rate", "TFLOP/s", PEAK * 0.75 / 1e12, "75 % of the peak: one large product")
    add("copy.device_to_device.rate", "GB/s", BANDWIDTH * BANDWIDTH_SHARE / 1e9, "84 % of the bandwidth")
    add("copy.pinned_to_device.rate", "GB/s", PCIE / 1e9, "PCIe 5 x16")
    add("launches.1000.enqueue", "ms", 4.0, "4 µs for each launch through ATen")
    for pixels, counts in ((1024, (1, 2, 4, 8)), (512, (2,))):
        for count in counts:
            work = unet(count, pixels)
            add(f"unet.bfloat16.{pixels}.rows_{count}.device", "ms", work.seconds() * 1e3,
                f"{work.flop() / 1e12:.2f} TFLOP, {work.elementwise / 1e9:.1f} GB of elementwise work")
    for name, heads, queries, keys in (("self_640", 10, 4096, 4096), ("self_1280", 20, 1024, 1024)):
        add(f"sdpa.bfloat16.{name}.default.device", "ms", attention_seconds(heads, queries, keys) * 1e3,
            "45 % of the peak")
    for prompts in (1, 2):
        work = text(prompts)
        weights = HALF * (12 * 12 * 768 * 768 + 32 * 12 * 1280 * 1280)
        add(f"text.bfloat16.prompts_{prompts}.device", "ms",
            max(work.seconds(), weights / (BANDWIDTH * BANDWIDTH_SHARE)) * 1e3,
            f"{work.flop() / 1e12:.2f} TFLOP; {weights / 1e9:.1f} GB of weights are read")
    for pixels in (1024, 512):
        work = vae(pixels)
        add(f"vae.float32.{pixels}.device", "ms", work.seconds(PEAK_TF32) * 1e3,
            f"{work.flop() / 1e12:.2f} TFLOP in TF32")
    for rank in (16, 64, 128):
        add(f"merge.bfloat16.rank_{rank}", "ms", merge_seconds(rank) * 1e3,
            f"{adapter_bytes(rank) / 1e6:.1f} MB of adapter, {len(adapted_layers())} layers, memory-bound")
    for rank in (16, 64, 128):
        add(f"upload.rank_{rank}.wall", "ms", adapter_bytes(rank) / PCIE * 1e3, "the adapter's bytes at PCIe's rate")
    step = unet(2, 1024).seconds()
    for rank in (16, 64):
        add(f"side.bfloat16.rank_{rank}.ratio", "1", 1 + side_seconds(rank) / step,
            "inputs and outputs once more; without its launches")
    return rows


def table(measured):
    """The table of docs/gpu.md. `measured`: medians by figure."""
    lines = ["| figure | unit | predicted | measured | how it is predicted |", "|---|---|---|---|---|"]
    for name, unit, value, how in predictions():
        got = measured.get(name)
        lines.append(f"| `{name}` | {unit} | {value:.3g} | {'' if got is None else f'{got:.3g}'} | {how} |")
    return "\n".join(lines)


if __name__ == "__main__":
    results = json.loads(pathlib.Path(sys.argv[1]).read_text()) if len(sys.argv) > 1 else {"stages": []}
    print(table({figure["name"]: figure["median"] for stage in results["stages"] for figure in stage["figures"]}))
