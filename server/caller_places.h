#ifndef HOTLORA_SERVER_CALLER_PLACES_H_
#define HOTLORA_SERVER_CALLER_PLACES_H_

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace hotlora {

// Places for work of one kind: so many in all, and so many for each caller. Thread-safe.
class CallerPlaces {
 public:
  CallerPlaces(int most, int most_of_one) : most_(most), most_of_one_(most_of_one) {}

  // One place, until it is destroyed. It must not outlive the others.
  class Place {
   public:
    Place(CallerPlaces* places, std::string caller) : places_(places), caller_(std::move(caller)) {}
    ~Place() { places_->Leave(caller_); }
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;

   private:
    CallerPlaces* const places_;
    const std::string caller_;
  };

  int most() const { return most_; }
  int most_of_one() const { return most_of_one_; }

  // Null if all places are taken, or the caller has as many as it may.
  std::unique_ptr<Place> Enter(const std::string& caller) {
    std::lock_guard<std::mutex> lock(mu_);
    const auto own = taken_by_.try_emplace(caller, 0).first;
    if (taken_ >= most_ || own->second >= most_of_one_) {
      if (own->second == 0) {
        taken_by_.erase(own);
      }
      return nullptr;
    }
    ++own->second;
    ++taken_;
    return std::make_unique<Place>(this, caller);
  }

 private:
  void Leave(const std::string& caller) {
    std::lock_guard<std::mutex> lock(mu_);
    --taken_;
    const auto own = taken_by_.find(caller);
    if (--own->second == 0) {
      taken_by_.erase(own);
    }
  }

  const int most_;
  const int most_of_one_;
  std::mutex mu_;
  int taken_ = 0;                        // guarded by mu_
  std::map<std::string, int> taken_by_;  // guarded by mu_; callers without a place are not in it
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_CALLER_PLACES_H_
