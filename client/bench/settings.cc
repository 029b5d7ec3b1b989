#include "client/bench/settings.h"

#include <CLI/CLI.hpp>

namespace hotlora {
namespace {

void AddCommon(CLI::App& command, BenchSettings& settings) {
  command.add_option("--adapters-match", settings.match, "patterns of adapters' names, *")->delimiter(',');
  command.add_option("--weights", settings.weights, "weights to draw from, 1,0.7,-0.5,1.3")
      ->delimiter(',')
      ->check(CLI::Range(-10.0, 10.0));
  command.add_option("--size", settings.size, "pixels on a side, 64")->check(CLI::Range(16, 4096));
  command.add_option("--steps", settings.steps, "denoising steps of a request, 1")->check(CLI::Range(1, 1000));
  command.add_option("--guidance", settings.guidance, "classifier-free guidance, 1 for none");
  command.add_option("--seed", settings.seed, "seed of the random choices, 0");
  command.add_option("--csv", settings.csv, "CSV file with every measured value");
}

}  // namespace

void AddBench(CLI::App& app, BenchSettings& settings, const std::function<void()>& chosen) {
  CLI::App* const bench =
      app.add_subcommand("bench", "measure swaps, steps, or memory and latency over hours, on a running server");
  bench->require_subcommand(1);
  const auto add = [&](const char* name, const char* help, BenchKind kind) {
    CLI::App* const command = bench->add_subcommand(name, help);
    command->callback([&settings, kind, chosen] {
      settings.kind = kind;
      chosen();
    });
    AddCommon(*command, settings);
    return command;
  };

  CLI::App* const swap =
      add("swap", "measure what a swap costs, by phase and by where the adapter was found", BenchKind::kSwap);
  swap->add_option("--iterations", settings.iterations, "swaps, 100")->check(CLI::Range(2, 1000000));
  swap->add_option("--warm-up", settings.warm_up, "swaps before the measurement begins, 5");
  swap->add_option(
          "--source", settings.source,
          "tier that each adapter is put into before its swap: disk, host or device; any leaves it where it is")
      ->check(CLI::IsMember({"any", "disk", "host", "device"}));
  swap->add_option("--at-once", settings.at_once, "adapters in a request, 1")->check(CLI::Range(1, 16));
  swap->add_flag("--in-turn", settings.in_turn, "choose adapters in the order of their names, not at random");

  CLI::App* const step =
      add("step", "compare step times: without adapters, merged, and beside the weights", BenchKind::kStep);
  step->add_option("--blocks", settings.blocks, "random blocks, 20")->check(CLI::Range(2, 100000));
  step->add_option("--side-server", settings.side_server,
                   "HOST:PORT of a server of the same model with --apply side; without it that form is not measured");

  CLI::App* const soak = add("soak", "watch memory and latency over many swaps; fails if they drift", BenchKind::kSoak);
  soak->add_option("--swaps", settings.swaps, "swaps after burn-in, which has a tenth as many, 10000")
      ->check(CLI::Range(100, 10000000));
  soak->add_option("--seconds", settings.seconds, "end after this many seconds, 0 for never")
      ->check(CLI::Range(0.0, 1e7));
  soak->add_option("--at-once", settings.most_at_once, "most adapters in a request, 3")->check(CLI::Range(1, 16));
  soak->add_option("--broken", settings.broken, "patterns of adapters that must be refused; some requests name one")
      ->delimiter(',');
  soak->add_option("--idle-every", settings.idle_every, "swaps between two readings of the memory, 50")
      ->check(CLI::Range(1, 100000));
  soak->add_option("--twin", settings.twin,
                   "HOST:PORT of a server that never swaps, to compare latency with; without it each request is "
                   "repeated on the same server");
  soak->add_option("--metrics", settings.metrics,
                   "URL of the server's /metrics: RSS, files and threads are judged too");
  soak->add_flag("--exact-only", settings.exact_only, "judge neither RSS nor latency, which need thousands of swaps");
  soak->add_option("--plot", settings.plot, "PNG of memory and latency over swaps (needs gnuplot)");
}

}  // namespace hotlora
