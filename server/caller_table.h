#ifndef HOTLORA_SERVER_CALLER_TABLE_H_
#define HOTLORA_SERVER_CALLER_TABLE_H_

#include <cstddef>
#include <iterator>
#include <string>
#include <unordered_map>

namespace hotlora {

// One value for each caller, for a bounded number of callers: those beyond it share one value. So the
// memory is bounded, however many callers there are. Not thread-safe.
template <typename Value>
class CallerTable {
 public:
  // `most`: callers with a value of their own.
  explicit CallerTable(size_t most) : most_(most) {}

  // The caller's value, a new one at its first call; or the shared one.
  Value& Of(const std::string& caller) {
    const auto found = own_.find(caller);
    if (found != own_.end()) {
      return found->second;
    }
    return full() ? shared_ : own_[caller];
  }

  // Null if the caller has no value of its own.
  const Value* Find(const std::string& caller) const {
    const auto found = own_.find(caller);
    return found == own_.end() ? nullptr : &found->second;
  }

  bool full() const { return own_.size() >= most_; }

  // Erases the callers whose value `is_old` returns true for. The shared value stays.
  template <typename Predicate>
  void EraseIf(Predicate is_old) {
    for (auto entry = own_.begin(); entry != own_.end();) {
      entry = is_old(entry->second) ? own_.erase(entry) : std::next(entry);
    }
  }

  void Clear() {
    own_.clear();
    shared_ = Value();
  }

 private:
  size_t most_;
  std::unordered_map<std::string, Value> own_;
  Value shared_{};
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_CALLER_TABLE_H_
