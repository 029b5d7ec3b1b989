// What adapters cost without a server around them: the pipeline and the adapter store of a checkpoint, called directly.
//
//   adapter_bench swap --model DIR --adapters DIR [--source disk|host|device] [--apply side|merged] [--threads 1]
//       Takes the adapters of the folder in turn and times each swap: from the name until the first step can start.
//       Prints a CSV line each (milliseconds), then medians.
//   adapter_bench overhead --model DIR --adapters DIR --name NAME [--size 512] [--blocks 10] [--threads 2]
//       Times a denoising step under guidance without adapters, with NAME beside the weights and with it merged, in
//       turn within each block, and prints the median ratios to the step without.
//   adapter_bench turns --model DIR --adapters DIR [--source ...] [--threads 1]
//       Takes lines "APPLY NAME" (APPLY is side or merged) from standard input, swaps, makes a step, and answers each
//       with a line: milliseconds of the swap, of the step, and of the processor for the swap. tests/bench/peft_loop.py
//       asks so.
//   adapter_bench rebuild --model DIR --adapters DIR [--name NAME] [--blocks 10] [--threads 1] [--dtype float32]
//       Times merging one adapter that is at hand into the weights, going back to the clean ones, and a plain copy of
//       as many bytes as these live weights have, in turn within each block. Prints milliseconds, GB/s of live weights,
//       and the ratios to the copy.
//   adapter_bench held --model DIR --adapters DIR [--counts 1,10,100,1000] [--resident 64] [--source ...]
//                      [--blocks 100] [--rounds 12]
//       Times the swap of one adapter from stores that have read as many adapters of the folder as --counts says, in
//       turn within each block, and prints the ratios to the store with the fewest. Where a store's memory happens to
//       lie is worth some per cents, so each round makes the stores again; the intervals are over rounds.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include <ATen/Parallel.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <CLI/CLI.hpp>

#include "client/bench/statistics.h"
#include "src/adapters/adapter_store.h"
#include "src/adapters/adapter_weights.h"
#include "src/base/logging.h"
#include "src/base/thread_team.h"
#include "src/metrics/metrics.h"
#include "src/nn/lora_delta.h"
#include "src/pipeline/sdxl_pipeline.h"
#include "src/request/validation.h"
#include "src/sdxl/sdxl_model.h"
#include "src/tensor/memory_stats.h"
#include "src/tensor/parallel_for.h"

namespace hotlora {
namespace {

struct Options {
  std::string model, adapters, device = "cpu", dtype = "float32", source = "disk", apply = "side", name;
  int threads = 1, iterations = 60, blocks = 10, rounds = 12, resident = 64;
  std::vector<size_t> counts = {1, 10, 100, 1000};
  uint32_t size = 64;
  uint64_t device_bytes = uint64_t{2} << 30, host_bytes = uint64_t{4} << 30;
};

double MillisecondsOf(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

// The median and its 95 % interval.
std::string WithInterval(const std::vector<double>& values) {
  const Interval interval = BootstrapInterval(values, Median);
  return absl::StrFormat("%.3f [%.3f, %.3f]", Median(values), interval.low, interval.high);
}

ApplyMode ModeOf(const std::string& apply) { return apply == "side" ? ApplyMode::kSide : ApplyMode::kMerged; }

// What a swap took, in milliseconds.
struct SwapTimes {
  AcquireReport report;
  double apply = 0.0, total = 0.0, step = 0.0;
  double processor = 0.0;  // of all threads, during total
};

// The times with one number of adapters held: a median, and ratios to the first number, for each round.
struct HeldTimes {
  std::vector<double> milliseconds, ratios, processor_ratios;
  uint64_t resident = 0;
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options), place_(ResolvePlace(options.device, options.dtype).value()) {
    auto model = SdxlModel::Load(options.model, place_).value();
    modules_ = model->modules();
    store_ = MakeStore(options.adapters, options.host_bytes, options.device_bytes);
    pipeline_ = MakeSdxlPipeline(std::move(model), "bench").value();
    ImageRequest request;
    request.prompt = "a photo";
    request.width = request.height = options.size;
    request.steps = 1000;
    job_ = ValidateImageRequest(request, RequestLimits{.native_size = 128, .max_clip_skip = 1}).value();
    base_ = Start({}, ApplyMode::kMerged);
  }

  void Swap() {
    const std::vector<AdapterInfo> adapters = store_->List("", 1000).value();
    std::map<std::string, std::vector<double>> columns;
    std::cout << "adapter,lookup,read,parse,upload,apply,total,step\n";
    for (int i = 0; i < options_.iterations + 3; ++i) {
      const std::string& name = adapters[static_cast<size_t>(i) % adapters.size()].name;
      const SwapTimes times = SwapTo(name, ModeOf(options_.apply));
      std::cout << name;
      for (const auto& [column, value] :
           std::vector<std::pair<std::string, double>>{{"1 lookup", 1e3 * times.report.lookup_seconds},
                                                       {"2 read", 1e3 * times.report.read_seconds},
                                                       {"3 parse", 1e3 * times.report.parse_seconds},
                                                       {"4 upload", 1e3 * times.report.upload_seconds},
                                                       {"5 apply", times.apply},
                                                       {"6 total", times.total},
                                                       {"7 step", times.step}}) {
        std::cout << "," << value;
        if (i >= 3) {
          columns[column].push_back(value);
        }
      }
      std::cout << "\n";
    }
    std::cout << "medians of " << options_.iterations << " swaps from " << options_.source << ", " << options_.apply
              << ", " << options_.threads << " thread(s), ms:";
    for (const auto& [column, values] : columns) {
      std::cout << " " << column.substr(2) << " " << Median(values);
    }
    std::cout << "\n";
  }

  void Turns() {
    std::cout << "ready" << std::endl;
    std::string apply, name;
    while (std::cin >> apply >> name) {
      const SwapTimes times = SwapTo(name, ModeOf(apply));
      std::cout << times.total << " " << times.step << " " << times.processor << std::endl;
    }
  }

  void Held() {
    std::vector<AdapterInfo> adapters = store_->List("", 1000000).value();
    const std::string swapped = adapters[0].name;
    const std::filesystem::path root =
        std::filesystem::temp_directory_path() / ("adapter_bench_" + std::to_string(getpid()));
    for (const size_t count : options_.counts) {
      CopyFiles(adapters, count, root / std::to_string(count));
    }
    store_->Load(swapped, AdapterTier::kDevice, false).value();
    const uint64_t budget = store_->Statistics().tiers.front().bytes * static_cast<uint64_t>(options_.resident);
    std::vector<HeldTimes> times(options_.counts.size());
    std::mt19937 random(0);
    std::vector<size_t> order(times.size());
    std::iota(order.begin(), order.end(), 0);
    for (int round = 0; round < options_.rounds; ++round) {
      std::vector<std::unique_ptr<AdapterStore>> stores(times.size());
      std::shuffle(order.begin(), order.end(), random);
      for (const size_t which : order) {
        std::vector<AdapterInfo> held(adapters.begin(),
                                      adapters.begin() + static_cast<int64_t>(options_.counts[which]));
        std::shuffle(held.begin(), held.end(), random);
        stores[which] = MakeStore(root / std::to_string(options_.counts[which]), budget, budget);
        for (const AdapterInfo& adapter : held) {
          stores[which]->Load(adapter.name, AdapterTier::kDevice, false).value();
        }
      }
      std::vector<std::vector<double>> milliseconds(times.size()), processor(times.size());
      for (int block = -10; block < options_.blocks; ++block) {
        std::shuffle(order.begin(), order.end(), random);
        for (const size_t which : order) {
          Prepare(*stores[which], swapped);
          pipeline_->Apply({}, ModeOf(options_.apply)).value();
          const std::clock_t start = std::clock();
          const double total =
              MillisecondsOf([&] { pipeline_->Apply(Set(*stores[which], swapped), ModeOf(options_.apply)).value(); });
          const std::clock_t end = std::clock();
          if (block >= 0) {  // the first warm up
            milliseconds[which].push_back(total);
            processor[which].push_back(static_cast<double>(end - start));
          }
        }
      }
      leases_.clear();
      for (size_t i = 0; i < times.size(); ++i) {
        times[i].milliseconds.push_back(Median(milliseconds[i]));
        times[i].ratios.push_back(Median(milliseconds[i]) / Median(milliseconds[0]));
        times[i].processor_ratios.push_back(Median(processor[i]) / Median(processor[0]));
        times[i].resident = stores[i]->Statistics().tiers.front().entries;
      }
    }
    for (size_t i = 0; i < times.size(); ++i) {
      std::cout << options_.counts[i] << " held, " << times[i].resident << " of them resident: swap from "
                << options_.source << ", " << options_.apply << ", " << Median(times[i].milliseconds)
                << " ms; ratio to " << options_.counts[0] << " held " << WithInterval(times[i].ratios)
                << ", by processor time " << WithInterval(times[i].processor_ratios) << "\n";
    }
    std::filesystem::remove_all(root);
  }

  void Rebuild() {
    const std::string name = options_.name.empty() ? store_->List("", 1).value().front().name : options_.name;
    const AdapterSet set = Set(*store_, name);
    int64_t bytes = 0;
    for (const ModuleDelta& delta : leases_.back()->weights()->deltas) {
      bytes += c10::multiply_integers(modules_.modules[delta.module].shape) *
               static_cast<int64_t>(c10::elementSize(place_.dtype));
    }
    const at::Tensor from = at::ones({bytes}, at::kByte), to = at::zeros({bytes}, at::kByte);
    const auto copy = [&] {
      ParallelFor(0, bytes, /*grain=*/1 << 20, [&](int64_t begin, int64_t end) {
        std::memcpy(to.mutable_data_ptr<uint8_t>() + begin, from.const_data_ptr<uint8_t>() + begin,
                    static_cast<size_t>(end - begin));
      });
    };
    std::map<std::string, std::vector<double>> ms, ratios;
    for (int block = 0; block < options_.blocks + 1; ++block) {
      const std::map<std::string, double> times = {
          {"merge", MillisecondsOf([&] { pipeline_->Apply(set, ApplyMode::kMerged).value(); })},
          {"restore", MillisecondsOf([&] { pipeline_->Apply({}, ApplyMode::kMerged).value(); })},
          {"copy", MillisecondsOf(copy)}};
      for (const auto& [arm, time] : times) {
        if (block > 0) {  // the first pays for what is made once
          ms[arm].push_back(time);
          ratios[arm].push_back(time / times.at("copy"));
        }
      }
    }
    std::cout << name << ": " << bytes << " bytes of live weights, " << options_.dtype << ", " << options_.threads
              << " thread(s)\n";
    for (const auto& [arm, times] : ms) {
      std::cout << "  " << arm << " ms " << WithInterval(times) << ", "
                << absl::StrFormat("%.2f", 1e-6 * static_cast<double>(bytes) / Median(times)) << " GB/s; over copy "
                << WithInterval(ratios[arm]) << "\n";
    }
  }

  void Overhead() {
    const AdapterSet set = Set(*store_, options_.name);
    const auto side = Start(set, ApplyMode::kSide);
    std::vector<double> side_ratios, merged_ratios, base_ms;
    std::mt19937 random(0);
    std::vector<int> arms = {0, 1, 2};
    for (int block = 0; block < options_.blocks + 1; ++block) {
      double ms[3];
      std::shuffle(arms.begin(), arms.end(), random);
      for (const int arm : arms) {
        const ApplyMode mode = arm == 1 ? ApplyMode::kSide : ApplyMode::kMerged;
        Row& row = arm == 0 ? *base_ : *side;
        pipeline_->Apply(arm == 0 ? AdapterSet() : set, mode).value();
        ms[arm] = MillisecondsOf([&] { Step(row, mode); });
      }
      std::cout << "base " << ms[0] << " side " << ms[1] << " merged " << ms[2] << std::endl;
      if (block > 0) {  // the first pays for what is made once
        base_ms.push_back(ms[0]);
        side_ratios.push_back(ms[1] / ms[0]);
        merged_ratios.push_back(ms[2] / ms[0]);
      }
    }
    std::cout << options_.name << " at " << options_.size << ", " << options_.threads << " thread(s): step "
              << Median(base_ms) << " ms; side / base " << WithInterval(side_ratios) << ", merged / base "
              << WithInterval(merged_ratios) << "\n";
  }

 private:
  std::unique_ptr<AdapterStore> MakeStore(const std::string& folder, uint64_t host_bytes, uint64_t device_bytes) const {
    AdapterStoreOptions options;
    options.directory = folder;
    return AdapterStore::Create(options, modules_, &metrics_->adapters(),
                                MakeAdapterMemory(place_, host_bytes, device_bytes).value())
        .value();
  }

  void CopyFiles(const std::vector<AdapterInfo>& adapters, size_t count, const std::filesystem::path& folder) const {
    if (count > adapters.size()) {
      std::cerr << "there are only " << adapters.size() << " adapters\n";
      std::exit(2);
    }
    std::filesystem::create_directories(folder);
    for (size_t i = 0; i < count; ++i) {
      const std::string file = adapters[i].name + ".safetensors";
      std::filesystem::copy_file(std::filesystem::path(options_.adapters) / file, folder / file);
    }
  }

  // Brings the adapter to where the swap is to find it.
  void Prepare(AdapterStore& store, const std::string& name) {
    leases_.clear();
    store.Unload(name).value();
    if (options_.source != "disk") {
      store.Load(name, options_.source == "host" ? AdapterTier::kHost : AdapterTier::kDevice, false).value();
    }
  }

  // From the name until the first step can start; then that step.
  SwapTimes SwapTo(const std::string& name, ApplyMode mode) {
    Prepare(*store_, name);
    SwapTimes times;
    AdapterSet set;
    const std::clock_t start = std::clock();
    times.total = MillisecondsOf([&] {
      leases_.clear();
      set = Set(*store_, name);
      times.report = leases_.back()->report();
      times.apply = MillisecondsOf([&] { pipeline_->Apply(set, mode).value(); });
    });
    times.processor = 1e3 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    const auto row = pipeline_->StartRow(job_.denoise, 1, conditioning_, set, nullptr, nullptr, nullptr).value();
    times.step = MillisecondsOf([&] { Step(*row, mode); });
    return times;
  }

  AdapterSet Set(AdapterStore& store, const std::string& name) {
    auto lease = store.Acquire(name).value();
    AdapterSet set;
    set.adapters.push_back({lease->weights(), lease->info().content_sha256, 1.0, 1.0});
    leases_.push_back(std::move(lease));
    return set;
  }

  std::unique_ptr<Row> Start(const AdapterSet& set, ApplyMode mode) {
    conditioning_ = pipeline_->Encode(job_.prompts, true, set, mode).value();
    return pipeline_->StartRow(job_.denoise, 1, conditioning_, set, nullptr, nullptr, nullptr).value();
  }

  void Step(Row& row, ApplyMode mode) {
    if (const absl::Status status = pipeline_->Step(BatchPlan{{&row}, mode}); !status.ok()) {
      std::cerr << status << "\n";
      std::exit(1);
    }
  }

  const Options options_;
  const ComputePlace place_;
  ModuleTable modules_;
  const std::unique_ptr<Metrics> metrics_ = std::make_unique<Metrics>();  // outlives the stores
  std::unique_ptr<AdapterStore> store_;
  std::vector<std::unique_ptr<AdapterLease>> leases_;
  std::unique_ptr<Pipeline> pipeline_;
  ImageJob job_;
  std::shared_ptr<const Conditioning> conditioning_;
  std::unique_ptr<Row> base_;
};

}  // namespace
}  // namespace hotlora

int main(int argc, char** argv) {
  const hotlora::KeptTeam team;  // as the server's step thread
  hotlora::Options options;
  CLI::App app("What adapters cost");
  app.require_subcommand(1);
  for (const char* const name : {"swap", "overhead", "turns", "rebuild", "held"}) {
    CLI::App* const command = app.add_subcommand(name);
    command->add_option("--model", options.model)->required();
    command->add_option("--adapters", options.adapters)->required();
    command->add_option("--device", options.device);
    command->add_option("--dtype", options.dtype);
    command->add_option("--threads", options.threads);
    command->add_option("--size", options.size);
    command->add_option("--source", options.source)->check(CLI::IsMember({"disk", "host", "device"}));
    command->add_option("--apply", options.apply)->check(CLI::IsMember({"side", "merged"}));
    command->add_option("--name", options.name);
    command->add_option("--iterations", options.iterations);
    command->add_option("--blocks", options.blocks);
    command->add_option("--rounds", options.rounds);
    command->add_option("--counts", options.counts)->delimiter(',');
    command->add_option("--resident", options.resident);
    command->add_option("--adapter-device-bytes", options.device_bytes);
    command->add_option("--adapter-host-bytes", options.host_bytes);
  }
  CLI11_PARSE(app, argc, argv);
  hotlora::ExchangeLogLevel(hotlora::LogLevel::kWarning);
  hotlora::InstallCountingCpuAllocator();
  at::set_num_threads(options.threads);
  hotlora::Bench bench(options);
  const std::string command = app.get_subcommands().front()->get_name();
  command == "swap"      ? bench.Swap()
  : command == "held"    ? bench.Held()
  : command == "turns"   ? bench.Turns()
  : command == "rebuild" ? bench.Rebuild()
                         : bench.Overhead();
  return 0;
}
