#ifndef HOTLORA_TESTS_ADAPTERS_FAKE_WEIGHTS_H_
#define HOTLORA_TESTS_ADAPTERS_FAKE_WEIGHTS_H_

#include <atomic>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

#include "src/adapter_format/adapter_file.h"
#include "src/adapters/adapter_memory.h"
#include "src/base/status_macros.h"
#include "tests/adapter_format/safetensors_writer.h"

namespace hotlora {

inline constexpr char kModule[] = "lora_unet_input_blocks_4_1_proj_in";  // [32, 32]
inline constexpr uint64_t kBytesPerRank = 2 * 32 * 4;

// A LoRA of one module, of kBytesPerRank * rank bytes.
inline SafetensorsWriter Adapter(int64_t rank, float value = 0.5f) {
  SafetensorsWriter writer;
  writer.Add(absl::StrCat(kModule, ".lora_down.weight"), {rank, 32}, value);
  writer.Add(absl::StrCat(kModule, ".lora_up.weight"), {32, rank}, value);
  return writer;
}

// Stands for the tensors in both tiers: counts those that live, and can keep a read from ending.
class FakeWeights {
 public:
  // Memory for one store; this object outlives it, and all leases.
  std::unique_ptr<AdapterMemory> Memory(uint64_t host_bytes, uint64_t device_bytes) {
    return std::make_unique<FakeMemory>(this, host_bytes, device_bytes);
  }

  void Hold(bool held) {
    absl::MutexLock lock(&mu_);
    held_ = held;
  }
  void FailWith(absl::Status failure) {
    absl::MutexLock lock(&mu_);
    failure_ = std::move(failure);
  }
  int made() const { return made_.load(); }
  int64_t live_bytes() const { return host_.live_bytes(); }
  int uploads() const { return device_.used(); }
  int64_t device_bytes() const { return device_.live_bytes(); }
  // Blocks put onto what still lives in a storage, or beyond its end.
  int faults() const { return host_.faults() + device_.faults(); }

 private:
  using Weights = std::shared_ptr<const AdapterWeights>;

  class FakeMemory : public AdapterMemory {
   public:
    FakeMemory(FakeWeights* fake, uint64_t host_bytes, uint64_t device_bytes)
        : fake_(fake), host_bytes_(host_bytes), device_bytes_(device_bytes) {}
    uint64_t host_bytes() const override { return host_bytes_; }
    uint64_t device_bytes() const override { return device_bytes_; }
    absl::StatusOr<StagedAdapter> Stage(const ParsedAdapter& parsed) override {
      return StagedAdapter{parsed.tensor_bytes,
                           [this, bytes = parsed.tensor_bytes](uint64_t offset) -> absl::StatusOr<HeldWeights> {
                             ABSL_RETURN_IF_ERROR(fake_->BeginLayOut());
                             return fake_->host_.Use(offset, bytes, host_bytes_);
                           }};
    }
    absl::StatusOr<HeldWeights> Upload(const HeldWeights&, uint64_t offset, uint64_t bytes) override {
      return fake_->device_.Use(offset, bytes, device_bytes_);
    }

   private:
    FakeWeights* const fake_;
    const uint64_t host_bytes_;
    const uint64_t device_bytes_;
  };

  // A storage whose blocks must not overlap.
  class Storage {
   public:
    Weights Use(uint64_t offset, uint64_t bytes, uint64_t capacity) {
      absl::MutexLock lock(&mu_);
      const auto next = blocks_.lower_bound(offset);
      const bool free = (next == blocks_.end() || offset + bytes <= next->first) &&
                        (next == blocks_.begin() || std::prev(next)->first + std::prev(next)->second <= offset);
      faults_ += free && offset + bytes <= capacity ? 0 : 1;
      ++used_;
      blocks_[offset] = bytes;
      std::shared_ptr<void> owner(nullptr, [this, offset](void*) {
        absl::MutexLock unlock(&mu_);
        blocks_.erase(offset);
      });
      return Weights(std::move(owner), nullptr);
    }
    int64_t live_bytes() const {
      absl::MutexLock lock(&mu_);
      int64_t sum = 0;
      for (const auto& [offset, bytes] : blocks_) {
        sum += static_cast<int64_t>(bytes);
      }
      return sum;
    }
    int used() const {
      absl::MutexLock lock(&mu_);
      return used_;
    }
    int faults() const {
      absl::MutexLock lock(&mu_);
      return faults_;
    }

   private:
    mutable absl::Mutex mu_;
    std::map<uint64_t, uint64_t> blocks_ ABSL_GUARDED_BY(mu_);  // bytes by offset
    int used_ ABSL_GUARDED_BY(mu_) = 0, faults_ ABSL_GUARDED_BY(mu_) = 0;
  };

  absl::Status BeginLayOut() {
    made_.fetch_add(1);
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(
        +[](bool* held) { return !*held; }, &held_));
    return failure_;
  }

  absl::Mutex mu_;
  bool held_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mu_);
  std::atomic<int> made_{0};
  Storage host_, device_;
};

}  // namespace hotlora

#endif  // HOTLORA_TESTS_ADAPTERS_FAKE_WEIGHTS_H_
