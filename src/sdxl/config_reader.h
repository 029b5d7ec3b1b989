#ifndef HOTLORA_SRC_SDXL_CONFIG_READER_H_
#define HOTLORA_SRC_SDXL_CONFIG_READER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace hotlora {

// Bounds far above any published checkpoint: a config cannot make the loader allocate without
// limit.
inline constexpr int64_t kMaxWidth = 1 << 16;
inline constexpr int64_t kMaxVocabulary = 1 << 20;
inline constexpr int64_t kMaxDepth = 256;
inline constexpr size_t kMaxLevels = 8;

// Reads one config file and notes everything that is wrong with it: key, value and what is allowed. A value that is
// wrong comes back as one that makes sense, so that one pass finds every fault.
class ConfigReader {
 public:
  // `file` is what messages call the config. `json` and `errors` must outlive the reader.
  ConfigReader(std::string file, const nlohmann::json& json, std::vector<std::string>& errors)
      : file_(std::move(file)), json_(json), errors_(errors) {}

  // nullptr if the key is absent or null.
  const nlohmann::json* Find(const std::string& key) const;

  // From 1 to `most`.
  int64_t Integer(const std::string& key, int64_t most);

  // Above 0 and finite.
  double Positive(const std::string& key);

  // One integer for each level, given as a list or as one number for all.
  std::vector<int64_t> PerLevel(const std::string& key, size_t levels, int64_t most);

  // A list of 1 to kMaxLevels integers.
  std::vector<int64_t> Levels(const std::string& key);

  // The names under `key`, each of which must be one of `allowed`.
  std::vector<std::string> Names(const std::string& key, size_t levels, const std::vector<std::string>& allowed);

  // The key, if it is given at all, must have this value.
  void Only(const std::string& key, const nlohmann::json& supported);

  // The key must be given, with this value.
  void RequireOnly(const std::string& key, const nlohmann::json& supported);

  // The key must be absent or null (false counts as null: configs write either).
  void Absent(const std::string& key);

  bool Flag(const std::string& key, bool otherwise);

  void Check(bool holds, const std::string& what);

  void Fault(const std::string& key, const nlohmann::json& value, const std::string& wanted,
             const std::string& verb = "must be ");

 private:
  const nlohmann::json* Require(const std::string& key);
  int64_t ToInteger(const std::string& key, const nlohmann::json& value, int64_t most);

  std::string file_;
  const nlohmann::json& json_;
  std::vector<std::string>& errors_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_CONFIG_READER_H_
