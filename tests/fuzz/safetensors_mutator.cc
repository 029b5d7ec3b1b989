// Changes a safetensors file as LLVMFuzzerCustomMutator: mostly members of the header, so that what reads tensors,
// names and metadata is reached, else bytes.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

using Json = nlohmann::json;
using Random = std::mt19937;

constexpr char kMetadata[] = "__metadata__";
constexpr const char* kDtypes[] = {"F64", "F32", "F16", "BF16", "I64",     "I32",     "I16", "I8",
                                   "U8",  "U16", "U32", "U64",  "F8_E4M3", "F8_E5M2", "BOOL"};
constexpr size_t kItemBytes[] = {8, 4, 2, 2, 8, 4, 2, 1, 1, 2, 4, 8, 1, 1, 1};
static_assert(std::size(kDtypes) == std::size(kItemBytes));

size_t Below(Random& random, size_t count) { return count == 0 ? 0 : random() % count; }

template <typename Container>
auto Any(Random& random, Container& container) {
  return std::next(container.begin(), static_cast<std::ptrdiff_t>(Below(random, container.size())));
}

Json AnyNumber(Random& random) {
  static const Json kNumbers[] = {0,
                                  1,
                                  2,
                                  3,
                                  8,
                                  32,
                                  -1,
                                  65536,
                                  1.5,
                                  1e300,
                                  int64_t{1} << 31,
                                  int64_t{1} << 62,
                                  std::numeric_limits<int64_t>::max(),
                                  std::numeric_limits<uint64_t>::max()};
  return kNumbers[Below(random, std::size(kNumbers))];
}

Json AnyValue(Random& random) {
  Json deep = Json::array();
  switch (Below(random, 6)) {
    case 0:
      return nullptr;
    case 1:
      return Json::object();
    case 2:
      return "";
    case 3:
      for (size_t depth = Below(random, 200); depth > 0; --depth) {
        Json outer = Json::array();
        outer.push_back(std::move(deep));
        deep = std::move(outer);
      }
      return deep;
    default:
      return AnyNumber(random);
  }
}

// Bytes of text as libFuzzer, or the plain driver, would change them.
std::string MutatedText(std::string text) {
  const size_t size = text.size(), room = size + 4096;
  text.resize(room);
  text.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(text.data()), size, room));
  return text;
}

// Another name: changed, or with the end of another tensor's.
std::string OtherName(const std::string& name, const std::string& other, Random& random) {
  const size_t dot = name.rfind('.'), other_dot = other.rfind('.');
  if (dot != std::string::npos && other_dot != std::string::npos && Below(random, 4) != 0) {
    return Below(random, 2) == 0 ? name.substr(0, dot) + other.substr(other_dot)
                                 : other.substr(0, other_dot) + name.substr(dot);
  }
  return MutatedText(name);
}

void MutateTensor(Json& tensor, Random& random) {
  Json* const shape = tensor.contains("shape") && tensor["shape"].is_array() ? &tensor["shape"] : nullptr;
  switch (Below(random, 6)) {
    case 0:
      tensor["dtype"] = kDtypes[Below(random, std::size(kDtypes))];
      break;
    case 1:
      if (shape != nullptr && !shape->empty()) {
        *Any(random, *shape) = AnyNumber(random);
      }
      break;
    case 2:
      if (shape != nullptr && Below(random, 2) == 0 && !shape->empty()) {
        shape->erase(Any(random, *shape));
      } else if (shape != nullptr) {
        shape->insert(shape->begin(), Below(random, 4));
      }
      break;
    case 3:
      if (shape != nullptr && shape->size() > 1) {
        std::swap((*shape)[0], *Any(random, *shape));
      }
      break;
    case 4:
      if (tensor.contains("data_offsets") && tensor["data_offsets"].is_array() && !tensor["data_offsets"].empty()) {
        *Any(random, tensor["data_offsets"]) = AnyNumber(random);
      }
      break;
    default:
      *Any(random, tensor) = AnyValue(random);
      break;
  }
}

void MutateMetadata(Json& header, Random& random) {
  static const char* const kKeys[] = {"lora_adapter_metadata",     "ss_base_model_version", "modelspec.architecture",
                                      "modelspec.prediction_type", "ss_tag_frequency",      "format"};
  Json& metadata = header[kMetadata];
  if (!metadata.is_object() || metadata.empty() || Below(random, 8) == 0) {
    metadata = Json::object();
    metadata[kKeys[Below(random, std::size(kKeys))]] = AnyValue(random).dump();
    return;
  }
  Json& value = *Any(random, metadata);
  value = value.is_string() && Below(random, 8) != 0 ? Json(MutatedText(value.get<std::string>())) : AnyValue(random);
}

void MutateHeader(Json& header, Random& random) {
  const auto chosen = Any(random, header);
  const std::string name = chosen.key(), other = Any(random, header).key();
  switch (Below(random, 8)) {
    case 0:
      header.erase(name);
      break;
    case 1: {
      Json tensor = *chosen;
      header.erase(name);
      header[OtherName(name, other, random)] = std::move(tensor);
      break;
    }
    case 2:
      header[OtherName(name, other, random)] = *chosen;
      break;
    case 3:
      std::swap(header[name], header[other]);
      break;
    case 4:
      MutateMetadata(header, random);
      break;
    case 5:
      header[name] = AnyValue(random);
      break;
    default:
      if (name != kMetadata && chosen->is_object() && !chosen->empty()) {
        MutateTensor(*chosen, random);
      }
      break;
  }
}

// The bytes that a tensor's dtype and shape ask for; `most` at most.
size_t BytesOf(const Json& tensor, size_t most) {
  size_t bytes = 1;
  const auto dtype = std::find(std::begin(kDtypes), std::end(kDtypes), tensor.value("dtype", Json()));
  bytes = dtype == std::end(kDtypes) ? 1 : kItemBytes[dtype - std::begin(kDtypes)];
  for (const Json& side : tensor.value("shape", Json::array())) {
    const uint64_t length = side.is_number_unsigned() ? side.get<uint64_t>() : side == 0 ? 0 : 1;
    bytes = length == 0 ? 0 : bytes > most / length ? most : bytes * length;
  }
  return std::min(bytes, most);
}

// Lays the tensors out one behind the other, so that their offsets fit what they say; the bytes of data that it takes.
size_t LayOut(Json& header, size_t most) {
  size_t end = 0;
  for (auto& [name, tensor] : header.items()) {
    if (name != kMetadata && tensor.is_object()) {
      const size_t begin = end;
      end += BytesOf(tensor, most - end);
      tensor["data_offsets"] = {begin, end};
    }
  }
  return end;
}

// A file of this header and this data, if it fits.
size_t Write(const std::string& header, const std::vector<uint8_t>& file_data, uint8_t* data, size_t max_size) {
  const uint64_t length = header.size();
  if (sizeof(length) + header.size() + file_data.size() > max_size) {
    return 0;
  }
  std::memcpy(data, &length, sizeof(length));
  std::memcpy(data + sizeof(length), header.data(), header.size());
  std::copy(file_data.begin(), file_data.end(), data + sizeof(length) + header.size());
  return sizeof(length) + header.size() + file_data.size();
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  Random random(seed);
  uint64_t length = 0;
  if (size < sizeof(length) || Below(random, 16) == 0) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  std::memcpy(&length, data, sizeof(length));
  if (length > size - sizeof(length)) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  const auto* const text = reinterpret_cast<const char*>(data) + sizeof(length);
  std::vector<uint8_t> file_data(data + sizeof(length) + length, data + size);
  // Values that are copied may not be deep: nlohmann copies by recursion.
  const auto is_flat = [](int depth, Json::parse_event_t, Json&) { return depth < 256; };
  Json header = Json::parse(text, text + length, is_flat, /*allow_exceptions=*/false);
  std::string written;
  if (!header.is_object() || header.empty() || Below(random, 4) == 0) {
    written = MutatedText(std::string(text, length));  // the header's bytes, with a length that fits
  } else {
    MutateHeader(header, random);
    if (Below(random, 4) != 0) {
      file_data.resize(LayOut(header, max_size / 2));
    }
    written = header.dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  const size_t changed = Write(written, file_data, data, max_size);
  return changed != 0 ? changed : LLVMFuzzerMutate(data, size, max_size);
}
