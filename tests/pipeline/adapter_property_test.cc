// Random sets of random adapters of every format: what is applied equals the formulas in float64, fingerprints change
// with what changes the weights and with nothing else, and the base comes back to the byte.

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "src/adapter_format/adapter_file.h"
#include "src/adapter_format/key_map.h"
#include "src/adapters/adapter_weights.h"
#include "tests/pipeline/pipeline_fixture.h"
#include "tests/pipeline/random_adapter.h"
#include "tests/sdxl/weight_checksum.h"

namespace hotlora {
namespace {

// An adapter with how a request uses it.
struct Use {
  const RandomAdapter* adapter;
  WeightedAdapter weighted;
  std::vector<std::string> targets;
};

class AdapterPropertyTest : public PipelineFixture {
 protected:
  void SetUp() override {
    PipelineFixture::SetUp();
    keys_ = std::make_unique<KeyMap>(KeyMap::Build(table()).value());
    // Few enough that adapters of one set meet.
    for (size_t entry = 0; entry < table().modules.size(); ++entry) {
      if (!table().modules[entry].is_bias) {
        modules_.push_back(entry);
      }
    }
    std::shuffle(modules_.begin(), modules_.end(), random_);
  }

  const ModuleTable& table() const { return model_->modules(); }
  std::string Live() { return LiveWeightsChecksum(model_->adaptable_weights()); }

  SwapReport Bring(const AdapterSet& set) {
    const absl::StatusOr<SwapReport> report = pipeline_->Apply(set, ApplyMode::kMerged);
    EXPECT_TRUE(report.ok()) << report.status();
    return report.ok() ? *report : SwapReport();
  }

  // Reads the adapter's file as a server does.
  Use Read(const RandomAdapter& adapter, double weight, double text_weight) {
    const absl::StatusOr<ParsedAdapter> parsed =
        ParseAdapter(adapter.file.Parse(), *keys_, table(), AdapterFileOptions());
    EXPECT_TRUE(parsed.ok()) << parsed.status() << " in" << adapter.formats;
    const auto memory = MakeAdapterMemory(TestPlace(), uint64_t{64} << 20, 0).value();
    const auto laid_out =
        std::get<std::shared_ptr<const AdapterWeights>>(memory->Stage(*parsed).value().lay_out(0).value());
    return {&adapter, {laid_out, ContentHash(parsed->file, std::nullopt), weight, text_weight}, parsed->targets};
  }

  static AdapterSet SetOf(const std::vector<Use>& uses) {
    AdapterSet set;
    for (const Use& use : uses) {
      set.Add(use.weighted, use.targets);
    }
    return set;
  }

  double RandomWeight() {
    return random_() % 5 == 0 ? 0.0 : std::uniform_real_distribution<double>(-1.5, 1.5)(random_);
  }

  std::vector<RandomAdapter> RandomAdapters() {
    // From a window of the modules, other ones each time.
    std::rotate(modules_.begin(), modules_.begin() + 5, modules_.end());
    const std::vector<size_t> window(modules_.begin(), modules_.begin() + 8);
    std::vector<RandomAdapter> adapters;
    for (size_t count = 1 + random_() % 3; adapters.size() < count;) {
      adapters.push_back(MakeRandomAdapter(table(), window, 1 + random_() % 6, random_));
    }
    return adapters;
  }

  // The weight of one entry under the set, in float64, and how large the numbers on the way to it were.
  std::pair<at::Tensor, double> Expected(size_t entry, const std::vector<Use>& uses) {
    at::Tensor weight = model_->adaptable_weights()[entry].clean.to(at::kCPU, at::kDouble);
    double largest = weight.abs().max().item<double>();
    for (const Use& use : uses) {
      const auto map = use.adapter->maps.find(entry);
      const bool unet = table().modules[entry].component == Component::kUnet;
      const double factor = unet ? use.weighted.weight : use.weighted.text_encoder_weight;
      if (map != use.adapter->maps.end() && factor != 0.0) {
        // What the whole change adds and DoRA then scales down counts too.
        const at::Tensor whole = map->second(weight, 1.0, /*interpolated=*/true);
        weight = map->second(weight, factor, dora_ == DoraWeighting::kInterpolated);
        largest = std::max({largest, weight.abs().max().item<double>(), whole.abs().max().item<double>()});
      }
    }
    return {weight, largest};
  }

  void ExpectWeights(const std::vector<Use>& uses) {
    for (size_t entry = 0; entry < table().modules.size(); ++entry) {
      const AdaptableWeight& weight = model_->adaptable_weights()[entry];
      const auto [expected, largest] = Expected(entry, uses);
      const double error =
          (weight.live.to(at::kCPU, at::kDouble).reshape(expected.sizes()) - expected).abs().max().item<double>();
      std::string formats;
      for (const Use& use : uses) {
        formats += use.adapter->formats + ";";
      }
      ASSERT_LE(error, 2e-5 * largest) << table().modules[entry].path << (table().modules[entry].is_bias ? ".bias" : "")
                                       << " under" << formats << " whose numbers reach " << largest;
    }
  }

  std::mt19937_64 random_{20261125};
  std::vector<size_t> modules_;
  std::unique_ptr<KeyMap> keys_;
};

class InterpolatedAdapterPropertyTest : public AdapterPropertyTest {
 protected:
  InterpolatedAdapterPropertyTest() { dora_ = DoraWeighting::kInterpolated; }
};

constexpr int kRounds = 60;

TEST_F(AdapterPropertyTest, AppliedWeightsAreTheFormulas) {
  const std::string base = Live(), clean = CleanWeightsChecksum(model_->adaptable_weights());
  std::string all_formats;
  for (int round = 0; round < kRounds && !HasFatalFailure(); ++round) {
    const std::vector<RandomAdapter> adapters = RandomAdapters();
    std::vector<Use> uses;
    for (const RandomAdapter& adapter : adapters) {
      uses.push_back(Read(adapter, RandomWeight(), RandomWeight()));
      all_formats += adapter.formats;
    }
    Bring(SetOf(uses));
    ExpectWeights(uses);
    if (round % 4 == 3) {  // else the next set follows this one directly
      Bring({});
      EXPECT_EQ(Live(), base) << "after round " << round;
    }
  }
  Bring({});
  EXPECT_EQ(Live(), base);
  EXPECT_EQ(CleanWeightsChecksum(model_->adaptable_weights()), clean);
  for (const char* const format : {"lora", "loha", "lokr", "glora", "oft", "full", "norm", "+dora(in)", "+dora(out)"}) {
    EXPECT_NE(all_formats.find(format), std::string::npos) << format << " never came up";
  }
}

TEST_F(InterpolatedAdapterPropertyTest, AppliedWeightsAreTheFormulas) {
  for (int round = 0; round < kRounds / 2 && !HasFatalFailure(); ++round) {
    const std::vector<RandomAdapter> adapters = RandomAdapters();
    std::vector<Use> uses;
    for (const RandomAdapter& adapter : adapters) {
      uses.push_back(Read(adapter, RandomWeight(), RandomWeight()));
    }
    Bring(SetOf(uses));
    ExpectWeights(uses);
  }
}

TEST_F(AdapterPropertyTest, FingerprintsAreOfWhatChangesTheWeights) {
  for (int round = 0; round < kRounds && !HasFatalFailure(); ++round) {
    const std::vector<RandomAdapter> adapters = RandomAdapters();
    std::vector<Use> uses;
    for (const RandomAdapter& adapter : adapters) {
      uses.push_back(Read(adapter, 0.25 + 0.125 * static_cast<double>(random_() % 8), -0.5));
    }
    const std::string fingerprint = SetOf(uses).Fingerprint();
    Bring(SetOf(uses));
    const std::string live = Live();

    // What changes nothing: reading again, an adapter of weight 0 (or -0), a weight on what the adapter leaves alone.
    std::vector<Use> same;
    for (size_t i = 0; i < uses.size(); ++i) {
      Use again = Read(adapters[i], uses[i].weighted.weight, uses[i].weighted.text_encoder_weight);
      if (!adapters[i].of_text) {
        again.weighted.text_encoder_weight = RandomWeight();
      }
      if (!adapters[i].of_unet) {
        again.weighted.weight = RandomWeight();
      }
      same.push_back(again);
      const RandomAdapter& absent = adapters[random_() % adapters.size()];
      same.push_back(Read(absent, 0.0, -0.0));
    }
    EXPECT_EQ(SetOf(same).Fingerprint(), fingerprint);
    const SwapReport report = Bring(SetOf(same));
    EXPECT_FALSE(report.changed);
    EXPECT_EQ(report.modules_merged + report.modules_restored, 0u);
    EXPECT_EQ(Live(), live);

    // What changes the weights: another weight, one value of a file, an adapter less.
    std::vector<Use> other = uses;
    Use& use = other[random_() % other.size()];
    double& weight = use.adapter->of_unet ? use.weighted.weight : use.weighted.text_encoder_weight;
    weight = std::nextafter(weight, 10.0);
    EXPECT_NE(SetOf(other).Fingerprint(), fingerprint);
    weight += 0.5;
    Bring(SetOf(other));
    EXPECT_NE(Live(), live);
    other = uses;
    other.pop_back();
    EXPECT_NE(SetOf(other).Fingerprint(), fingerprint);
    std::mt19937_64 random_of_another(random_());
    const RandomAdapter another = MakeRandomAdapter(table(), modules_, 1, random_of_another);
    other.push_back(Read(another, 1.0, 1.0));
    EXPECT_NE(SetOf(other).Fingerprint(), fingerprint);

    // The same set after others is the same weights.
    Bring(SetOf(uses));
    EXPECT_EQ(Live(), live);
    if (uses.size() > 1) {
      std::vector<Use> turned(uses.rbegin(), uses.rend());
      EXPECT_NE(SetOf(turned).Fingerprint(), fingerprint) << "order counts: DoRA, GLoRA and OFT map what came before";
      Bring(SetOf(turned));
      ExpectWeights(turned);
    }
  }
}

}  // namespace
}  // namespace hotlora
