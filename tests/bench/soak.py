#!/usr/bin/env python3
"""10,000 swaps on a small model, and the negative controls: servers that leak 4 KiB a swap, of the process's memory or of the
device's, and one that ends 10 % slower must fail what the real one passes.

  soak.py --bin build/release/bin --out DIR [--swaps 10000] [--model DIR] [--arms sound,leak,device_leak,slow] [--minutes 20]

200 adapters of all formats, ranks 1 to 64, in tiers that hold about eight; one thread. Beside the server runs its twin, which never
swaps: latency is judged as the ratio to it. Writes DIR/ARM.csv, ARM.png, ARM.json and prints each arm's gates. Needs the
Python of deploy/install_dependencies.sh --test, and gnuplot for the pictures.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests/faults"))
from faults import Faults  # noqa: E402

HAS_GNUPLOT = shutil.which("gnuplot") is not None
# Room for about eight adapters, which are held in the server's dtype: of the demo's model; of the golden tests'.
TIER_ITEMS, TINY_TIER_ITEMS = 16_000_000, 6_000_000
# Settings of tests/faults/faults.py.
FAULTS = {"sound": {}, "leak": {"leaked_heap_bytes_a_swap": 4096}, "device_leak": {"leaked_tensor_bytes_a_swap": 4096}, "slow": {}}


def e2e():
    """tests/e2e/hotlora_server.py, which wants to know what to test before it is imported."""
    sys.path.insert(0, str(SOURCE / "tests/e2e"))
    import hotlora_server
    return hotlora_server


def make_adapters(model, out, count, rank=64):
    """All formats, and four files that must be refused."""
    script = SOURCE / "tests/bench/make_adapters.py"
    subprocess.run([sys.executable, script, "--model", model, "--out", out, "--count", str(count), "--format", "mixed",
                    "--rank", str(rank), "--broken", "4"], check=True)


def start(model, adapters, *flags, program, tier_items=TIER_ITEMS, threads=1, faults=None):
    """A server with small tiers; `faults` are settings of tests/faults/faults.py."""
    helpers = e2e()
    tier_bytes = tier_items * helpers.ITEM_BYTES
    environment = helpers.clean_environment(OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="PASSIVE")
    armed = Faults(**(faults or {}))  # until the server has found its file
    environment.update(armed.environment)
    return helpers.Server("--adapter-host-bytes", tier_bytes, "--adapter-device-bytes", tier_bytes, "--log-level", "error",
                          *flags, model=model, adapters=adapters, program=program, environment=environment)


def run_soak(server, *words, idle_every=20, patience=600):
    """`hotlora bench soak --json` on a server."""
    helpers = e2e()
    return helpers.run(helpers.CLIENT, "--server", server.target, "--json", "bench", "soak", "--adapters-match", "adapter_*",
                       "--broken", "broken_*", "--metrics", server.metrics_url, "--idle-every", idle_every, *words, patience=patience)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--model", default=str(SOURCE / "deploy/demo/model"))
    parser.add_argument("--swaps", type=int, default=10000)
    parser.add_argument("--arms", default="sound,leak,device_leak,slow")
    parser.add_argument("--apply", default="auto")
    parser.add_argument("--minutes", type=float, default=20, help="bound of each arm")
    args = parser.parse_args()
    os.environ["HOTLORA_TEST_BIN"], os.environ["HOTLORA_TEST_SOURCE"] = args.bin, str(SOURCE)
    helpers = e2e()
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    adapters = out / "adapters"
    if not adapters.exists():
        make_adapters(args.model, adapters, 200)

    as_expected = True
    twin = start(args.model, adapters, program=helpers.SERVER)
    for arm in args.arms.split(","):
        faults = dict(FAULTS[arm])
        if arm == "slow":  # so much that the last request takes a tenth longer than the sound server's median
            median = json.loads((out / "sound.json").read_text())["soak"]["request"]["p50_ms"]
            faults["slower_nanoseconds_each_swap"] = int(0.1 * median * 1e6 / (1.1 * args.swaps))
        program = helpers.SERVER if arm == "sound" else helpers.FAULTY_SERVER
        server = start(args.model, adapters, "--apply", args.apply, program=program, faults=faults)
        plot = ["--plot", out / f"{arm}.png"] if HAS_GNUPLOT else []
        result = run_soak(server, "--swaps", args.swaps, "--twin", twin.target, "--seconds", 60 * args.minutes,
                          "--csv", out / f"{arm}.csv", *plot, idle_every=max(1, args.swaps // 200),
                          patience=60 * args.minutes + 120)
        server.stop()
        (out / f"{arm}.json").write_text(result.stdout)
        report = json.loads(result.stdout)
        if "error" in report:
            sys.exit(report["error"]["message"])
        request = report["soak"]["request"]
        print(f"{arm} {faults}: {report['swaps']} swaps, a request {request['p50_ms']:.1f} ms, a swap "
              f"{report['soak']['swap']['p50_ms']:.1f} ms")
        for gate in report.get("gates", []):
            print(f"  {'ok' if gate['passed'] else 'FAILED':6s} {gate['name']}: {gate['words']}", flush=True)
        as_expected = as_expected and report["passed"] == (arm == "sound")
    twin.stop()
    print("as expected" if as_expected else "NOT as expected")
    return 0 if as_expected else 1


if __name__ == "__main__":
    sys.exit(main())
