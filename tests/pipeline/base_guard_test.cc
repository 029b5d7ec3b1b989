#include "src/pipeline/base_guard.h"

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "tests/pipeline/pipeline_fixture.h"
#include "tests/sdxl/weight_checksum.h"
#include "tests/temporary_folder.h"

namespace hotlora {
namespace {

constexpr char kAdapter[] = "kohya_text_encoders_and_unet";

// The checkpoint is a copy of its own, which a test may spoil.
class BaseGuardTest : public PipelineFixture {
 protected:
  BaseGuardTest() {
    std::filesystem::copy(GoldenPath("pipeline"), folder_.Under("model"), std::filesystem::copy_options::recursive);
    base_.checkpoint = CheckpointSource(folder_.Under("model"));
  }

  // What cosmic rays do: one bit of a weight that stays in memory.
  static void FlipOneBit(at::Tensor tensor) {
    c10::InferenceMode guard;  // weights are inference tensors
    const at::Tensor bytes = tensor.cpu().contiguous().clone();
    static_cast<std::byte*>(bytes.mutable_data_ptr())[bytes.nbytes() / 2] ^= std::byte{4};
    tensor.copy_(bytes);
  }
  at::Tensor Clean(size_t module) const { return model_->adaptable_weights()[module].clean; }
  at::Tensor Live(size_t module) const { return model_->adaptable_weights()[module].live; }

  // What a round of all modules finds, from the first on.
  BaseReport Round() {
    BaseReport all;
    for (uint32_t i = 0; i < pipeline_->module_count(); ++i) {
      const absl::StatusOr<BaseReport> check = pipeline_->VerifyNextModule();
      EXPECT_TRUE(check.ok()) << check.status();
      all.modules_checked += check->modules_checked;
      all.mismatches += check->mismatches;
      all.repaired += check->repaired;
      all.intact = all.intact && check->intact;
    }
    return all;
  }
  std::string CleanChecksum() const { return CleanWeightsChecksum(model_->adaptable_weights()); }
  std::string LiveChecksum() const { return LiveWeightsChecksum(model_->adaptable_weights()); }
  at::Tensor Latents(const AdapterSet& set) {
    ImageRequest request;
    request.prompt = "a red square";
    request.width = request.height = 64;
    request.steps = 2;
    return RowLatentsForTest(*Finish(Start(Job(request), set, 7))).cpu();
  }

  const TemporaryFolder folder_;
};

TEST_F(BaseGuardTest, AFlippedBitIsFoundAndMadeGood) {
  const std::string clean = CleanChecksum(), live = LiveChecksum();
  EXPECT_EQ(Round().mismatches, 0u) << "the negative control: nothing is wrong yet";
  const size_t last = pipeline_->module_count() - 1;
  FlipOneBit(Clean(0));
  FlipOneBit(Clean(last));
  EXPECT_NE(CleanChecksum(), clean);
  const BaseReport check = Round();
  EXPECT_EQ(check.modules_checked, pipeline_->module_count());
  EXPECT_EQ(check.mismatches, 1u) << "the second is made good with the first";
  EXPECT_EQ(check.repaired, 2u);
  EXPECT_TRUE(check.intact);
  EXPECT_EQ(CleanChecksum(), clean);
  EXPECT_EQ(Round().mismatches, 0u);
  ASSERT_TRUE(pipeline_->Apply({}, ApplyMode::kMerged).ok());
  EXPECT_EQ(LiveChecksum(), live);
}

TEST_F(BaseGuardTest, ALiveWeightThatDiffersIsRebuiltBeforeItIsUsed) {
  const at::Tensor before = Latents({});
  FlipOneBit(Live(3));
  const BaseReport check = Round();
  EXPECT_EQ(check.mismatches, 1u);
  EXPECT_TRUE(check.intact);
  EXPECT_TRUE(at::equal(Latents({}), before));
}

TEST_F(BaseGuardTest, AnAdapterInEffectIsNoMismatchAndItsBaseIsMadeGoodBeneathIt) {
  const AdapterSet set = Set({{kAdapter, 0.8}});
  const at::Tensor before = Latents(set);
  EXPECT_EQ(Round().mismatches, 0u);
  FlipOneBit(Clean(0));
  EXPECT_TRUE(Round().intact);
  EXPECT_TRUE(at::equal(Latents(set), before));
}

TEST_F(BaseGuardTest, AChangedCheckpointCannotMakeItGoodUntilItIsBack) {
  FlipOneBit(Clean(0));
  const std::string file = folder_.Under("model/text_encoder/model.safetensors");
  std::filesystem::rename(file, file + ".away");
  BaseReport check = Round();
  EXPECT_EQ(check.mismatches, 1u);
  EXPECT_EQ(check.repaired, 0u);
  EXPECT_FALSE(check.intact);
  // Another file of the same shapes.
  std::filesystem::copy_file(file + ".away", file);
  {
    std::fstream other(file, std::ios::in | std::ios::out | std::ios::binary);
    uint64_t header = 0;
    other.read(reinterpret_cast<char*>(&header), sizeof(header));
    other.seekp(static_cast<std::streamoff>(sizeof(header) + header));
    const std::string zeros(std::filesystem::file_size(file) - sizeof(header) - header, '\0');
    other.write(zeros.data(), static_cast<std::streamsize>(zeros.size()));
  }
  check = Round();
  EXPECT_EQ(check.mismatches, 1u);
  EXPECT_FALSE(check.intact);
  std::filesystem::rename(file + ".away", file);
  EXPECT_TRUE(Round().intact);
  EXPECT_EQ(Round().mismatches, 0u);
}

TEST_F(BaseGuardTest, TheMemoryPlanIsWhatTheWeightsTake) {
  uint64_t clean = 0, planned = 0;
  for (const AdaptableWeight& weight : model_->adaptable_weights()) {
    clean += weight.clean.nbytes();
  }
  for (const MemoryArea& area : pipeline_->memory()) {
    EXPECT_GT(area.bytes, 0u) << area.what;
    planned += area.what == "clean weights of adaptable modules" ? area.bytes : 0;
  }
  EXPECT_EQ(planned, clean);
}

class BaseAdapterTest : public BaseGuardTest {
 protected:
  BaseAdapterTest() {
    base_.adapters = [this]() -> absl::StatusOr<AdapterSet> {
      return with_adapter_ ? Set({{kAdapter, 0.8}}) : AdapterSet();
    };
  }
  bool with_adapter_ = true;
};

TEST_F(BaseAdapterTest, IsWhatEachRequestWithItWouldGetAndTheModelsHashTells) {
  const at::Tensor merged = Latents({});
  const std::string hash = pipeline_->info().sha256;
  EXPECT_NE(hash, model_->sha256());
  EXPECT_EQ(hash.size(), 64u);
  base_ = BaseSource{base_.checkpoint, nullptr};
  SetUp();
  EXPECT_EQ(pipeline_->info().sha256, model_->sha256());
  // The base is kept in the checkpoint's stored dtype, float16, so a base adapter is rounded to that.
  constexpr double kRounding = 0.01;
  ExpectWithin(Latents(Set({{kAdapter, 0.8}})), merged, kRounding,
               "base adapter against the same adapter of a request");
  const double effect = (Latents({}) - merged).abs().max().item<double>();
  EXPECT_GT(effect, 10 * kRounding) << "the negative control: it changes something";
}

TEST_F(BaseAdapterTest, IsMergedAgainWhenTheBaseIsMadeGood) {
  const std::string clean = CleanChecksum();
  const size_t touched = Set({{kAdapter, 0.8}}).adapters.front().weights->deltas.front().module;
  FlipOneBit(Clean(touched));
  with_adapter_ = false;  // its file was replaced, say
  EXPECT_FALSE(Round().intact);
  with_adapter_ = true;
  EXPECT_TRUE(Round().intact);
  EXPECT_EQ(CleanChecksum(), clean);
}

}  // namespace
}  // namespace hotlora
