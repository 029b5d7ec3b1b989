#include "src/weights/safetensors_file.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "src/base/enum_size.h"
#include "src/base/printable.h"
#include "src/base/sha256.h"
#include "src/base/status_macros.h"
#include "src/base/thread_team.h"
#include "src/weights/opened_file.h"
#include "src/weights/parallel_read.h"

namespace hotlora {
namespace {

constexpr uint64_t kLengthBytes = 8;

struct DtypeEntry {
  absl::string_view name;
  size_t size;
};

// In the order of StoredDtype.
constexpr DtypeEntry kDtypes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2},    {"I64", 8},
                                  {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U8", 1},      {"BOOL", 1},
                                  {"U16", 2}, {"U32", 4}, {"U64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
static_assert(std::size(kDtypes) == kEnumSize<StoredDtype>);

std::optional<StoredDtype> DtypeOf(absl::string_view name) {
  for (size_t i = 0; i < std::size(kDtypes); ++i) {
    if (kDtypes[i].name == name) {
      return static_cast<StoredDtype>(i);
    }
  }
  return std::nullopt;
}

// Receives the header's JSON as nlohmann's parser meets it, and keeps only what the format allows.
class HeaderReader {
 public:
  HeaderReader(std::vector<StoredTensor>& tensors, std::map<std::string, std::string>& metadata)
      : tensors_(tensors), metadata_(metadata) {}

  const std::string& error() const { return error_; }

  bool null() { return Refuse("has null"); }
  bool boolean(bool) { return Refuse("has a boolean"); }
  bool number_integer(int64_t) { return Refuse("has a negative number"); }
  bool number_float(double, const std::string&) { return Refuse("has a number that is not a 64-bit integer"); }
  bool binary(std::vector<uint8_t>&) { return Refuse("has binary data"); }

  bool number_unsigned(uint64_t value) {
    if (place_ == Place::kShape) {
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return Refuse("has a dimension beyond 64 bits");
      }
      if (tensors_.back().shape.size() == SafetensorsFile::kMaxDimensions) {
        return Refuse(absl::StrCat("has more than ", SafetensorsFile::kMaxDimensions, " dimensions"));
      }
      tensors_.back().shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (place_ == Place::kOffsets) {
      if (offsets_ == 2) {
        return Refuse("has more than two data_offsets");
      }
      if (offsets_++ == 0) {
        tensors_.back().begin = value;
      } else {
        tensors_.back().end = value;
      }
      return true;
    }
    return Refuse("has a number where none is allowed");
  }

  bool string(std::string& value) {
    if (place_ == Place::kMetadata) {
      metadata_[key_] = std::move(value);
      return true;
    }
    if (place_ == Place::kTensor && key_ == "dtype") {
      const std::optional<StoredDtype> dtype = DtypeOf(value);
      if (!dtype.has_value()) {
        return Refuse(absl::StrCat("has unknown dtype ", PrintableName(value)));
      }
      tensors_.back().dtype = *dtype;
      return true;
    }
    return Refuse("has a string where none is allowed");
  }

  bool start_object(size_t) {
    if (place_ == Place::kOutside) {
      place_ = Place::kTop;
      return true;
    }
    if (place_ != Place::kTop) {
      return Refuse("has an object where none is allowed");
    }
    if (entry_ == "__metadata__") {
      place_ = Place::kMetadata;
    } else {
      place_ = Place::kTensor;
      fields_ = 0;
      offsets_ = 0;
      tensors_.emplace_back();
      tensors_.back().name = entry_;
      tensors_.back().shape.reserve(4);  // few have more
    }
    return true;
  }

  bool key(std::string& key) {
    if (place_ == Place::kTop) {
      entry_ = key;
      if (key == "__metadata__") {
        return std::exchange(has_metadata_, true) ? Refuse("is there twice") : true;
      }
      // Duplicate names show when the index is made.
      return ++entries_ > SafetensorsFile::kMaxTensors ? Refuse("is one entry too many") : true;
    }
    key_ = key;
    if (place_ == Place::kMetadata) {
      if (++entries_ > SafetensorsFile::kMaxTensors) {
        return Refuse("has too many entries");
      }
      return metadata_.count(key) > 0 ? Refuse(absl::StrCat("has the key ", PrintableName(key), " twice")) : true;
    }
    const int field = key == "dtype" ? 1 : key == "shape" ? 2 : key == "data_offsets" ? 4 : 0;
    if (field == 0) {
      return Refuse(absl::StrCat("has unknown field ", PrintableName(key)));
    }
    if ((fields_ & field) != 0) {
      return Refuse(absl::StrCat("has the key ", PrintableName(key), " twice"));
    }
    fields_ |= field;
    return true;
  }

  bool end_object() {
    if (place_ == Place::kTensor && (fields_ != 7 || offsets_ != 2)) {
      return Refuse("lacks dtype, shape or one of two data_offsets");
    }
    place_ = place_ == Place::kTop ? Place::kOutside : Place::kTop;
    return true;
  }

  bool start_array(size_t) {
    if (place_ == Place::kTensor && (key_ == "shape" || key_ == "data_offsets")) {
      place_ = key_ == "shape" ? Place::kShape : Place::kOffsets;
      return true;
    }
    return Refuse("has an array where none is allowed");
  }

  bool end_array() {
    place_ = Place::kTensor;
    return true;
  }

  // nlohmann's own text quotes raw bytes of the file, so only the place is kept.
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) {
    error_ = absl::StrCat("header is not JSON in UTF-8: fault at byte ", position);
    return false;
  }

 private:
  enum class Place { kOutside, kTop, kMetadata, kTensor, kShape, kOffsets };

  bool Refuse(absl::string_view what) {
    error_ = place_ == Place::kOutside ? "header is not a JSON object"
                                       : absl::StrCat("header: entry ", PrintableName(entry_), " ", what);
    return false;
  }

  std::vector<StoredTensor>& tensors_;
  std::map<std::string, std::string>& metadata_;
  Place place_ = Place::kOutside;
  std::string entry_;  // key of the top-level object
  std::string key_;    // key inside that entry
  bool has_metadata_ = false;
  size_t entries_ = 0;
  int fields_ = 0;  // bits: dtype 1, shape 2, data_offsets 4
  int offsets_ = 0;
  std::string error_;
};

// The header's length as the first eight bytes say, checked against the file's size and the cap.
absl::StatusOr<uint64_t> HeaderLength(const unsigned char (&length)[kLengthBytes], uint64_t file_bytes,
                                      uint64_t max_header_bytes) {
  uint64_t header_bytes = 0;
  for (int i = kLengthBytes - 1; i >= 0; --i) {
    header_bytes = header_bytes << 8 | length[i];
  }
  if (header_bytes > max_header_bytes) {
    return absl::DataLossError(absl::StrCat("header of ", header_bytes, " bytes; allowed are ", max_header_bytes));
  }
  if (header_bytes > file_bytes - kLengthBytes) {
    return absl::DataLossError(absl::StrCat("header of ", header_bytes, " bytes in a file of ", file_bytes));
  }
  return header_bytes;
}

absl::Status TooShort(uint64_t bytes) {
  return absl::DataLossError(absl::StrCat("file of ", bytes, " bytes is too short for a safetensors header"));
}

}  // namespace

size_t SizeOf(StoredDtype dtype) { return kDtypes[static_cast<size_t>(dtype)].size; }

absl::string_view NameOf(StoredDtype dtype) { return kDtypes[static_cast<size_t>(dtype)].name; }

absl::Status SafetensorsFile::ParseHeader(absl::string_view header) {
  if (header.empty() || header[0] != '{') {
    return absl::DataLossError("header does not begin with '{'");
  }
  // nlohmann's lexer takes a NUL byte for the end of its input.
  if (header.find('\0') != absl::string_view::npos) {
    return absl::DataLossError("header has a NUL byte");
  }
  HeaderReader reader(tensors_, metadata_);
  if (!nlohmann::json::sax_parse(header.begin(), header.end(), &reader)) {
    return absl::DataLossError(reader.error());
  }
  return CheckLayout();
}

absl::Status SafetensorsFile::SortNames() {
  by_name_.resize(tensors_.size());
  std::iota(by_name_.begin(), by_name_.end(), size_t{0});
  std::sort(by_name_.begin(), by_name_.end(), [&](size_t a, size_t b) { return tensors_[a].name < tensors_[b].name; });
  const auto twice = std::adjacent_find(by_name_.begin(), by_name_.end(),
                                        [&](size_t a, size_t b) { return tensors_[a].name == tensors_[b].name; });
  return twice == by_name_.end()
             ? absl::OkStatus()
             : absl::DataLossError(absl::StrCat("tensor ", PrintableName(tensors_[*twice].name), " is there twice"));
}

absl::Status SafetensorsFile::CheckLayout() {
  std::sort(tensors_.begin(), tensors_.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  ABSL_RETURN_IF_ERROR(SortNames());
  const uint64_t data_bytes = file_bytes_ - data_offset_;
  uint64_t reached = 0;
  for (const StoredTensor& tensor : tensors_) {
    const auto refuse = [&](absl::string_view what) {
      return absl::DataLossError(absl::StrCat("tensor ", PrintableName(tensor.name), " ", what));
    };
    if (tensor.begin > tensor.end) {
      return refuse("has reversed data_offsets");
    }
    if (tensor.end > data_bytes) {
      return refuse("reaches past the end of the file");
    }
    if (tensor.begin != reached) {
      return refuse(tensor.begin < reached ? "overlaps the tensor before it" : "follows a hole");
    }
    reached = tensor.end;
    // Zeros are left out of the product, so that it overflows for [2^62, 2^62, 0] too: no such
    // tensor can be made.
    int64_t elements = 1;
    bool empty = false;
    for (const int64_t dimension : tensor.shape) {
      empty |= dimension == 0;
      if (dimension != 0 && __builtin_mul_overflow(elements, dimension, &elements)) {
        return refuse("has a shape whose product is beyond 64 bits");
      }
    }
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(static_cast<uint64_t>(elements), uint64_t{SizeOf(tensor.dtype)}, &bytes)) {
      return refuse("has a size beyond 64 bits");
    }
    if ((empty ? 0 : bytes) != tensor.bytes()) {
      return refuse(absl::StrCat("has ", tensor.bytes(), " bytes, its shape needs ", empty ? 0 : bytes));
    }
  }
  if (reached != data_bytes) {
    return absl::DataLossError(absl::StrCat(data_bytes - reached, " bytes after the last tensor"));
  }
  return absl::OkStatus();
}

namespace {

// The first part of every way to read a file: opens it and reads length and header.
struct Opened {
  OpenFile file;
  std::string header;
};

absl::StatusOr<Opened> OpenAndReadHeader(OpenFile file, uint64_t max_header_bytes, Sha256* hash) {
  if (file.bytes < kLengthBytes) {
    return TooShort(file.bytes);
  }
  unsigned char length[kLengthBytes];
  ABSL_RETURN_IF_ERROR(ReadExactly(file, length, kLengthBytes, hash));
  ABSL_ASSIGN_OR_RETURN(const uint64_t header_bytes, HeaderLength(length, file.bytes, max_header_bytes));
  std::string header(header_bytes, '\0');
  ABSL_RETURN_IF_ERROR(ReadExactly(file, header.data(), header_bytes, hash));
  return Opened{std::move(file), std::move(header)};
}

}  // namespace

absl::StatusOr<SafetensorsFile> SafetensorsFile::ReadHeader(const std::string& path, uint64_t max_header_bytes) {
  ABSL_ASSIGN_OR_RETURN(const OpenFile file, OpenRegular(path));
  return ReadHeader(file.descriptor, max_header_bytes);
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::ReadHeader(int descriptor, uint64_t max_header_bytes) {
  ABSL_ASSIGN_OR_RETURN(OpenFile file, Duplicate(descriptor));
  ABSL_ASSIGN_OR_RETURN(const Opened opened, OpenAndReadHeader(std::move(file), max_header_bytes, nullptr));
  return ParseOpened(opened.file.bytes, opened.header);
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::ParseOpened(uint64_t file_bytes, absl::string_view header) {
  SafetensorsFile result;
  result.file_bytes_ = file_bytes;
  result.data_offset_ = kLengthBytes + header.size();
  ABSL_RETURN_IF_ERROR(result.ParseHeader(header));
  return result;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::ReadInto(const std::string& path, Destination destination,
                                                          uint64_t max_header_bytes) {
  ABSL_ASSIGN_OR_RETURN(OpenFile file, OpenRegular(path));
  Sha256 hash;
  ABSL_ASSIGN_OR_RETURN(const Opened opened, OpenAndReadHeader(std::move(file), max_header_bytes, &hash));
  ABSL_ASSIGN_OR_RETURN(SafetensorsFile result, ParseOpened(opened.file.bytes, opened.header));
  std::vector<FilePart> parts;
  for (const StoredTensor& tensor : result.tensors_) {
    if (tensor.bytes() > 0) {
      ABSL_ASSIGN_OR_RETURN(void* const to, destination(tensor));
      parts.push_back({result.data_offset_ + tensor.begin, tensor.bytes(), static_cast<std::byte*>(to)});
    }
  }
  ABSL_RETURN_IF_ERROR(ReadParts(opened.file, parts, ReadersFor(CpusOfThisProcess(), AddressesAreLimited()), hash));
  result.sha256_ = hash.HexDigest();
  return result;
}

namespace {

struct Whole {
  std::shared_ptr<const std::byte> bytes;
  uint64_t size = 0;
  std::shared_ptr<const TrailingHash> hash;
};

absl::StatusOr<Whole> ReadWhole(const OpenFile& file, uint64_t max_bytes, SafetensorsFile::Allocate allocate) {
  if (file.bytes > max_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("file of ", file.bytes, " bytes; allowed are ", max_bytes));
  }
  const std::shared_ptr<std::byte> bytes = allocate(file.bytes);
  const auto hash = std::make_shared<TrailingHash>(bytes, file.bytes);
  uint64_t filled = 0;
  ABSL_RETURN_IF_ERROR(ReadPieces(file, bytes.get(), file.bytes, [&](const char*, size_t got) {
    filled += got;
    hash->AddUpTo(filled);
  }));
  return Whole{bytes, file.bytes, hash};
}

}  // namespace

absl::StatusOr<SafetensorsFile> SafetensorsFile::ReadFile(const std::string& path, uint64_t max_bytes,
                                                          uint64_t max_header_bytes) {
  ABSL_ASSIGN_OR_RETURN(const OpenFile file, OpenRegular(path));
  return ReadDescriptor(file.descriptor, max_bytes, max_header_bytes);
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::ReadDescriptor(int descriptor, uint64_t max_bytes,
                                                                uint64_t max_header_bytes, Allocate allocate) {
  ABSL_ASSIGN_OR_RETURN(const OpenFile file, Duplicate(descriptor));
  ABSL_ASSIGN_OR_RETURN(Whole whole, ReadWhole(file, max_bytes, allocate));
  return ParseBytes(std::move(whole.bytes), whole.size, std::move(whole.hash), max_header_bytes);
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::ReadShards(absl::Span<const Shard> shards, uint64_t max_bytes,
                                                            uint64_t max_header_bytes, Allocate allocate) {
  SafetensorsFile joined;
  std::vector<OpenFile> files;
  for (const Shard& shard : shards) {
    ABSL_ASSIGN_OR_RETURN(OpenFile file, Duplicate(shard.descriptor));
    joined.file_bytes_ += file.bytes;
    files.push_back(std::move(file));
  }
  if (joined.file_bytes_ > max_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("files of ", joined.file_bytes_, " bytes; allowed are ", max_bytes));
  }
  const std::shared_ptr<std::byte> bytes = allocate(joined.file_bytes_);
  const auto hash = std::make_shared<TrailingHash>(bytes, joined.file_bytes_);
  uint64_t filled = 0;
  for (size_t i = 0; i < files.size(); ++i) {
    const std::shared_ptr<const std::byte> begin(bytes, bytes.get() + filled);
    const uint64_t first = filled;
    ABSL_RETURN_IF_ERROR(ReadPieces(files[i], bytes.get() + first, files[i].bytes, [&](const char*, size_t got) {
      filled += got;
      hash->AddUpTo(filled);
    }));
    const absl::StatusOr<SafetensorsFile> file = ParseBytes(begin, files[i].bytes, nullptr, max_header_bytes);
    if (!file.ok()) {
      return absl::Status(file.status().code(), absl::StrCat(shards[i].name, ": ", file.status().message()));
    }
    for (StoredTensor tensor : file->tensors()) {
      tensor.begin += first + file->data_offset();
      tensor.end += first + file->data_offset();
      joined.tensors_.push_back(std::move(tensor));
    }
  }
  joined.hash_ = hash;
  joined.bytes_ = bytes;
  ABSL_RETURN_IF_ERROR(joined.SortNames());
  return joined;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Parse(std::vector<std::byte> bytes, uint64_t max_header_bytes) {
  const uint64_t size = bytes.size();
  auto owner = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  const std::byte* const begin = owner->data();
  const std::shared_ptr<const std::byte> data(std::move(owner), begin);
  const auto hash = std::make_shared<TrailingHash>(data, size);
  hash->AddUpTo(size);
  return ParseBytes(data, size, hash, max_header_bytes);
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::ParseBytes(std::shared_ptr<const std::byte> bytes, uint64_t size,
                                                            std::shared_ptr<const TrailingHash> hash,
                                                            uint64_t max_header_bytes) {
  if (size < kLengthBytes) {
    return TooShort(size);
  }
  unsigned char length[kLengthBytes];
  std::copy_n(reinterpret_cast<const unsigned char*>(bytes.get()), kLengthBytes, length);
  ABSL_ASSIGN_OR_RETURN(const uint64_t header_bytes, HeaderLength(length, size, max_header_bytes));
  const absl::string_view header(reinterpret_cast<const char*>(bytes.get()) + kLengthBytes, header_bytes);
  ABSL_ASSIGN_OR_RETURN(SafetensorsFile result, ParseOpened(size, header));
  result.hash_ = std::move(hash);
  result.bytes_ = std::move(bytes);
  return result;
}

std::shared_ptr<std::byte> SafetensorsFile::NewBytes(uint64_t bytes) {
  return {new std::byte[bytes], std::default_delete<std::byte[]>()};
}

const StoredTensor* SafetensorsFile::Find(absl::string_view name) const {
  const auto found = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                      [&](size_t i, absl::string_view wanted) { return tensors_[i].name < wanted; });
  return found == by_name_.end() || tensors_[*found].name != name ? nullptr : &tensors_[*found];
}

}  // namespace hotlora
