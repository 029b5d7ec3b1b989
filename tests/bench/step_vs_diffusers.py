#!/usr/bin/env python3
"""Is a denoising step of ours as fast as diffusers'? Same weights, inputs, dtype and threads; interleaved in one run.

  step_vs_diffusers.py --model DIR --bench build/release/bin/unet_step_bench --python VENV/bin/python
                       [--threads 1,2] [--sizes 8,32] [--blocks 40] [--seconds 0.5]

DIR is what make_quarter_model.py writes; VENV has torch and diffusers. Two worker processes wait on pipes. In each block
both run the same number of UNet calls (batch 2, 77 tokens), one after the other in random order; a block gives one ratio,
ours / diffusers. Printed: the median ratio with a bootstrap 95 % interval, by wall-clock and by CPU time, and the largest
difference between the two outputs. Exits with 1 where an upper bound of the wall-clock interval is above --bar.
"""
import argparse, array, os, random, statistics, subprocess, sys, tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../gpu"))
from stage_line import interval

ROWS, TOKENS = 2, 77


def worker(args):
    import time
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import load_file
    torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype)
    unet = UNet2DConditionModel.from_pretrained(args.model, subfolder="unet").to(dtype).eval().requires_grad_(False)
    t = load_file(args.inputs)
    added = dict(text_embeds=t["pooled"].to(dtype), time_ids=t["time_ids"].to(dtype))

    def step():
        return unet(t["sample"].to(dtype), t["timesteps"], encoder_hidden_states=t["encoder_hidden_states"].to(dtype),
                    added_cond_kwargs=added, return_dict=False)[0]

    print("ready", flush=True)
    with torch.inference_mode():
        for line in sys.stdin:
            command, argument = line.split()
            if command == "step":
                start, start_cpu = time.perf_counter(), time.process_time()
                for _ in range(int(argument)):
                    step()
                print(time.perf_counter() - start, time.process_time() - start_cpu, flush=True)
            elif command == "output":
                step().float().contiguous().numpy().tofile(argument)
                print("written", flush=True)


def write_inputs(args, size, path):
    code = (f"import torch, safetensors.torch as s; torch.manual_seed(1); c = {args.cross}; p = {args.pooled}; "
            f"s.save_file(dict(sample=torch.randn({ROWS}, 4, {size}, {size}), timesteps=torch.full(({ROWS},), 500.0), "
            f"encoder_hidden_states=torch.randn({ROWS}, {TOKENS}, c), pooled=torch.randn({ROWS}, p), "
            f"time_ids=torch.tensor([[1024., 1024, 0, 0, 1024, 1024]] * {ROWS})), {path!r})")
    subprocess.run([args.python, "-c", code], check=True)


class Arm:
    def __init__(self, command):
        environment = dict(os.environ, OMP_WAIT_POLICY="PASSIVE", HF_HUB_OFFLINE="1")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=environment)
        if self.process.stdout.readline().strip() != "ready":
            sys.exit(f"{command[0]} did not start")

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def step(self, count):
        wall, cpu = self.ask(f"step {count}").split()
        return float(wall), float(cpu)

    def output(self, path):
        self.ask(f"output {path}")
        values = array.array("f")
        with open(path, "rb") as data:
            values.frombytes(data.read())
        return values

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def compare(args, threads, size, folder):
    inputs = os.path.join(folder, f"inputs_{size}.safetensors")
    write_inputs(args, size, inputs)
    common = ["--model", args.model, "--inputs", inputs, "--threads", str(threads), "--dtype", args.dtype]
    arms = dict(ours=Arm([args.bench] + common), diffusers=Arm([args.python, __file__, "--worker"] + common))
    outputs = [arm.output(os.path.join(folder, name)) for name, arm in arms.items()]
    difference = max(abs(a - b) for a, b in zip(*outputs))
    for arm in arms.values():
        arm.step(2)
    count = max(1, round(args.seconds / (arms["diffusers"].step(2)[0] / 2)))
    ratios, cpu_ratios, times = [], [], dict(ours=[], diffusers=[])
    for _ in range(args.blocks):
        seen = {name: arms[name].step(count) for name in random.sample(sorted(arms), 2)}
        ratios.append(seen["ours"][0] / seen["diffusers"][0])
        cpu_ratios.append(seen["ours"][1] / seen["diffusers"][1])
        for name in arms:
            times[name].append(1000 * seen[name][0] / count)
    for arm in arms.values():
        arm.close()
    low, high = interval(ratios)
    cpu_low, cpu_high = interval(cpu_ratios)
    print(f"{size:4d} x {size:<4d} | {threads:7d} | {statistics.median(times['ours']):8.1f} | "
          f"{statistics.median(times['diffusers']):12.1f} | {statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}] | "
          f"{statistics.median(cpu_ratios):.3f} [{cpu_low:.3f}, {cpu_high:.3f}] | {count:2d} x {args.blocks} | "
          f"{difference:.1e}", flush=True)
    return high


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--bench", help="unet_step_bench")
    parser.add_argument("--python", default=sys.executable, help="interpreter with torch and diffusers")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--sizes", default="8,32", help="latent sizes")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.5, help="of diffusers' steps in one block, about")
    parser.add_argument("--bar", type=float, default=1.0)
    parser.add_argument("--cross", type=int, default=512, help="cross_attention_dim of the model")
    parser.add_argument("--pooled", type=int, default=320, help="projection_dim of the model")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--inputs", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        args.threads = int(args.threads)
        return worker(args)
    print("latent      | threads | ours, ms | diffusers, ms | ratio by wall clock    | ratio by CPU time      | "
          "blocks | largest difference", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bounds = [compare(args, int(threads), int(size), folder)
                  for threads in args.threads.split(",") for size in args.sizes.split(",")]
    sys.exit(1 if max(bounds) > args.bar else 0)


if __name__ == "__main__":
    main()
