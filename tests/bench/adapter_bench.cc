// What adapters cost without a server around them: the pipeline and the adapter store of a checkpoint, called directly.
//
//   adapter_bench swap --model DIR --adapters DIR [--source disk|host|device] [--apply side|merged] [--threads 1]
//       Takes the adapters of the folder in turn and times each swap: from the name until the first step can start.
//       Prints a CSV line each (milliseconds), then medians.
//   adapter_bench overhead --model DIR --adapters DIR --name NAME [--size 512] [--blocks 10] [--threads 2]
//       Times a denoising step under guidance without adapters, with NAME beside the weights and with it merged, in
//       turn within each block, and prints the median ratios to the step without.

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <ATen/Parallel.h>
#include <CLI/CLI.hpp>

#include "src/adapters/adapter_store.h"
#include "src/adapters/adapter_weights.h"
#include "src/pipeline/sdxl_pipeline.h"
#include "src/request/validation.h"
#include "src/sdxl/sdxl_model.h"
#include "src/tensor/memory_stats.h"

namespace hotlora {
namespace {

struct Options {
  std::string model, adapters, device = "cpu", dtype = "float32", source = "disk", apply = "side", name;
  int threads = 1, iterations = 60, blocks = 10;
  uint32_t size = 64;
  uint64_t device_bytes = uint64_t{2} << 30, host_bytes = uint64_t{4} << 30;
};

double MillisecondsOf(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options) {
    const ComputePlace place = ResolvePlace(options.device, options.dtype).value();
    auto model = SdxlModel::Load(options.model, place).value();
    AdapterStoreOptions store;
    store.directory = options.adapters;
    store.host_bytes = options.host_bytes;
    store_ =
        AdapterStore::Create(store, model->modules(), nullptr, MakeAdapterMemory(place, options.device_bytes).value())
            .value();
    pipeline_ = MakeSdxlPipeline(std::move(model), "bench").value();
    ImageRequest request;
    request.prompt = "a photo";
    request.width = request.height = options.size;
    request.steps = 1000;
    job_ = ValidateImageRequest(request, RequestLimits{.native_size = 128, .max_clip_skip = 1}).value();
    base_ = Start({}, ApplyMode::kMerged);
  }

  void Swap() {
    const ApplyMode mode = options_.apply == "side" ? ApplyMode::kSide : ApplyMode::kMerged;
    const std::vector<AdapterInfo> adapters = store_->List("", 1000).value();
    std::map<std::string, std::vector<double>> columns;
    std::cout << "adapter,lookup,read,parse,upload,apply,total,step\n";
    for (int i = 0; i < options_.iterations + 3; ++i) {
      const std::string& name = adapters[static_cast<size_t>(i) % adapters.size()].name;
      Prepare(name);
      AdapterSet set;
      AcquireReport report;
      double apply = 0.0;
      const double total = MillisecondsOf([&] {
        leases_.clear();
        set = Set(name);
        report = leases_.back()->report();
        apply = MillisecondsOf([&] { pipeline_->Apply(set, mode).value(); });
      });
      const auto row = pipeline_->StartRow(job_.denoise, 1, conditioning_, set, nullptr).value();
      const double step = MillisecondsOf([&] { Step(*row, mode); });
      std::cout << name;
      for (const auto& [column, value] :
           std::vector<std::pair<std::string, double>>{{"1 lookup", 1e3 * report.lookup_seconds},
                                                       {"2 read", 1e3 * report.read_seconds},
                                                       {"3 parse", 1e3 * report.parse_seconds},
                                                       {"4 upload", 1e3 * report.upload_seconds},
                                                       {"5 apply", apply},
                                                       {"6 total", total},
                                                       {"7 step", step}}) {
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

  void Overhead() {
    const AdapterSet set = Set(options_.name);
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
    std::cout << options_.name << " at " << options_.size << ": step " << Median(base_ms) << " ms; side / base "
              << Median(side_ratios) << ", merged / base " << Median(merged_ratios) << "\n";
  }

 private:
  // Brings the adapter to where the swap is to find it.
  void Prepare(const std::string& name) {
    leases_.clear();
    store_->Unload(name).value();
    if (options_.source != "disk") {
      store_->Load(name, options_.source == "host" ? AdapterTier::kHost : AdapterTier::kDevice, false).value();
    }
  }

  AdapterSet Set(const std::string& name) {
    auto lease = store_->Acquire(name).value();
    AdapterSet set;
    set.adapters.push_back({lease->weights(), lease->info().content_sha256, 1.0, 1.0});
    leases_.push_back(std::move(lease));
    return set;
  }

  std::unique_ptr<Row> Start(const AdapterSet& set, ApplyMode mode) {
    conditioning_ = pipeline_->Encode(job_.prompts, true, set, mode).value();
    return pipeline_->StartRow(job_.denoise, 1, conditioning_, set, nullptr).value();
  }

  void Step(Row& row, ApplyMode mode) {
    if (const absl::Status status = pipeline_->Step(BatchPlan{{&row}, mode}); !status.ok()) {
      std::cerr << status << "\n";
      std::exit(1);
    }
  }

  const Options options_;
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
  hotlora::Options options;
  CLI::App app("What adapters cost");
  app.require_subcommand(1);
  for (const char* const name : {"swap", "overhead"}) {
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
    command->add_option("--adapter-device-bytes", options.device_bytes);
  }
  CLI11_PARSE(app, argc, argv);
  hotlora::InstallCountingCpuAllocator();
  at::set_num_threads(options.threads);
  hotlora::Bench bench(options);
  app.got_subcommand("swap") ? bench.Swap() : bench.Overhead();
  return 0;
}
