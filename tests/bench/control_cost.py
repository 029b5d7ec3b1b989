"""What a ControlNet adds to a denoising step: requests with it and without it in turn, by the server's own clock.

    HOTLORA_TEST_BIN=build/release/bin HOTLORA_TEST_SOURCE=. PYTHONPATH=tests/e2e:build/release/tests/python \\
        python tests/bench/control_cost.py --model full --controls nets --name net --dtype bfloat16 --size 512

A folder `nets/net` of SDXL's own size is what `make_full_model.py --control nets/net` writes.
"""
import argparse
import io
import statistics

from PIL import Image

from arms import cpu_name, words
import hotlora_server as e2e
from hotlora_server import images_pb2, request_for


PATIENCE = 600.0  # for a start with large files, and for a request


def step_seconds(server, args, seed, controls):
    """The median step of a request, and its encoding."""
    request = request_for(prompt="a house", width=args.size, height=args.size, steps=args.steps, seed=seed, controls=controls)
    events = list(server.caller.stream(request, timeout=PATIENCE))
    summary = next(event.summary for event in events if event.HasField("summary"))
    return statistics.median(event.progress.step_seconds for event in events if event.HasField("progress")), summary.encode_seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--controls", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="of a request")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()
    picture = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((args.size, args.size)).save(picture, "png")
    control = images_pb2.ControlRef(name=args.name, image=picture.getvalue())
    server = e2e.Server("--dtype", args.dtype, "--controls", args.controls, model=args.model,
                        environment=e2e.clean_environment(OMP_NUM_THREADS=str(args.threads)), patience=PATIENCE)
    try:
        plain, controlled = [], []
        for block in range(args.blocks + 1):
            for times, controls in ((plain, []), (controlled, [control])):
                times.append(step_seconds(server, args, block, controls))
                print(f"block {block}, {len(controls)} ControlNets: a step {times[-1][0]:.3f} s, encoding {times[-1][1]:.3f} s", flush=True)
    finally:
        server.kill()
    print(f"{cpu_name()}; {args.dtype}, {args.threads} threads, {args.size}x{args.size}, {args.blocks} blocks")
    pairs = list(zip(plain, controlled))[1:]  # the first warms up
    print("a step without", words([without[0] for without, _ in pairs], 3), "s; with one over without",
          words([with_one[0] / without[0] for without, with_one in pairs], 3))


if __name__ == "__main__":
    main()
