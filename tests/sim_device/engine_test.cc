// The engine over the real pipeline, on the simulated device: all of its threads, as on a GPU.

#include "src/engine/engine.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "src/adapters/adapter_store.h"
#include "src/adapters/adapter_weights.h"
#include "src/image/image_decoder.h"
#include "src/image/image_encoder.h"
#include "src/metrics/metrics.h"
#include "src/pipeline/sdxl_pipeline.h"
#include "tests/fakes/fake_adapter_store.h"
#include "tests/fakes/fake_embedding_store.h"
#include "tests/fakes/recording_listener.h"
#include "tests/fakes/sim_device/sim_device.h"
#include "tests/golden_path.h"

namespace hotlora {
namespace {

constexpr uint64_t kAdapterBytes = uint64_t{16} << 20;

std::unique_ptr<Engine> StartEngine(c10::Device device, ApplyPolicy policy, Metrics* metrics) {
  const ComputePlace place{device, c10::kFloat};
  auto model = SdxlModel::Load(GoldenPath("pipeline"), place).value();
  AdapterStoreOptions adapters;
  adapters.directory = GoldenPath("adapters/files");
  auto store = AdapterStore::Create(adapters, model->modules(), &metrics->adapters(),
                                    MakeAdapterMemory(place, kAdapterBytes, kAdapterBytes).value())
                   .value();
  auto pipeline = MakeSdxlPipeline(std::move(model), "golden").value();
  EngineOptions options;
  options.batch.apply = policy;
  options.batch.max_batch = 2;
  auto engine = Engine::Create(std::move(options), std::move(pipeline), std::move(store), MakeEmptyFakeStore(),
                               std::make_unique<FakeEmbeddingStore>(), metrics);
  EXPECT_EQ(engine->WarmUp(), absl::OkStatus());
  return engine;
}

ImageRequest Request(std::vector<AdapterRef> adapters, uint64_t seed) {
  ImageRequest request;
  request.prompt = "a castle by the sea";
  request.steps = 3;
  request.seed = seed;
  request.adapters = std::move(adapters);
  return request;
}

// Four requests at once; two share an adapter, and one has an init image.
std::vector<ImageRequest> Requests() {
  ImageRequest from_image = Request({}, 4);
  RgbImage stripes{128, 128,
                   std::vector<uint8_t>(size_t{128} * 128 * 3)};  // norms blow up rounding on one plain colour
  for (size_t i = 0; i < stripes.pixels.size(); ++i) {
    stripes.pixels[i] = static_cast<uint8_t>(i * 5);
  }
  from_image.init_image = EncodeImage(stripes, ImageFormat::kPng, 90, "").value();
  from_image.strength = 0.5;
  return {Request({{"peft_attention", 1.0, {}}}, 1), Request({{"lycoris_loha", 0.7, {}}}, 2),
          Request({{"peft_attention", 1.0, {}}}, 3), from_image};
}

std::vector<RgbImage> ImagesOn(c10::Device device, ApplyPolicy policy) {
  Metrics metrics;
  const std::unique_ptr<Engine> engine = StartEngine(device, policy, &metrics);
  std::vector<std::shared_ptr<RecordingListener>> listeners;
  for (const ImageRequest& request : Requests()) {
    listeners.push_back(std::make_shared<RecordingListener>());
    const auto admission = engine->Submit(request, listeners.back(), [](const Admission&) {});
    EXPECT_TRUE(admission.ok()) << admission.status();
  }
  std::vector<RgbImage> images;
  for (const auto& listener : listeners) {
    EXPECT_EQ(listener->AwaitDone(), absl::OkStatus());
    for (const FinishedImage& image : listener->images()) {
      images.push_back(DecodeImage(image.data).value());
    }
  }
  return images;
}

int LargestDifference(const RgbImage& a, const RgbImage& b) {
  EXPECT_EQ(a.pixels.size(), b.pixels.size());
  int largest = 0;
  for (size_t i = 0; i < std::min(a.pixels.size(), b.pixels.size()); ++i) {
    largest = std::max(largest, std::abs(a.pixels[i] - b.pixels[i]));
  }
  return largest;
}

class SimEngineTest : public ::testing::TestWithParam<ApplyPolicy> {
 protected:
  SimEngineTest() {
    RegisterSimDevice();
    at::set_num_threads(1);
  }
};

TEST_P(SimEngineTest, MakesTheCpusImages) {
  const auto before = SimCountsByThread();
  const std::vector<RgbImage> on_sim = ImagesOn(SimDevice(), GetParam()), on_cpu = ImagesOn(c10::kCPU, GetParam());
  ASSERT_EQ(on_sim.size(), Requests().size());
  ASSERT_EQ(on_cpu.size(), Requests().size());
  for (size_t i = 0; i < on_sim.size(); ++i) {
    EXPECT_LE(LargestDifference(on_sim[i], on_cpu[i]), 2) << i;
  }
  EXPECT_GT(LargestDifference(on_sim[0], on_sim[1]), 10);
  const auto counts = SimCountsByThread();
  for (const char* const thread : {"step", "decode"}) {
    ASSERT_EQ(counts.count(thread), 1u) << thread;
    EXPECT_GT(counts.at(thread).launches, 0) << thread;
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, SimEngineTest, ::testing::Values(ApplyPolicy::kMerged, ApplyPolicy::kSide));

}  // namespace
}  // namespace hotlora
