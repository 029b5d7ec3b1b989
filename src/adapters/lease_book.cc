#include "src/adapters/lease_book.h"

#include <utility>
#include <variant>

#include "src/base/mutex.h"

namespace hotlora {

class LeaseBook::Lease : public AdapterLease {
 public:
  Lease(std::shared_ptr<LeaseBook> book, Residence residence, const AcquireReport& report)
      : book_(std::move(book)), residence_(std::move(residence)), info_(residence_.use()->info), report_(report) {
    info_.in_use = book_->Take(info_.name);
  }
  ~Lease() override {
    residence_ = {};
    book_->Return(info_.name);
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  const AdapterInfo& info() const override { return info_; }

  HeldWeights held() const override {
    return std::visit([this](const auto& weights) -> HeldWeights { return Share(weights); }, residence_.use()->weights);
  }

  const AcquireReport& report() const override { return report_; }

 private:
  // Shares ownership of the resident version, not of the tensors alone: while the result exists, its bytes count as
  // taken, and its range of the device's storage is not given to another adapter.
  template <typename Weights>
  std::shared_ptr<const Weights> Share(const std::shared_ptr<const Weights>& weights) const {
    return std::shared_ptr<const Weights>(residence_.use(), weights.get());
  }

  const std::shared_ptr<LeaseBook> book_;
  Residence residence_;
  AdapterInfo info_;
  const AcquireReport report_;
};

std::unique_ptr<AdapterLease> LeaseBook::Lend(Residence residence, const AcquireReport& report) {
  return std::make_unique<Lease>(shared_from_this(), std::move(residence), report);
}

uint32_t LeaseBook::Count(absl::string_view name) const {
  MutexLock lock(&mu_);
  const auto count = counts_.find(name);
  return count == counts_.end() ? 0 : count->second;
}

bool LeaseBook::empty() const {
  MutexLock lock(&mu_);
  return counts_.empty();
}

uint32_t LeaseBook::Take(const std::string& name) {
  MutexLock lock(&mu_);
  metrics_->AddRefs(1);
  return ++counts_[name];
}

void LeaseBook::Return(const std::string& name) {
  MutexLock lock(&mu_);
  metrics_->AddRefs(-1);
  if (const auto count = counts_.find(name); --count->second == 0) {
    counts_.erase(count);
  }
}

}  // namespace hotlora
