#include "client/output_files.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace hotlora {

std::vector<std::string> OutputNames(const std::string& out, size_t count) {
  if (count == 1) {
    return {out};
  }
  const std::string ending = std::filesystem::path(out).extension();
  const std::string stem = out.substr(0, out.size() - ending.size());
  std::vector<std::string> names;
  for (size_t i = 0; i < count; ++i) {
    names.push_back(absl::StrCat(stem, "-", i, ending));
  }
  return names;
}

absl::Status CheckWritable(const std::string& path) {
  std::filesystem::path folder = std::filesystem::path(path).parent_path();
  folder = folder.empty() ? "." : folder;
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return absl::InvalidArgumentError(absl::StrCat("--out ", path, ": is a folder"));
  }
  if (access(folder.c_str(), W_OK) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("--out ", path, ": its folder: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

absl::Status WriteFile(const std::string& path, absl::string_view bytes) {
  const std::string draft = absl::StrCat(path, ".", getpid(), ".part");
  std::ofstream file(draft, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file.good() || std::rename(draft.c_str(), path.c_str()) != 0) {
    const std::string why = std::strerror(errno);
    unlink(draft.c_str());
    return absl::InternalError(absl::StrCat(path, ": cannot be written: ", why));
  }
  return absl::OkStatus();
}

}  // namespace hotlora
