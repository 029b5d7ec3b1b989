#ifndef HOTLORA_CLIENT_BENCH_SETTINGS_H_
#define HOTLORA_CLIENT_BENCH_SETTINGS_H_

// What `hotlora bench` is to do, and its part of the command line.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}  // namespace CLI

namespace hotlora {

enum class BenchKind { kSwap, kStep, kSoak };

struct BenchSettings {
  BenchKind kind = BenchKind::kSwap;

  // For all three commands: which adapters (patterns of their names), with which weights, in which requests.
  std::vector<std::string> match = {"*"};
  std::vector<double> weights = {1.0, 0.7, -0.5, 1.3};
  uint32_t size = 64, steps = 1;
  double guidance = 1.0;
  uint64_t seed = 0;
  std::string metrics;    // URL of the server's /metrics; empty: none is read
  std::string csv, plot;  // files to write; empty: none

  // kSwap
  std::string source = "any";  // any, disk, host, device
  bool in_turn = false;
  uint32_t iterations = 100, at_once = 1, warm_up = 5;

  // kStep
  std::string side_server;  // HOST:PORT of a server of the same model with --apply side; empty: that arm is left out
  uint32_t blocks = 20;

  // kSoak
  std::string twin;  // HOST:PORT of a server that never swaps; empty: the same server repeats the request
  std::vector<std::string> broken;  // patterns of adapters that must be refused
  uint32_t swaps = 10000, most_at_once = 3, idle_every = 50;
  double seconds = 0.0;     // 0: as long as it takes
  bool exact_only = false;  // judge neither RSS nor latency
};

// Adds the command with its three subcommands; `chosen` is called if one of them is given.
void AddBench(CLI::App& app, BenchSettings& settings, const std::function<void()>& chosen);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_BENCH_SETTINGS_H_
