#include "client/input_files.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <vector>

#include "absl/strings/str_cat.h"

namespace hotlora {
namespace {

constexpr size_t kMaxBytes = size_t{32} << 20;

// Up to one byte more than allowed, so that the size tells.
std::string ReadUpToLimit(std::istream& stream) {
  std::string bytes(kMaxBytes + 1, '\0');
  stream.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<size_t>(stream.gcount()));
  return bytes;
}

}  // namespace

absl::StatusOr<std::string> ReadPicture(absl::string_view flag, const std::string& path) {
  const auto bad = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat(flag, " ", path, ": ", why));
  };
  std::string bytes;
  if (path == "-") {
    bytes = ReadUpToLimit(std::cin);
  } else {
    std::error_code error;
    if (std::filesystem::is_directory(path, error)) {
      return bad("is a folder");
    }
    std::ifstream file(path, std::ios::binary);
    if (!file) {
      return bad(std::strerror(errno));
    }
    bytes = ReadUpToLimit(file);
    if (file.bad()) {
      return bad("cannot be read");
    }
  }
  if (bytes.empty()) {
    return bad("is empty");
  }
  if (bytes.size() > kMaxBytes) {
    return bad(absl::StrCat("has more than ", kMaxBytes, " bytes"));
  }
  return bytes;
}

}  // namespace hotlora
