#!/usr/bin/env python3
"""What hotlora should take on an H100, computed from SDXL's operators: the table in docs/gpu.md.

usage: predict.py [results.json]     with a file of tests/gpu/run.sh, its figures stand in the last column

Each operator has FLOP and bytes. Its limit is the larger of FLOP over the device's peak and bytes over its bandwidth; its
expected time is the same with the shares of both that libraries reach, and GAP more. Counted are each tensor that an operator
reads or writes once, at the size of its dtype. Standard library only.
"""

import dataclasses
import json
import sys

# NVIDIA's data sheet of the H100 SXM: dense, without sparsity.
HALF, TF32, FLOAT = 989.4e12, 494.7e12, 66.9e12  # FLOP/s: half types and TF32 on tensor cores, float32 on CUDA cores
MEMORY, LINK = 3.35e12, 64e9  # bytes/s: of the device's memory; PCIe 5.0 x16 in one direction
# Shares that are expected: of the networks' matrix products, of one that is 8192 on each side, of convolutions, of attention,
# of float32 products in the merge; of memory by element-wise kernels; of the link from pinned memory.
SHARE = {"matrix": 0.55, "square": 0.8, "convolution": 0.4, "attention": 0.4, "merge": 0.3}
MEMORY_SHARE, LINK_SHARE = 0.75, 0.85
GAP = 1e-6  # seconds between two kernels
ENQUEUE = {"matrix": 9e-6, "convolution": 28e-6, "attention": 24e-6, "other": 4.5e-6}  # of the CPU, for one operator

CHANNELS, DEPTHS, LAYERS = (320, 640, 1280), (0, 2, 10), 2  # of the UNet's levels
TEXT, TOKENS = 2048, 77


@dataclasses.dataclass
class Work:
    """Operators, one after the other. `peak` in FLOP/s, `item` in bytes."""

    peak: float = HALF
    item: int = 2
    operators: int = 0
    flop: float = 0.0
    bytes: float = 0.0
    limit: float = 0.0
    expected: float = 0.0
    enqueue: float = 0.0
    weights: int = 0

    def add(self, kind, flop, items, kernels=1):
        bytes_ = items * self.item
        share = SHARE.get(kind, 1.0)
        self.operators += kernels
        self.flop += flop
        self.bytes += bytes_
        self.limit += max(flop / self.peak, bytes_ / MEMORY)
        self.expected += max(flop / (self.peak * share), bytes_ / (MEMORY * MEMORY_SHARE)) + kernels * GAP
        self.enqueue += kernels * ENQUEUE.get(kind, ENQUEUE["other"])

    def linear(self, rows, inputs, outputs):
        self.weights += inputs * outputs
        self.add("matrix", 2 * rows * inputs * outputs, rows * inputs + inputs * outputs + rows * outputs)

    def convolution(self, rows, pixels, inputs, outputs, kernel=3, stride=1):
        read, written = rows * pixels * inputs, rows * pixels // stride**2 * outputs
        self.add("convolution", 2 * written * inputs * kernel**2, read + inputs * outputs * kernel**2 + written)
        self.add("bias", 0, 2 * written)

    def attention(self, rows, queries, keys, width):
        self.add("attention", 4 * rows * queries * keys * width, rows * width * (2 * queries + 2 * keys))

    def pointwise(self, items, passes, kernels=1):
        self.add("other", 0, items * passes, kernels)

    def group_norm(self, items, silu=True):
        """On CUDA LibTorch computes it in NCHW: a copy there, two kernels for the statistics, one for the result, a copy back."""
        self.pointwise(items, 7, 4)
        if silu:
            self.pointwise(items, 2)

    def resnet(self, rows, pixels, inputs, outputs, time=1280):
        for channels in (inputs, outputs):
            self.group_norm(rows * pixels * channels)
            self.convolution(rows, pixels, channels, outputs)
        if time:
            self.linear(rows, time, outputs)
            self.pointwise(rows * pixels * outputs, 2)
        if inputs != outputs:
            self.convolution(rows, pixels, inputs, outputs, 1)
        self.pointwise(rows * pixels * outputs, 3)

    def transformer(self, rows, pixels, width, depth):
        items = rows * pixels * width
        self.group_norm(items, silu=False)
        self.linear(rows * pixels, width, width)
        for _ in range(depth):
            self.linear(rows * pixels, width, 3 * width)
            self.attention(rows, pixels, pixels, width)
            self.linear(rows * pixels, width, width)
            self.linear(rows * pixels, width, width)
            self.linear(rows * TOKENS, TEXT, 2 * width)
            self.attention(rows, pixels, TOKENS, width)
            self.linear(rows * pixels, width, width)
            self.linear(rows * pixels, width, 8 * width)
            self.pointwise(4 * items, 5, 2)  # GELU, then the product of the halves
            self.linear(rows * pixels, 4 * width, width)
            for _ in range(3):  # LayerNorm; the sum with the residual
                self.pointwise(items, 2)
                self.pointwise(items, 3)
        self.linear(rows * pixels, width, width)
        self.pointwise(items, 3)


def unet(rows, size):
    """One call; `size` is the latents' side."""
    work, pixels, skips = Work(), size * size, [CHANNELS[0]]
    work.convolution(rows, pixels, 4, CHANNELS[0])
    inputs = CHANNELS[0]
    for level, (channels, depth) in enumerate(zip(CHANNELS, DEPTHS)):
        for _ in range(LAYERS):
            work.resnet(rows, pixels, inputs, channels)
            if depth:
                work.transformer(rows, pixels, channels, depth)
            inputs = channels
            skips.append(channels)
        if level < 2:
            work.convolution(rows, pixels, channels, channels, stride=2)
            pixels //= 4
            skips.append(channels)
    work.resnet(rows, pixels, inputs, inputs)
    work.transformer(rows, pixels, inputs, DEPTHS[-1])
    work.resnet(rows, pixels, inputs, inputs)
    for level, (channels, depth) in enumerate(zip(reversed(CHANNELS), reversed(DEPTHS))):
        for _ in range(LAYERS + 1):
            inputs += skips.pop()
            work.pointwise(rows * pixels * inputs, 2)  # joins the skip
            work.resnet(rows, pixels, inputs, channels)
            if depth:
                work.transformer(rows, pixels, channels, depth)
            inputs = channels
        if level < 2:
            pixels *= 4
            work.pointwise(rows * pixels * channels, 1.25)
            work.convolution(rows, pixels, channels, channels)
    work.group_norm(rows * pixels * inputs)
    work.convolution(rows, pixels, inputs, 4)
    return work


def vae_decoder(size):
    """float32 storage, convolutions in TF32."""
    work, pixels, inputs = Work(TF32, 4), size * size, 512
    work.convolution(1, pixels, 4, 512)
    work.resnet(1, pixels, 512, 512, 0)
    for _ in range(4):
        work.linear(pixels, 512, 512)
    work.attention(1, pixels, pixels, 512)
    work.resnet(1, pixels, 512, 512, 0)
    for level, channels in enumerate((512, 512, 256, 128)):
        for _ in range(3):
            work.resnet(1, pixels, inputs, channels, 0)
            inputs = channels
        if level < 3:
            pixels *= 4
            work.pointwise(pixels * channels, 1.25)
            work.convolution(1, pixels, channels, channels)
    work.group_norm(pixels * 128)
    work.convolution(1, pixels, 128, 3)
    return work


def text(prompts):
    """Both encoders, one call a prompt."""
    work = Work()
    for _ in range(prompts):
        for width, layers in ((768, 12), (1280, 32)):
            for _ in range(layers):
                for outputs in (3 * width, width, 4 * width):
                    work.linear(TOKENS, width, outputs)
                work.linear(TOKENS, 4 * width, width)
                work.attention(1, TOKENS, TOKENS, width)
                work.pointwise(TOKENS * width, 14, 7)
    return work


def merge(rank, weights):
    """One adapter on all linear layers of the transformers: clean weights and factors are read, live weights written."""
    work = Work(FLOAT)
    work.add("merge", 2 * rank * weights, 2 * weights)
    return work


def upload(bytes_):
    """From pinned memory."""
    return Work(bytes=bytes_, operators=1, limit=bytes_ / LINK, expected=bytes_ / (LINK * LINK_SHARE))


def matrix_product(side):
    work = Work()
    work.add("square", 2 * side**3, 3 * side**2)
    return work


def device_copy(bytes_):
    """Within the device's memory: read and written."""
    work = Work(item=1)
    work.add("other", 0, 2 * bytes_)
    return work


def launches(count):
    work = Work()
    work.pointwise(count, 2, count)
    return work


def rows():
    """(name, the figure in results.json or an empty text, work)"""
    yield "matrix product, 8192 on each side", "matmul.bfloat16.8192.wall", matrix_product(8192)
    yield "copy of 4 GB on the device", "copy.device_to_device.wall", device_copy(4e9)
    yield "copy of 256 MB from pinned memory", "copy.pinned_to_device.wall", upload(256e6)
    yield "1000 empty launches", "launches.1000.wall", launches(1000)
    for count, size in ((1, 128), (2, 128), (4, 128), (8, 128), (2, 64)):
        yield f"UNet call, {count} row{'s' if count > 1 else ''}, {8 * size} x {8 * size}", f"unet.bfloat16.rows{count}.latents{size}.ours", unet(count, size)
    yield "VAE decode, 1024 x 1024", "", vae_decoder(128)
    yield "text encoders, prompt and negative prompt", "", text(2)
    weights = unet(1, 128).weights
    for rank in (16, 64, 128):
        yield f"merge of an adapter, rank {rank}", "", merge(rank, weights)
    yield "upload of an adapter, rank 64", "", upload(341e6)  # docs/benchmarks.md, full size


def table(results=None):
    figures = {figure["name"]: figure for stage in (results or {"stages": []})["stages"] for figure in stage["figures"]}
    lines = ["| what | operators | TFLOP | GB | limit, ms | expected, ms | CPU to enqueue, ms | measured, ms |",
             "|---|---|---|---|---|---|---|---|"]
    for name, figure, work in rows():
        found = figures.get(figure)
        measured = f"{found['median']:.1f} [{found['low']:.1f}, {found['high']:.1f}]" if found else ""
        expected = max(work.expected, work.enqueue)
        lines.append(f"| {name} | {work.operators} | {work.flop / 1e12:.2f} | {work.bytes / 1e9:.2f} | {1e3 * work.limit:.1f} | "
                     f"{1e3 * expected:.1f} | {1e3 * work.enqueue:.1f} | {measured} |")
    return "\n".join(lines)


def main():
    results = None
    if len(sys.argv) > 1:
        with open(sys.argv[1], encoding="utf-8") as file:
            results = json.load(file)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
