#ifndef HOTLORA_CLIENT_BENCH_ADAPTER_DRAW_H_
#define HOTLORA_CLIENT_BENCH_ADAPTER_DRAW_H_

// The adapters that a benchmark's requests name. They are drawn by a seed, so they are the same on every machine.

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "client/bench/settings.h"
#include "hotlora/v1/images.pb.h"

namespace hotlora {

using AdapterChoice = std::vector<v1::AdapterRef>;

// Those of `names` that match one of the patterns (fnmatch: * and ? and [...], "/" is a character like others).
std::vector<std::string> Matching(const std::vector<std::string>& names, const std::vector<std::string>& patterns);

// REQUIRES at least one name, and two for ChooseOther.
class AdapterDraw {
 public:
  AdapterDraw(std::vector<std::string> names, std::vector<double> weights, uint64_t seed);

  // Below `count`.
  uint32_t Number(uint32_t count);
  // `count` different adapters (fewer if there are fewer), each with a weight.
  AdapterChoice Choose(uint32_t count);
  // Another choice than `last`.
  AdapterChoice ChooseOther(uint32_t count, const AdapterChoice& last);

 private:
  const std::vector<std::string> names_;
  const std::vector<double> weights_;
  std::mt19937_64 random_;
};

// "a:0.7 b:-0.5"
std::string Words(const AdapterChoice& adapters);

// A request for a picture of the settings' size with these adapters.
v1::GenerateImagesRequest MakeRequest(const BenchSettings& settings, const AdapterChoice& adapters);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_BENCH_ADAPTER_DRAW_H_
