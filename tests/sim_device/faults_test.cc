// Mistakes that a GPU forgives most of the time, put in at link time (CMakeLists.txt), each caught by a test of its
// own. Every test first shows that the correct code passes its check. A launch without a device guard is in
// merge_kernel_test.cc.

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include <ATen/ATen.h>
#include <c10/core/Stream.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gtest/gtest.h>

#include "src/adapter_format/adapter_file.h"
#include "src/adapter_format/key_map.h"
#include "src/adapters/adapter_weights.h"
#include "src/image/image_encoder.h"
#include "src/nn/linear.h"
#include "tests/fakes/sim_device/sim_device.h"
#include "tests/sim_device/sim_pipeline_fixture.h"

namespace {

// Off but where a test puts them in.
std::atomic<bool> waits_are_left_out{false};
std::atomic<bool> a_layer_computes_on_the_cpu{false};

}  // namespace

extern "C" void __real__ZNK3c106Stream11synchronizeEv(const c10::Stream* self);
extern "C" void __wrap__ZNK3c106Stream11synchronizeEv(const c10::Stream* self) {
  if (!waits_are_left_out) {
    __real__ZNK3c106Stream11synchronizeEv(self);
  }
}

#define LINEAR _ZNK7hotlora6Linear7forwardERKN2at6TensorEN4absl7debian34SpanIKNS_8SideRowsEEE
#define JOIN(a, b) a##b
#define REAL(name) JOIN(__real_, name)
#define WRAP(name) JOIN(__wrap_, name)

extern "C" at::Tensor REAL(LINEAR)(const hotlora::Linear* self, const at::Tensor& x, hotlora::SideBranch side);
extern "C" at::Tensor WRAP(LINEAR)(const hotlora::Linear* self, const at::Tensor& x, hotlora::SideBranch side) {
  return REAL(LINEAR)(self, a_layer_computes_on_the_cpu ? x.cpu() : x, side);
}

namespace hotlora {
namespace {

constexpr auto kType = c10::DeviceType::PrivateUse1;

class Fault {
 public:
  Fault(std::atomic<bool>& fault, bool on) : fault_(fault) { fault_ = on; }
  ~Fault() { fault_ = false; }

 private:
  std::atomic<bool>& fault_;
};

class SimFaultsTest : public SimPipelineTest {
 protected:
  static c10::Stream NewStream() { return c10::impl::VirtualGuardImpl(kType).getNewStream(SimDevice()); }

  void SetUp() override {
    SimPipelineTest::SetUp();
    keys_ = std::make_unique<KeyMap>(KeyMap::Build(model_->modules()).value());
    memory_ = MakeAdapterMemory(TestPlace(), kDeviceBytes, kDeviceBytes).value();
  }

  struct Hosted {
    std::shared_ptr<const AdapterWeights> weights;
    uint64_t bytes;
  };

  // A golden adapter in the host tier.
  Hosted Host(const std::string& name, uint64_t offset) {
    auto file = SafetensorsFile::ReadFile(GoldenPath("adapters/files/" + name + ".safetensors"), uint64_t{1} << 30);
    const ParsedAdapter parsed = ParseAdapter(*std::move(file), *keys_, model_->modules(), {}).value();
    const StagedAdapter staged = memory_->Stage(parsed).value();
    return {std::get<std::shared_ptr<const AdapterWeights>>(staged.lay_out(offset).value()), staged.bytes};
  }

  std::shared_ptr<const AdapterWeights> Upload(const Hosted& hosted, uint64_t offset) {
    return std::get<std::shared_ptr<const AdapterWeights>>(
        memory_->Upload(hosted.weights, offset, hosted.bytes).value());
  }

  void Apply(const std::shared_ptr<const AdapterWeights>& weights, const std::string& hash) {
    AdapterSet set;
    set.adapters.push_back({weights, hash, 1.0, 1.0});
    EXPECT_TRUE(pipeline_->Apply(set, ApplyMode::kMerged).ok());
  }

  // All adaptable weights in one tensor on the CPU.
  at::Tensor LiveWeights() const {
    c10::impl::VirtualGuardImpl(kType).synchronizeDevice(0);
    std::vector<at::Tensor> weights;
    for (const AdaptableWeight& weight : model_->adaptable_weights()) {
      weights.push_back(weight.live.cpu().reshape(-1));
    }
    return at::cat(weights);
  }

  std::unique_ptr<KeyMap> keys_;
  std::unique_ptr<AdapterMemory> memory_;
  const c10::InferenceMode inference_;
};

constexpr uint64_t kElsewhere = uint64_t{32} << 20;

// A step has to return when its work is done: the decode thread takes the latents then.
TEST_F(SimFaultsTest, StepThatDoesNotWait) {
  for (const bool fault : {false, true}) {
    const std::unique_ptr<Row> row = Start(SmallJob(), {}, 7);
    const at::Tensor undisturbed = RowLatentsForTest(*Finish(Start(SmallJob(), {}, 7))).cpu();
    while (!row->done()) {
      const Fault put_in(waits_are_left_out, fault);
      StepOnce(*row);
    }
    const c10::StreamGuard decode(NewStream());
    const at::Tensor seen = RowLatentsForTest(*row).cpu();
    EXPECT_EQ(at::equal(seen, undisturbed), !fault) << "fault: " << fault;
  }
}

// The encode of an init image has to return when its work is done: the step thread takes the latents then, on its own
// stream.
TEST_F(SimFaultsTest, InitImageThatIsNotWaitedFor) {
  ImageRequest request;
  const RgbImage grey{128, 128, std::vector<uint8_t>(size_t{128} * 128 * 3, 99)};
  request.init_image = EncodeImage(grey, ImageFormat::kPng, 90, "").value();
  request.strength = 0.5;
  const ImageJob job = Job(request);
  const auto first_latents = [&](bool fault) {
    std::shared_ptr<const InitLatents> init;
    {
      const Fault put_in(waits_are_left_out, fault);
      init = Init(job);
    }
    auto conditioning = pipeline_->Encode(job.prompts, job.denoise.cfg(), {}, mode_).value();
    const auto row =
        pipeline_->StartRow(job.denoise, 7, std::move(conditioning), {}, std::move(init), nullptr, nullptr).value();
    return RowLatentsForTest(*row).cpu();
  };
  const at::Tensor expected = first_latents(false);
  for (const bool fault : {false, true}) {
    EXPECT_EQ(at::equal(first_latents(fault), expected), !fault) << "fault: " << fault;
  }
}

// The device's place of an adapter is given to another while the merge still reads it.
TEST_F(SimFaultsTest, SlotThatIsReturnedBeforeItsEvent) {
  const Hosted first = Host("kohya_sgm_mixed_ranks_and_alphas", 0), second = Host("peft_attention", kElsewhere);
  for (const bool fault : {false, true}) {
    const std::shared_ptr<const AdapterWeights> elsewhere = Upload(first, kElsewhere);
    Apply(elsewhere, "expected");
    const at::Tensor expected = LiveWeights();
    const std::shared_ptr<const AdapterWeights> slot = Upload(first, 0);
    {
      const Fault put_in(waits_are_left_out, fault);
      Apply(slot, "slot");
    }
    {
      const c10::StreamGuard copies(NewStream());
      Upload(second, 0);
    }
    EXPECT_EQ(at::equal(LiveWeights(), expected), !fault) << "fault: " << fault;
  }
}

// The host's place of an adapter is given to another while it is still being copied to the device.
TEST_F(SimFaultsTest, HostBufferThatIsFreedEarly) {
  const at::Tensor expected = Host("peft_attention", 0).weights->block.clone();
  for (const bool fault : {false, true}) {
    const Hosted first = Host("peft_attention", 0);
    std::shared_ptr<const AdapterWeights> uploaded;
    {
      const Fault put_in(waits_are_left_out, fault);
      uploaded = Upload(first, 0);
    }
    Host("kohya_sgm_mixed_ranks_and_alphas", 0);
    c10::impl::VirtualGuardImpl(kType).synchronizeDevice(0);
    EXPECT_EQ(at::equal(uploaded->block.cpu(), expected), !fault) << "fault: " << fault;
  }
}

TEST_F(SimFaultsTest, CpuTensorThatIsMixedIn) {
  for (const bool fault : {false, true}) {
    const std::unique_ptr<Row> row = Start(SmallJob(), {}, 7);
    const Fault put_in(a_layer_computes_on_the_cpu, fault);
    const absl::Status status = pipeline_->Step(BatchPlan{{row.get()}, mode_});
    EXPECT_EQ(status.ok(), !fault) << status;
  }
}

}  // namespace
}  // namespace hotlora
