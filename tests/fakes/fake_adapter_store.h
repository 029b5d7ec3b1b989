#ifndef HOTLORA_TESTS_FAKES_FAKE_ADAPTER_STORE_H_
#define HOTLORA_TESTS_FAKES_FAKE_ADAPTER_STORE_H_

// An adapter store without files: it has the adapters it is told of, counts leases, and can be held while it loads.

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

#include "src/adapters/adapter_store.h"
#include "src/adapters/stored_kind.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/status_macros.h"

namespace hotlora {

class FakeAdapterStore : public AdapterStore {
 public:
  static constexpr char kControlNet[] = "controlnet", kImagePrompt[] = "ip_adapter", kImageEncoder[] = "clip_vision";

  // What outlives the store, which the engine owns.
  struct Levers {
    absl::Mutex mu;
    std::map<std::string, AdapterInfo> adapters ABSL_GUARDED_BY(mu);
    bool hold_loads ABSL_GUARDED_BY(mu) = false;  // of those that are not resident
    std::set<std::string> resident ABSL_GUARDED_BY(mu);
    uint32_t loads_held ABSL_GUARDED_BY(mu) = 0;
    int leases ABSL_GUARDED_BY(mu) = 0;
    MiddleSquare encoder_sees ABSL_GUARDED_BY(mu) = {16, 16};
    int most_leases ABSL_GUARDED_BY(mu) = 1000;  // beyond which a set waits
    int waits ABSL_GUARDED_BY(mu) = 0;           // sets that had to wait

    void Add(const std::string& name) {
      absl::MutexLock lock(&mu);
      AdapterInfo info;
      info.name = name;
      info.bytes = 100;
      info.content_sha256 = std::string(64, name[0]);
      info.targets = {"text_encoder", "unet"};
      adapters[name] = info;
    }
    // A net of so many control types; 0: of one kind.
    void AddControl(const std::string& name, uint32_t types = 0) {
      Add(name);
      absl::MutexLock lock(&mu);
      adapters[name].format = kControlNet;
      adapters[name].control_types = types;
    }
    // An image prompt of that name, which takes a projection_dim of 20; then the encoder that gives as much.
    void AddImagePrompt(const std::string& name, int64_t projection_dim = 20) {
      const std::string key = absl::StrCat(kImagePromptKind.prefix, name);
      Add(key);
      absl::MutexLock lock(&mu);
      adapters[key].format = kImagePrompt;
      adapters[key].encoder.projection_dim = projection_dim;
    }
    // Until it was loaded or lent, what it sees of pictures is not known, as that of a file that was never read.
    void AddImageEncoder() {
      Add(kImageEncoderKey);
      absl::MutexLock lock(&mu);
      adapters[kImageEncoderKey].format = kImageEncoder;
      adapters[kImageEncoderKey].encoder = {32, 20, {}};
    }
    int Leases() {
      absl::MutexLock lock(&mu);
      return leases;
    }
    void Hold() {
      absl::MutexLock lock(&mu);
      hold_loads = true;
    }
    void AwaitHeld() {
      absl::MutexLock lock(&mu);
      mu.Await(absl::Condition(
          +[](Levers* l) ABSL_NO_THREAD_SAFETY_ANALYSIS { return l->loads_held > 0; }, this));
    }
    void LetGo() {
      absl::MutexLock lock(&mu);
      hold_loads = false;
    }
  };

  explicit FakeAdapterStore(std::shared_ptr<Levers> levers) : levers_(std::move(levers)) {}

  absl::StatusOr<std::unique_ptr<AdapterLease>> Acquire(absl::string_view name) override {
    absl::MutexLock lock(&levers_->mu);
    if (levers_->resident.count(std::string(name)) == 0) {
      ++levers_->loads_held;
      levers_->mu.Await(absl::Condition(
          +[](Levers* l) ABSL_NO_THREAD_SAFETY_ANALYSIS { return !l->hold_loads; }, levers_.get()));
      --levers_->loads_held;
    }
    const auto found = levers_->adapters.find(std::string(name));
    if (found == levers_->adapters.end()) {
      return Missing(name);
    }
    Read(*found);
    found->second.tier = AdapterTier::kHost;
    ++levers_->leases;
    return std::make_unique<FakeLease>(levers_, found->second);
  }

  absl::StatusOr<std::vector<std::unique_ptr<AdapterLease>>> AcquireAll(
      absl::Span<const std::string> names, absl::FunctionRef<absl::Status()> wanted) override {
    {
      absl::MutexLock lock(&levers_->mu);
      if (levers_->leases + static_cast<int>(names.size()) > levers_->most_leases) {
        ++levers_->waits;
        return MakeError(absl::StatusCode::kResourceExhausted, "ADAPTERS_IN_USE", "no room now");
      }
    }
    std::vector<std::unique_ptr<AdapterLease>> leases;
    for (const std::string& name : names) {
      ABSL_RETURN_IF_ERROR(wanted());
      ABSL_ASSIGN_OR_RETURN(std::unique_ptr<AdapterLease> lease, Acquire(name));
      leases.push_back(std::move(lease));
    }
    return leases;
  }

  bool NeedsRead(absl::string_view name) override {
    absl::MutexLock lock(&levers_->mu);
    return levers_->resident.count(std::string(name)) == 0;
  }

  absl::StatusOr<AdapterInfo> Load(absl::string_view name, AdapterTier tier, bool pin) override {
    return Change(name, tier, pin);
  }
  absl::StatusOr<AdapterInfo> Unload(absl::string_view name) override {
    return Change(name, AdapterTier::kDisk, false);
  }

  absl::StatusOr<std::unique_ptr<AdapterUpload>> BeginUpload(UploadHeader) override {
    return absl::UnimplementedError("no uploads into the fake store");
  }
  absl::Status Delete(absl::string_view name) override {
    absl::MutexLock lock(&levers_->mu);
    return levers_->adapters.erase(std::string(name)) == 0 ? Missing(name) : absl::OkStatus();
  }

  absl::StatusOr<AdapterInfo> Get(absl::string_view name) const override {
    absl::MutexLock lock(&levers_->mu);
    const auto found = levers_->adapters.find(std::string(name));
    return found == levers_->adapters.end() ? absl::StatusOr<AdapterInfo>(Missing(name)) : found->second;
  }

  absl::StatusOr<std::vector<AdapterInfo>> List(absl::string_view after, size_t limit) const override {
    absl::MutexLock lock(&levers_->mu);
    std::vector<AdapterInfo> infos;
    for (auto it = levers_->adapters.upper_bound(std::string(after)); it != levers_->adapters.end(); ++it) {
      if (infos.size() == limit) {
        break;
      }
      infos.push_back(it->second);
    }
    return infos;
  }

  AdapterStoreStatistics Statistics() const override { return {}; }

 private:
  struct FakeLease : AdapterLease {
    FakeLease(std::shared_ptr<Levers> l, AdapterInfo i) : levers(std::move(l)), adapter(std::move(i)) {}
    ~FakeLease() override {
      absl::MutexLock lock(&levers->mu);
      --levers->leases;
    }
    const AdapterInfo& info() const override { return adapter; }
    HeldWeights held() const override {
      return adapter.format == kControlNet     ? HeldWeights(std::shared_ptr<const PlacedControlNet>())
             : adapter.format == kImagePrompt  ? HeldWeights(std::shared_ptr<const PlacedImagePrompt>())
             : adapter.format == kImageEncoder ? HeldWeights(std::shared_ptr<const PlacedImageEncoder>())
                                               : HeldWeights(std::shared_ptr<const AdapterWeights>());
    }
    const AcquireReport& report() const override { return acquired; }

    std::shared_ptr<Levers> levers;
    AdapterInfo adapter;
    AcquireReport acquired;
  };

  static absl::Status Missing(absl::string_view name) {
    if (name == kImageEncoderKey) {
      return MakeError(absl::StatusCode::kNotFound, error_reason::kNoImageEncoder, "no image encoder");
    }
    return MakeError(absl::StatusCode::kNotFound, "ADAPTER_NOT_FOUND", absl::StrCat("no adapter \"", name, "\""));
  }

  void Read(std::pair<const std::string, AdapterInfo>& adapter) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(levers_->mu) {
    if (adapter.first == kImageEncoderKey) {
      adapter.second.encoder.square = levers_->encoder_sees;
    }
  }

  absl::StatusOr<AdapterInfo> Change(absl::string_view name, AdapterTier tier, bool pin) {
    absl::MutexLock lock(&levers_->mu);
    const auto found = levers_->adapters.find(std::string(name));
    if (found == levers_->adapters.end()) {
      return Missing(name);
    }
    Read(*found);
    found->second.tier = tier;
    found->second.pinned = pin;
    return found->second;
  }

  std::shared_ptr<Levers> levers_;
};

// A store that has nothing, for tests that need no ControlNets.
inline std::unique_ptr<AdapterStore> MakeEmptyFakeStore() {
  return std::make_unique<FakeAdapterStore>(std::make_shared<FakeAdapterStore::Levers>());
}

}  // namespace hotlora

#endif  // HOTLORA_TESTS_FAKES_FAKE_ADAPTER_STORE_H_
