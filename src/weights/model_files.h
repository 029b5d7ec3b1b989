#ifndef HOTLORA_SRC_WEIGHTS_MODEL_FILES_H_
#define HOTLORA_SRC_WEIGHTS_MODEL_FILES_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace hotlora {

// The files that a model was read from, as they were just before. Tells whether they are still the same, by size and
// time of the last change; links are followed.
class ModelFiles {
 public:
  // Remembers the file as it is now. Call it before the file is read. A second call for a path changes nothing.
  void Add(const std::string& path);

  void Add(const ModelFiles& others) { files_.insert(others.files_.begin(), others.files_.end()); }

  // The paths of those that are not what they were, or are gone.
  std::vector<std::string> Changed() const;

  // FailedPrecondition (reason MODEL_CHANGED) names each that changed.
  absl::Status CheckUnchanged() const;

  bool empty() const { return files_.empty(); }

 private:
  struct Stamp {
    bool exists = false;
    int64_t bytes = 0;
    int64_t seconds = 0, nanoseconds = 0;  // of the last change

    bool operator==(const Stamp& other) const {
      return exists == other.exists && bytes == other.bytes && seconds == other.seconds &&
             nanoseconds == other.nanoseconds;
    }
  };
  static Stamp StampOf(const std::string& path);

  std::map<std::string, Stamp> files_;  // by path
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_MODEL_FILES_H_
