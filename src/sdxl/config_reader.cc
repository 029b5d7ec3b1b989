#include "src/sdxl/config_reader.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "src/base/json_text.h"

namespace hotlora {

const nlohmann::json* ConfigReader::Find(const std::string& key) const {
  if (!json_.is_object()) {
    return nullptr;
  }
  auto found = json_.find(key);
  return found == json_.end() || found->is_null() ? nullptr : &*found;
}

int64_t ConfigReader::Integer(const std::string& key, int64_t most) {
  const nlohmann::json* value = Require(key);
  return value == nullptr ? 1 : ToInteger(key, *value, most);
}

double ConfigReader::Positive(const std::string& key) {
  const nlohmann::json* value = Require(key);
  if (value == nullptr) {
    return 1.0;
  }
  if (!value->is_number() || !(value->get<double>() > 0.0) || !std::isfinite(value->get<double>())) {
    Fault(key, *value, "a number above 0");
    return 1.0;
  }
  return value->get<double>();
}

std::vector<int64_t> ConfigReader::PerLevel(const std::string& key, size_t levels, int64_t most) {
  const nlohmann::json* value = Require(key);
  if (value == nullptr) {
    return std::vector<int64_t>(levels, 1);
  }
  if (!value->is_array()) {
    return std::vector<int64_t>(levels, ToInteger(key, *value, most));
  }
  if (value->size() != levels) {
    Fault(key, *value, absl::StrCat("a list of ", levels));
    return std::vector<int64_t>(levels, 1);
  }
  std::vector<int64_t> numbers;
  for (const nlohmann::json& entry : *value) {
    numbers.push_back(ToInteger(key, entry, most));
  }
  return numbers;
}

std::vector<int64_t> ConfigReader::Levels(const std::string& key) {
  const nlohmann::json* const value = Require(key);
  if (value == nullptr) {
    return {1};
  }
  if (!value->is_array() || value->empty() || value->size() > kMaxLevels) {
    Fault(key, *value, absl::StrCat("a list of 1 to ", kMaxLevels, " integers"));
    return {1};
  }
  return PerLevel(key, value->size(), kMaxWidth);
}

std::vector<std::string> ConfigReader::Names(const std::string& key, size_t levels,
                                             const std::vector<std::string>& allowed) {
  std::vector<std::string> names;
  const nlohmann::json* value = Require(key);
  if (value != nullptr && (!value->is_array() || value->size() != levels)) {
    Fault(key, *value, absl::StrCat("a list of ", levels));
    value = nullptr;
  }
  for (size_t i = 0; i < levels; ++i) {
    names.push_back(allowed.front());
    if (value == nullptr) {
      continue;
    }
    const nlohmann::json& entry = (*value)[i];
    if (!entry.is_string() || std::find(allowed.begin(), allowed.end(), entry.get<std::string>()) == allowed.end()) {
      Fault(key, entry, absl::StrJoin(allowed, " or "));
    } else {
      names.back() = entry.get<std::string>();
    }
  }
  return names;
}

void ConfigReader::Only(const std::string& key, const nlohmann::json& supported) {
  const nlohmann::json* value = Find(key);
  if (value != nullptr && *value != supported) {
    Fault(key, *value, absl::StrCat("only ", supported.dump(), " is supported"), "");
  }
}

void ConfigReader::RequireOnly(const std::string& key, const nlohmann::json& supported) {
  if (Require(key) != nullptr) {
    Only(key, supported);
  }
}

void ConfigReader::Absent(const std::string& key) {
  const nlohmann::json* value = Find(key);
  if (value != nullptr && *value != nlohmann::json(false)) {
    Fault(key, *value, "is not supported", "");
  }
}

bool ConfigReader::Flag(const std::string& key, bool otherwise) {
  const nlohmann::json* value = Find(key);
  if (value != nullptr && !value->is_boolean()) {
    Fault(key, *value, "true or false");
    value = nullptr;
  }
  return value == nullptr ? otherwise : value->get<bool>();
}

void ConfigReader::Check(bool holds, const std::string& what) {
  if (!holds) {
    errors_.push_back(absl::StrCat(file_, ": ", what));
  }
}

void ConfigReader::Fault(const std::string& key, const nlohmann::json& value, const std::string& wanted,
                         const std::string& verb) {
  errors_.push_back(absl::StrCat(file_, ": ", key, " is ", JsonExcerpt(value), ", ", verb, wanted));
}

const nlohmann::json* ConfigReader::Require(const std::string& key) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    const bool is_null = json_.is_object() && json_.contains(key);
    errors_.push_back(absl::StrCat(file_, ": ", key, is_null ? " is null" : " is missing"));
  }
  return value;
}

int64_t ConfigReader::ToInteger(const std::string& key, const nlohmann::json& value, int64_t most) {
  if (!value.is_number_integer() || value.get<double>() < 1 || value.get<double>() > static_cast<double>(most)) {
    Fault(key, value, absl::StrCat("an integer from 1 to ", most));
    return 1;
  }
  return value.get<int64_t>();
}

}  // namespace hotlora
