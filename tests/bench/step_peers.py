#!/usr/bin/env python3
"""How long is a UNet step of ours beside those of diffusers (channels_last) and OpenVINO, and beside what the machine can do?

  step_peers.py --model DIR --bench build/release/bin/unet_step_bench --python VENV/bin/python
                [--arms ours,served,diffusers,openvino,ceiling] [--dtypes float32,bfloat16] [--sizes 32] [--threads 2]
                [--blocks 20] [--seconds 0.5] [--rounds 0] [--operators] [--json FILE] [--bar 1.0]

DIR is what make_quarter_model.py or make_full_model.py writes; VENV has what requirements.txt names. A step is one call of
the UNet under guidance: 2 rows, 77 tokens, latents of SIZE x SIZE. All arms have the same weights, inputs, dtype and number
of threads. Each is a process of its own that waits on pipes. In `served` a step is as the server has it: keys and values of the
text and the parts of the time embedding are computed before the first step; this is not counted. In all others each call
computes them.

In a block each arm makes about --seconds of steps, one arm after the other, in random order. A block gives one ratio, ours
or served over the peer's. Printed: medians with bootstrap 95 % intervals, by wall-clock and by processor time; the CPUs that are busy
(processor time over wall-clock time); the most memory; the largest difference between the outputs. The exit status is 1 if
the upper bound of ours or served over diffusers is above --bar.

`ceiling` runs no network. It multiplies two matrices of 2048 x 2048 by LibTorch, and its time for a step is the time of the
step's products, convolutions and attention at that rate.

With --rounds N arms that do not fit into memory together run one after the other, each for --blocks blocks, N times over.
A ratio is then one of medians, by round. With --operators no ratios are taken: printed is the time of each class of
operators in a step of each arm, by the arm's own profiler.

OpenVINO's form of the model is made once, beside it in DIR/openvino.
"""
import argparse
import array
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile

from arms import Arm, SERVER, cpu_name, interval, words

OURS = {"ours": [], "served": ["--served"]}  # arms that are unet_step_bench, with their flags
ROWS, TOKENS = 2, 77
INPUTS = ("sample", "timesteps", "encoder_hidden_states", "pooled", "time_ids")  # in the order that OpenVINO's model has
CLASSES = ("linears", "convolutions", "attention", "norms", "others")
# The first whose word is in an operator's name; names of LibTorch, of ours and of OpenVINO's node types.
CLASS_WORDS = (("attention", ("attention", "softmax")), ("norms", ("norm", "mvn")), ("convolutions", ("conv",)),
               ("linears", ("mm", "matmul", "linear", "fullyconnected")))


def class_of(operator):
    name = operator.lower()
    return next((each for each, parts in CLASS_WORDS if any(part in name for part in parts)), "others")


# --- in the workers, which have torch

def load_unet(args, dtype):
    from diffusers import UNet2DConditionModel
    unet = UNet2DConditionModel.from_pretrained(args.model, subfolder="unet", torch_dtype=dtype)
    return unet.eval().requires_grad_(False)


def call(unet, t):
    added = dict(text_embeds=t["pooled"], time_ids=t["time_ids"])
    return unet(t["sample"], t["timesteps"], encoder_hidden_states=t["encoder_hidden_states"], added_cond_kwargs=added,
                return_dict=False)[0]


class Diffusers:
    def __init__(self, args, t):
        import torch
        dtype = getattr(torch, args.dtype)
        self.unet = load_unet(args, dtype).to(memory_format=torch.channels_last)
        self.inputs = {name: t[name] if name in ("timesteps", "time_ids") else t[name].to(dtype) for name in INPUTS}
        self.inputs["sample"] = self.inputs["sample"].to(memory_format=torch.channels_last)

    def step(self):
        return call(self.unet, self.inputs)

    def operators(self, count):
        """Seconds by operator, of `count` steps."""
        from torch.profiler import ProfilerActivity, profile
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(count):
                self.step()
        return {each.key: each.self_cpu_time_total / 1e6 for each in profiler.key_averages()}


def convert(args, t, path):
    """Writes the UNet as OpenVINO's own format; in float16 only if that is how the weights are stored."""
    import pathlib
    import openvino
    import torch
    from safetensors import safe_open
    unet = load_unet(args, torch.float32)

    class Positional(torch.nn.Module):
        def forward(self, *inputs):
            return call(unet, dict(zip(INPUTS, inputs)))

    module = Positional()
    module.unet = unet
    stored = next(pathlib.Path(args.model, "unet").glob("*.safetensors"))
    with safe_open(stored, "pt") as file:
        halves = file.get_slice(next(iter(file.keys()))).get_dtype() == "F16"
    model = openvino.convert_model(module, example_input=tuple(t[name] for name in INPUTS))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    openvino.save_model(model, path, compress_to_fp16=halves)


class OpenVino:
    PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}

    def __init__(self, args, t):
        import openvino
        path = os.path.join(args.model, "openvino", "unet.xml")
        if not os.path.exists(path):
            convert(args, t, path)
        core = openvino.Core()
        model = core.read_model(path)
        model.reshape({i: list(t[name].shape) for i, name in enumerate(INPUTS)})
        options = {"INFERENCE_NUM_THREADS": args.threads, "INFERENCE_PRECISION_HINT": self.PRECISIONS[args.dtype],
                   "PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": args.operators}
        self.request = core.compile_model(model, "CPU", options).create_infer_request()
        self.inputs = [t[name].numpy() for name in INPUTS]

    def step(self):
        import torch
        return torch.from_numpy(self.request.infer(self.inputs)[0])

    def operators(self, count):
        seconds = {}
        for _ in range(count):
            self.step()
            for node in self.request.profiling_info:
                seconds[node.node_type] = seconds.get(node.node_type, 0.0) + node.real_time.total_seconds()
        return seconds


class Ceiling:
    """The rate of one large product, and the floating-point operations of a step, which are counted without computing."""
    SIZE = 2048

    def __init__(self, args, t):
        import torch
        from torch.utils.flop_counter import FlopCounterMode
        dtype = getattr(torch, args.dtype)
        self.a, self.b = (torch.randn(self.SIZE, self.SIZE).to(dtype) for _ in range(2))
        self.multiply = torch.mm
        with open(os.path.join(args.model, "unet/config.json"), encoding="utf-8") as file:
            config = json.load(file)
        from diffusers import UNet2DConditionModel
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            call(UNet2DConditionModel.from_config(config).eval(), {name: t[name].to("meta") for name in INPUTS})
        self.flops = {}
        for operator, flops in counter.get_flop_counts()["Global"].items():
            name = str(operator)
            each = "attention" if "bmm" in name else class_of(name)  # the plain form of attention is two of these
            self.flops[each] = self.flops.get(each, 0) + flops
        self.share = sum(self.flops.values()) / (2 * self.SIZE ** 3)  # products that a step is

    def seconds(self, count):
        """Wall-clock and processor seconds of `count` steps at the rate of as many products as take about as long."""
        import time
        products = max(1, round(count * self.share))
        start, start_cpu = time.perf_counter(), time.process_time()
        for _ in range(products):
            self.multiply(self.a, self.b)
        scale = count * self.share / products
        return scale * (time.perf_counter() - start), scale * (time.process_time() - start_cpu)

    def operators(self, count):
        wall, _ = self.seconds(count)
        total = sum(self.flops.values())
        return {each: wall * flops / total for each, flops in self.flops.items()}


def worker(args):
    import time
    import torch
    from safetensors.torch import load_file
    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        arm = {"diffusers": Diffusers, "openvino": OpenVino, "ceiling": Ceiling}[args.worker](args, load_file(args.inputs))
        print("ready", flush=True)
        for line in sys.stdin:
            command, argument = line.split()
            if command == "operators":
                print(json.dumps(arm.operators(int(argument))), flush=True)
            elif command == "output":
                arm.step().float().contiguous().numpy().tofile(argument)
                print("written", flush=True)
            elif args.worker == "ceiling":
                print(*arm.seconds(int(argument)), flush=True)
            else:
                start, start_cpu = time.perf_counter(), time.process_time()
                for _ in range(int(argument)):
                    arm.step()
                print(time.perf_counter() - start, time.process_time() - start_cpu, flush=True)


# --- in the program that asks them

def write_inputs(args, size, path):
    with open(os.path.join(args.model, "unet/config.json"), encoding="utf-8") as file:
        config = json.load(file)
    cross = config["cross_attention_dim"]
    pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    pixels = float(8 * size)
    code = (f"import torch, safetensors.torch as s; torch.manual_seed(1); "
            f"s.save_file(dict(sample=torch.randn({ROWS}, 4, {size}, {size}), timesteps=torch.full(({ROWS},), 500.0), "
            f"encoder_hidden_states=torch.randn({ROWS}, {TOKENS}, {cross}), pooled=torch.randn({ROWS}, {pooled}), "
            f"time_ids=torch.tensor([[{pixels}, {pixels}, 0, 0, {pixels}, {pixels}]] * {ROWS})), {path!r})")
    subprocess.run([args.python, "-c", code], check=True)


def start(args, name, dtype, inputs):
    common = ["--model", args.model, "--inputs", inputs, "--threads", args.threads]
    if name in OURS:
        return Arm([args.bench, *common, "--dtype", dtype, *OURS[name]], SERVER)
    return Arm([args.python, __file__, "--worker", name, *common, "--dtypes", dtype] + ["--operators"] * args.operators)


def output(arm, path):
    arm.ask(f"output {path}")
    values = array.array("f")
    with open(path, "rb") as data:
        values.frombytes(data.read())
    return values


class Measured:
    """What one arm took, in seconds a step, block by block."""

    def __init__(self):
        self.wall, self.cpu, self.peak, self.output = [], [], 0, None

    def add(self, arm, count):
        wall, cpu = arm.numbers(f"step {count}")
        self.wall.append(wall / count)
        self.cpu.append(cpu / count)


def warm_up(args, arm):
    """Steps that a block of this arm has."""
    arm.numbers("step 1")
    return max(1, round(args.seconds / arm.numbers("step 1")[0]))


def take_outputs(folder, arms, measured):
    for name in arms:
        if name != "ceiling":
            measured[name].output = output(arms[name], os.path.join(folder, name))


def in_turn(args, dtype, inputs, folder):
    """All arms at once, a ratio by block."""
    arms = {name: start(args, name, dtype, inputs) for name in args.arms}
    measured = {name: Measured() for name in arms}
    take_outputs(folder, arms, measured)
    counts = {name: warm_up(args, arm) for name, arm in arms.items()}
    for _ in range(args.blocks):
        for name in random.sample(args.arms, len(args.arms)):
            measured[name].add(arms[name], counts[name])
    for name, arm in arms.items():
        measured[name].peak = arm.peak_bytes()
        arm.close()
    return measured


def one_after_the_other(args, dtype, inputs, folder):
    """One arm at a time, a ratio by round: each arm has one value a round, the median of its blocks."""
    measured = {name: Measured() for name in args.arms}
    for _ in range(args.rounds):
        for name in random.sample(args.arms, len(args.arms)):
            arm = start(args, name, dtype, inputs)
            take_outputs(folder, {name: arm}, measured)
            count, blocks = warm_up(args, arm), Measured()
            for _ in range(args.blocks):
                blocks.add(arm, count)
            measured[name].wall.append(statistics.median(blocks.wall))
            measured[name].cpu.append(statistics.median(blocks.cpu))
            measured[name].peak = max(measured[name].peak, arm.peak_bytes())
            arm.close()
    return measured


def summary(values):
    low, high = interval(values)
    return {"median": statistics.median(values), "low": low, "high": high, "count": len(values)}


def compare(args, dtype, size, folder):
    inputs = os.path.join(folder, f"inputs_{size}.safetensors")
    write_inputs(args, size, inputs)
    measured = (one_after_the_other if args.rounds else in_turn)(args, dtype, inputs, folder)
    found = {"dtype": dtype, "size": size, "threads": args.threads, "arms": {}}
    print(f"\n{dtype}, latents {size} x {size}, {args.threads} thread(s), "
          f"{f'{args.rounds} rounds of ' if args.rounds else ''}{args.blocks} blocks")
    for name, each in measured.items():
        busy = statistics.median(cpu / wall for cpu, wall in zip(each.cpu, each.wall))
        found["arms"][name] = {"seconds": summary(each.wall), "cpu_seconds": summary(each.cpu), "peak_bytes": each.peak}
        print(f"  {name:10} {words([1000 * value for value in each.wall])} ms; {busy:.2f} CPUs busy; "
              f"peak {each.peak / 2**30:.2f} GiB", flush=True)
    for own, name in itertools.product(OURS, measured):
        if own not in measured or name in OURS:
            continue
        ours, theirs = measured[own], measured[name]
        wall, cpu = ([a / b for a, b in zip(*pair)] for pair in ((ours.wall, theirs.wall), (ours.cpu, theirs.cpu)))
        ratios = found.setdefault(f"{own}_over", {})[name] = {"wall": summary(wall), "cpu": summary(cpu)}
        text = f"  {own} / {name}: {words(wall, 3)}; by processor time {words(cpu, 3)}"
        if theirs.output is not None:
            difference = max(abs(a - b) for a, b in zip(ours.output, theirs.output))
            ratios["largest_difference"] = difference
            text += f"; largest difference of the outputs {difference:.1e}"
        print(text, flush=True)
    return found


def profile(args, dtype, size, folder):
    inputs = os.path.join(folder, f"inputs_{size}.safetensors")
    write_inputs(args, size, inputs)
    found = {"dtype": dtype, "size": size, "threads": args.threads, "milliseconds": {}}
    print(f"\n{dtype}, latents {size} x {size}, {args.threads} thread(s): milliseconds of a step by class of operators")
    print(f"  {'':10}" + "".join(f"{name:>14}" for name in (*CLASSES, "between", "step")))
    for name in args.arms:
        arm = start(args, name, dtype, inputs)
        count = warm_up(args, arm)
        step = statistics.median(arm.numbers(f"step {count}")[0] / count for _ in range(args.blocks))
        by_class = dict.fromkeys(CLASSES, 0.0)
        for operator, seconds in json.loads(arm.ask(f"operators {count}")).items():
            by_class[operator if operator in CLASSES else class_of(operator)] += 1000 * seconds / count
        arm.close()
        by_class["between"] = 1000 * step - sum(by_class.values())
        by_class["step"] = 1000 * step
        found["milliseconds"][name] = by_class
        print(f"  {name:10}" + "".join(f"{value:14.2f}" for value in by_class.values()), flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--bench", help="unet_step_bench")
    parser.add_argument("--python", default=sys.executable, help="interpreter with what requirements.txt names")
    parser.add_argument("--arms", default="ours,served,diffusers,openvino,ceiling")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--sizes", default="32", help="latent sizes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.5, help="of steps in a block, about")
    parser.add_argument("--rounds", type=int, default=0, help="one arm after the other, so often; 0: all at once")
    parser.add_argument("--operators", action="store_true", help="time by class of operators")
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--bar", type=float, default=1.0)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--inputs", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        args.dtype = args.dtypes
        return worker(args)
    args.arms = args.arms.split(",")
    report = {"cpu": cpu_name(), "load_average": os.getloadavg()[0], "results": []}
    print(f"{report['cpu']}; load average {report['load_average']:.1f} before the start")
    with tempfile.TemporaryDirectory() as folder:
        for dtype in args.dtypes.split(","):
            for size in args.sizes.split(","):
                report["results"].append((profile if args.operators else compare)(args, dtype, int(size), folder))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
    bounds = [result[f"{own}_over"]["diffusers"]["wall"]["high"] for result in report["results"] for own in OURS
              if "diffusers" in result.get(f"{own}_over", {})]
    sys.exit(1 if max(bounds, default=0.0) > args.bar else 0)


if __name__ == "__main__":
    main()
