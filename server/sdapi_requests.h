#ifndef HOTLORA_SERVER_SDAPI_REQUESTS_H_
#define HOTLORA_SERVER_SDAPI_REQUESTS_H_

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"

#include "server/sdapi_lists.h"
#include "src/base/mutex.h"

namespace hotlora {

// The requests that run or wait, by their caller: what /progress tells and /interrupt ends. Thread-safe.
class SdapiRequests {
 public:
  // The list has the request until its Entry is destroyed. The list must outlive the Entry.
  class Entry {
   public:
    ~Entry() { requests_->Remove(this); }
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

    // `change`: void(SdapiProgress&).
    template <typename Change>
    void Update(Change change) {
      MutexLock lock(&requests_->mu_);
      change(progress_);
    }

   private:
    friend class SdapiRequests;
    Entry(SdapiRequests* requests, std::string caller, SdapiProgress progress, std::function<void()> interrupt)
        : requests_(requests),
          caller_(std::move(caller)),
          progress_(std::move(progress)),
          interrupt_(std::move(interrupt)) {}

    SdapiRequests* const requests_;
    const std::string caller_;
    SdapiProgress progress_;  // guarded by the list's mu_
    const std::function<void()> interrupt_;
  };

  // `interrupt` asks the request to end. It runs without a lock of this list, perhaps after the entry has gone.
  std::unique_ptr<Entry> Add(std::string caller, SdapiProgress progress, std::function<void()> interrupt) {
    std::unique_ptr<Entry> entry(new Entry(this, std::move(caller), std::move(progress), std::move(interrupt)));
    MutexLock lock(&mu_);
    of_[entry->caller_].push_back(entry.get());
    return entry;
  }

  // The caller's requests, the oldest first.
  std::vector<SdapiProgress> ProgressOf(const std::string& caller) const {
    MutexLock lock(&mu_);
    std::vector<SdapiProgress> progress;
    for (const Entry* entry : EntriesOf(caller)) {
      progress.push_back(entry->progress_);
    }
    return progress;
  }

  void Interrupt(const std::string& caller) const {
    std::vector<std::function<void()>> interrupts;
    {
      MutexLock lock(&mu_);
      for (const Entry* entry : EntriesOf(caller)) {
        interrupts.push_back(entry->interrupt_);
      }
    }
    for (const auto& interrupt : interrupts) {
      interrupt();
    }
  }

 private:
  std::vector<Entry*> EntriesOf(const std::string& caller) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const auto found = of_.find(caller);
    return found == of_.end() ? std::vector<Entry*>() : found->second;
  }

  void Remove(Entry* entry) {
    MutexLock lock(&mu_);
    const auto own = of_.find(entry->caller_);
    own->second.erase(std::find(own->second.begin(), own->second.end(), entry));
    if (own->second.empty()) {
      of_.erase(own);
    }
  }

  mutable Mutex mu_;
  std::map<std::string, std::vector<Entry*>> of_ ABSL_GUARDED_BY(mu_);  // callers without a request are not in it
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_SDAPI_REQUESTS_H_
