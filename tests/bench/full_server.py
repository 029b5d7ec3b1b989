#!/usr/bin/env python3
"""What a server at SDXL's full size takes to start, to swap merged adapters from each tier, and to decode, and its memory.

  HOTLORA_TEST_BIN=build/release/bin HOTLORA_TEST_SOURCE=$PWD VENV/bin/python tests/bench/full_server.py \\
      --model MODEL --adapters ADAPTERS [--dtype bfloat16] [--vae-dtype bfloat16] [--size 512] [--rounds 2] [--threads 2]

MODEL is what make_full_model.py writes, ADAPTERS two adapters as full_size.sh makes them; VENV is the tests' own
(deploy/install_dependencies.sh --test). The device tier has room for one of the two adapters, so that the other one is in
the host tier. Times are the server's own (Summary, SwapCost, hotlora_warmup_duration_seconds); a swap whose adapter was found in
another tier ends the run. Needs 14 GB of memory.
"""
import argparse
import pathlib
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from arms import cpu_name  # noqa: E402
from hotlora_server import Server, adapters_pb2, clean_environment, request_for  # noqa: E402

PATIENCE = 600


def status_bytes(server, name):
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith(name))


def gauge(server, line):
    return next(float(text.split()[-1]) for text in server.metrics_text().splitlines() if text.startswith(line))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapters", required=True)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--vae-dtype", default="bfloat16")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", default="2")
    options = parser.parse_args()
    one, two = sorted(path.stem for path in pathlib.Path(options.adapters).glob("*.safetensors"))[:2]
    one_bytes = pathlib.Path(options.adapters, f"{one}.safetensors").stat().st_size
    room = str(one_bytes * 3 // 2 * (2 if options.dtype == "float32" else 1))
    server = Server("--dtype", options.dtype, "--vae-dtype", options.vae_dtype, "--apply", "merged", "--max-batch", "1",
                    "--adapter-device-bytes", room, "--adapter-host-bytes", "1GiB", model=options.model,
                    adapters=options.adapters, patience=PATIENCE,
                    environment=clean_environment(OMP_NUM_THREADS=options.threads))
    print(f"{cpu_name()}, {options.threads} threads, {options.dtype}, VAE in {options.vae_dtype}, "
          f"{options.size}x{options.size}, an adapter of {one_bytes} bytes")
    load, warm_up = (gauge(server, f'hotlora_warmup_duration_seconds{{phase="{phase}"}}') for phase in ("load", "warm_up"))
    print(f"load {load:.1f} s, warm-up {warm_up:.1f} s, together {load + warm_up:.1f} s")

    summaries = []

    def generate(*adapters, tier=None):
        answer = server.caller.generate(request_for(*adapters, width=options.size, height=options.size, steps=2),
                                        timeout=PATIENCE)
        summaries.append(answer.summary)
        found = [adapters_pb2.AdapterTier.Name(adapter.tier_found).split("_")[-1].lower() for adapter in answer.summary.adapters]
        if found != [tier] * len(adapters):
            sys.exit(f"{adapters}: found in {found}, expected {tier}")
        return answer.summary.swap_cost

    generate()
    swaps = {}

    def swap(tier, *adapters):
        swaps.setdefault(tier, []).append(generate(*adapters, tier=tier).total_seconds)

    swap("disk", one)
    swap("disk", two)  # and moves the first to the host tier
    for _ in range(options.rounds):
        swap("host", one)
        swap(None)
        swap("device", one)
        swap("host", two)
        swap(None)
    for tier, seconds in swaps.items():
        print((f"merged from {tier}: " if tier else "back to the base: ") + ", ".join(f"{value:.3f}" for value in seconds) + " s")
    decodes = sorted(summary.decode_seconds for summary in summaries)
    print(f"decode {statistics.median(decodes):.2f} s ({decodes[0]:.2f} to {decodes[-1]:.2f}, {len(decodes)} pictures)")
    steps = sorted(summary.denoise_seconds / 2 for summary in summaries)
    print(f"a step {statistics.median(steps):.2f} s ({steps[0]:.2f} to {steps[-1]:.2f})")
    print(f"most memory {status_bytes(server, 'VmHWM') / 1e9:.2f} GB, at the end {status_bytes(server, 'VmRSS') / 1e9:.2f} GB")
    server.stop()


if __name__ == "__main__":
    main()
