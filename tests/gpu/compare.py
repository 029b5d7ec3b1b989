#!/usr/bin/env python3
"""The stage `compare`: a UNet call of ours against diffusers', eager and compiled, with the same shapes in one run.

Ours is gpu_probe --steps. Each of the three is a process of its own that waits on pipes; they compute in turn, in blocks, each
block in random order. A block gives a ratio, our time over theirs; figures of ratios have the bootstrap 95 % interval of their
median as low and high. Weights are random, of stock SDXL's shapes, and not the same in ours and theirs: results are compared
elsewhere (tests/bench/step_peers.py). Standard library only, but the workers need torch and diffusers.
"""

import contextlib
import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time

from stage_line import StageWriter, Unavailable, interval, stage_options

# (dtype, rows, latents on a side). 128: 1024 x 1024 pixels. Guidance makes two rows of one image.
SHAPES = {"full": [("bfloat16", 2, 128), ("bfloat16", 1, 128), ("bfloat16", 8, 128), ("bfloat16", 2, 64), ("float16", 2, 128)],
          "tiny": [("float32", 2, 16)]}
THEIRS = ("eager", "compiled")
TOKENS = 77
PREPARING = 0.7  # most of the time that is left which preparations may take; compiling is the longest
BLOCK_SECONDS = {"full": 0.3, "tiny": 0.02}  # of one of them, about
MOST_BLOCKS = {"full": 30, "tiny": 8}
LEAST_BLOCKS = 5
LEAST_SECONDS = 10  # for a shape


def worker(args):
    """diffusers on standard input and output, by the commands of step_worker.h. The first line is the UNet's config."""
    import torch
    from diffusers import UNet2DConditionModel

    device, dtype = torch.device(args.device), getattr(torch, args.worker_dtype)
    config = json.loads(sys.stdin.readline())
    torch.set_default_dtype(dtype)
    with device:
        unet = UNet2DConditionModel.from_config(config)
    torch.set_default_dtype(torch.float32)
    unet = unet.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    step = torch.compile(unet, dynamic=False) if args.compiled else unet
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    print("ready", flush=True)

    def seconds(count):
        synchronize()
        start = time.perf_counter()
        for _ in range(count):
            step(*inputs[0], **inputs[1])
        synchronize()
        return time.perf_counter() - start

    with torch.inference_mode():
        for line in sys.stdin:
            command, *numbers = line.split()
            if command == "shape":
                rows, size = map(int, numbers)
                pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
                new = dict(device=device, dtype=dtype)
                sample = torch.randn(rows, config["in_channels"], size, size, **new)
                added = {"text_embeds": torch.randn(rows, pooled, **new), "time_ids": torch.full((rows, 6), 1024.0, device=device)}
                inputs = ((sample, torch.full((rows,), 500.0, device=device)),
                          {"encoder_hidden_states": torch.randn(rows, TOKENS, config["cross_attention_dim"], **new),
                           "added_cond_kwargs": added, "return_dict": False})
                seconds(2)
                print("ready", flush=True)
            else:
                print(seconds(int(numbers[0])), flush=True)


def diffusers_command(args, dtype, name):
    more = ["--compiled"] if name == "compiled" else []
    return [sys.executable, "-B", __file__, "--worker-dtype", dtype, "--device", args.device, "--out", os.devnull, "--seconds", "0",
            *more]


class Ended(Exception):
    """A worker ended, or did not answer in time."""


def be_a_group():
    """torch.compile has processes of its own, which must end with the worker."""
    os.setpgrp()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


class Worker:
    started: list = []  # all that were ever started

    def __init__(self, name, command, environment):
        self.name, self.answers = name, queue.Queue()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # until the worker is in the list of those to end
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
                                        preexec_fn=be_a_group)
        Worker.started.append(self)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.answers.put(line.strip())
        self.answers.put(None)

    def say(self, line):
        try:
            print(line, file=self.process.stdin, flush=True)
        except OSError as error:
            raise Ended(f"{self.name} ended with {self.process.wait(10)}") from error

    def hear(self, patience):
        try:
            answer = self.answers.get(timeout=max(0.1, patience))
        except queue.Empty:
            raise Ended(f"{self.name} did not answer within {max(0.1, patience):.0f} s") from None
        if answer is None:
            raise Ended(f"{self.name} ended with {self.process.wait(10)}; see what it printed")
        return answer

    def ask(self, line, patience):
        self.say(line)
        return self.hear(patience)

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def end_all(number, frame):
    for worker in Worker.started:
        worker.end()
    sys.exit(128 + number)


class Comparison:
    """Three workers of one dtype. One that ends, or is too slow to compile, is left out from then on."""

    def __init__(self, writer, args, dtype):
        self.writer, self.args, self.dtype = writer, args, dtype
        programs = dict(os.environ, LD_LIBRARY_PATH=args.libraries) if args.libraries else dict(os.environ)
        self.workers = {"ours": Worker("gpu_probe", [f"{args.bin}/gpu_probe", "--steps", dtype, "--device", args.device, "--size",
                                                     args.size], programs)}
        try:
            config = self.workers["ours"].hear(writer.seconds_left())
            for name in THEIRS:
                self.workers[name] = Worker(f"diffusers, {name}", diffusers_command(args, dtype, name),
                                            dict(os.environ, HF_HUB_OFFLINE="1"))
                self.workers[name].say(config)
            for name in THEIRS:
                self.without_on_failure(name, lambda worker: worker.hear(writer.seconds_left()))
        except BaseException:
            self.end()
            raise

    def without_on_failure(self, name, do):
        """What `do` makes of the worker; None without a worker, or if it fails, which is noted once. Ended: ours failed."""
        worker = self.workers.get(name)
        if worker is None:
            return None
        try:
            return do(worker)
        except Ended as error:
            if name == "ours":
                raise
            self.writer.leave_out(f"{self.dtype}.{name}", str(error))
            worker.end()
            del self.workers[name]
            return None

    def compare(self, rows, size):
        """Writes the figures of one shape. False if there was no time for it, or nothing to compare with. Ended: ours ended."""
        name = f"unet.{self.dtype}.rows{rows}.latents{size}"
        end = (1 - PREPARING) * self.writer.seconds_left()
        for worker in self.workers.values():
            worker.say(f"shape {rows} {size}")  # all at once: they need no quiet machine
        for each in list(self.workers):
            self.without_on_failure(each, lambda worker: worker.hear(self.writer.seconds_left() - end))
        patience = self.writer.seconds_left
        once = float(self.workers["ours"].ask("step 1", patience()))
        count = max(1, round(BLOCK_SECONDS[self.args.size] / once))
        times = {each: [] for each in self.workers}
        begin, longest = self.writer.seconds_left(), self.writer.seconds_left() / 2
        block = BLOCK_SECONDS[self.args.size] * len(self.workers)
        while len(times["ours"]) < MOST_BLOCKS[self.args.size] and patience() > 2 * block:
            if begin - self.writer.seconds_left() > longest and len(times["ours"]) >= LEAST_BLOCKS:
                break
            for each in random.sample(sorted(self.workers), len(self.workers)):
                seconds = self.without_on_failure(each, lambda worker: float(worker.ask(f"step {count}", patience())))
                if seconds is not None:
                    times[each].append(1000 * seconds / count)
        if len(times["ours"]) < LEAST_BLOCKS:
            self.writer.leave_out(name, f"there was time for {len(times['ours'])} blocks; {LEAST_BLOCKS} are needed")
            return False
        for each in self.workers:
            self.writer.figure(f"{name}.{each}", "ms", times[each])
        for each in set(self.workers) - {"ours"}:
            ratios = [ours / theirs for ours, theirs in zip(times["ours"], times[each])]
            self.writer.interval(f"{name}.ours_over_{each}", "1", ratios, *interval(ratios))
        return len(self.workers) > 1

    def end(self):
        for worker in self.workers.values():
            worker.end()


def compare_dtype(writer, args, dtype):
    """How many shapes of the dtype were compared."""
    compared, comparison = 0, None
    try:
        for _, rows, size in [shape for shape in SHAPES[args.size] if shape[0] == dtype]:
            name = f"unet.{dtype}.rows{rows}.latents{size}"
            if writer.seconds_left() < LEAST_SECONDS:
                writer.leave_out(name, f"{max(0.0, writer.seconds_left()):.0f} s were left")
                continue
            comparison = comparison or Comparison(writer, args, dtype)
            compared += comparison.compare(rows, size)
    except Ended as error:  # ours
        writer.leave_out(name, str(error))
        writer.check(f"{name}.ours_runs", False)
    finally:
        if comparison is not None:
            comparison.end()
    return compared


def has_diffusers():
    """[torch's version, diffusers' version], or the reason why they cannot be imported. In a process of its own, which ends."""
    code = "import torch, diffusers; print(torch.__version__, diffusers.__version__)"
    try:
        done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, timeout=120,
                              env=dict(os.environ, HF_HUB_OFFLINE="1"))
    except subprocess.TimeoutExpired:
        return "it cannot be imported within 120 s"
    return done.stdout.split() if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it cannot be imported"])[-1]


def main():
    parser = stage_options(__doc__)
    parser.add_argument("--bin", help="folder of gpu_probe")
    parser.add_argument("--libraries", default="", help="LD_LIBRARY_PATH of gpu_probe")
    parser.add_argument("--worker-dtype", help="be the process that runs diffusers")
    parser.add_argument("--compiled", action="store_true", help="of the worker: torch.compile")
    args = parser.parse_args()
    if args.worker_dtype:
        return worker(args)
    args.device = "cpu" if args.device.startswith("sim") else args.device
    writer = StageWriter("compare", args)
    signal.signal(signal.SIGTERM, end_all)

    def body():
        found = has_diffusers()
        if isinstance(found, str):
            raise Unavailable(f"diffusers is not in {sys.executable}: {found}")
        writer.note("versions", {"torch": found[0], "diffusers": found[1]})
        if writer.seconds_left() < LEAST_SECONDS:
            raise Unavailable(f"{max(0.0, writer.seconds_left()):.0f} s were left, too few for one shape")
        compared = 0
        for dtype in dict.fromkeys(shape[0] for shape in SHAPES[args.size]):
            compared += compare_dtype(writer, args, dtype)
        writer.check("something_was_compared", compared > 0)

    return writer.run(body)


if __name__ == "__main__":
    sys.exit(main())
