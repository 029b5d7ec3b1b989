#include "client/bench/swap_bench.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "client/bench/adapter_draw.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

struct Block {
  TimedAnswer swap, twin;
  AdapterChoice adapters;
};

using Phase = std::pair<const char*, double (*)(const v1::SwapCost&)>;
constexpr Phase kPhases[] = {
    {"lookup", [](const v1::SwapCost& cost) { return cost.lookup_seconds(); }},
    {"read", [](const v1::SwapCost& cost) { return cost.read_seconds(); }},
    {"parse", [](const v1::SwapCost& cost) { return cost.parse_seconds(); }},
    {"upload", [](const v1::SwapCost& cost) { return cost.upload_seconds(); }},
    {"apply", [](const v1::SwapCost& cost) { return cost.apply_seconds(); }},
    {"restore", [](const v1::SwapCost& cost) { return cost.restore_seconds(); }},
    {"total", [](const v1::SwapCost& cost) { return cost.total_seconds(); }},
};

BenchReport Report(const std::vector<Block>& blocks) {
  BenchReport report;
  std::map<std::string, std::vector<const Block*>> groups;
  size_t unchanged = 0;
  report.csv = "adapters,source,form,lookup,read,parse,upload,apply,restore,total,seconds,twin_seconds\n";
  for (const Block& block : blocks) {
    const v1::SwapCost& cost = block.swap.summary.swap_cost();
    const std::string source = ColdestSource(block.swap.summary);
    absl::StrAppend(&report.csv, Words(block.adapters), ",", source, ",", cost.form());
    for (const Phase& phase : kPhases) {
      absl::StrAppend(&report.csv, ",", phase.second(cost));
    }
    absl::StrAppend(&report.csv, ",", block.swap.seconds, ",", block.twin.seconds, "\n");
    if (cost.changed()) {
      groups[absl::StrCat(source, " ", cost.form())].push_back(&block);
    } else {
      ++unchanged;
    }
  }
  for (const auto& [source, group] : groups) {
    for (const auto& [name, read] : kPhases) {
      std::vector<double> seconds;
      for (const Block* block : group) {
        seconds.push_back(read(block->swap.summary.swap_cost()));
      }
      if (*std::max_element(seconds.begin(), seconds.end()) > 0) {
        AddTimes(source, name, seconds, report);
      }
    }
    std::vector<double> added, ratios;
    for (const Block* block : group) {
      added.push_back(block->swap.seconds - block->twin.seconds);
      ratios.push_back(block->swap.seconds / block->twin.seconds);
    }
    AddTimes(source, "added", added, report);
    AddRatio(source, "request with the swap / the same without", ratios, report);
  }
  if (unchanged > 0) {
    absl::StrAppend(&report.text, unchanged, " requests found their adapters in effect already\n");
  }
  return report;
}

}  // namespace

absl::StatusOr<BenchReport> RunSwapBench(BenchServer& server, const BenchSettings& settings) {
  ABSL_ASSIGN_OR_RETURN(const std::vector<std::string> all, server.AdapterNames());
  const std::vector<std::string> names = Matching(all, settings.match);
  if (names.size() < 2) {
    return absl::InvalidArgumentError(absl::StrCat(names.size(), " adapters match; two or more are needed"));
  }
  AdapterDraw draw(names, settings.weights, settings.seed);
  std::vector<Block> blocks;
  AdapterChoice last;
  for (uint32_t i = 0; i < settings.warm_up + settings.iterations; ++i) {
    Block block;
    block.adapters = draw.ChooseOther(settings.at_once, last);
    if (settings.in_turn) {
      for (size_t k = 0; k < block.adapters.size(); ++k) {
        block.adapters[k].set_name(names[(i * block.adapters.size() + k) % names.size()]);
      }
    }
    if (settings.source != "any") {
      for (const v1::AdapterRef& adapter : block.adapters) {
        ABSL_RETURN_IF_ERROR(server.Place(adapter.name(), settings.source));
      }
    }
    const v1::GenerateImagesRequest request = MakeRequest(settings, block.adapters);
    ABSL_ASSIGN_OR_RETURN(block.swap, server.Generate(request));
    ABSL_ASSIGN_OR_RETURN(block.twin, server.Generate(request));
    last = block.adapters;
    if (i >= settings.warm_up) {
      blocks.push_back(std::move(block));
    }
  }
  return Report(blocks);
}

}  // namespace hotlora
