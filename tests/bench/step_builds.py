"""Step times of several builds of the server, each block with servers just started, plain requests to the demo model.

Servers of one build differ from each other by up to a tenth for as long as they live, because of where their memory
lies: so a block starts new ones. Name one build twice to see how far equal programs come out apart.

    HOTLORA_TEST_BIN=build/release/bin HOTLORA_TEST_SOURCE=. PYTHONPATH=tests/e2e:build/release/tests/python \\
        python tests/bench/step_builds.py before=OTHER/bin/hotlora-server again=OTHER/bin/hotlora-server \\
            now=build/release/bin/hotlora-server
"""
import argparse
import statistics

from arms import cpu_name, words
import hotlora_server as e2e
from hotlora_server import request_for


def step_seconds(server, args, seed):
    """The median step of a request, by the server's own clock."""
    events = server.caller.stream(request_for(prompt="a large red circle", width=args.size, height=args.size,
                                              steps=args.steps, seed=seed))
    return statistics.median(event.progress.step_seconds for event in events if event.HasField("progress"))


def block(builds, number, args):
    """The median step of each build, in seconds."""
    environment = e2e.clean_environment(OMP_NUM_THREADS=str(args.threads))
    names = list(builds)
    names = names[number % len(names):] + names[:number % len(names)]
    servers = {}
    try:
        for name in names:
            servers[name] = e2e.Server("--dtype", args.dtype, program=builds[name], environment=environment)
        steps = {name: [] for name in names}
        for request in range(args.requests + 1):
            for name in names:
                steps[name].append(step_seconds(servers[name], args, request))
        return {name: statistics.median(values[1:]) for name, values in steps.items()}  # the first warms up
    finally:
        for server in servers.values():
            server.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builds", nargs="+", metavar="NAME=SERVER", help="the first is the one that others are compared with")
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--requests", type=int, default=5, help="of each server in a block")
    parser.add_argument("--steps", type=int, default=12, help="of a request")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    builds = dict(build.split("=", 1) for build in args.builds)
    blocks = [block(builds, number, args) for number in range(args.blocks)]

    print(f"{cpu_name()}; {args.dtype}, {args.threads} threads, {args.size}x{args.size}, {args.blocks} blocks")
    first = next(iter(builds))
    for name in builds:
        milliseconds = [1000 * values[name] for values in blocks]
        print(f"{name}: a step {words(milliseconds, 2)} ms, over {first} "
              f"{words([values[name] / values[first] for values in blocks], 3)}")


if __name__ == "__main__":
    main()
