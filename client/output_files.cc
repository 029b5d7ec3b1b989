#include "client/output_files.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

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

std::string PreviewName(const std::string& out, uint32_t image, uint32_t count, uint32_t step, uint32_t total_steps) {
  const bool named = absl::EndsWithIgnoreCase(out, ".jpg") || absl::EndsWithIgnoreCase(out, ".jpeg");
  const std::string ending = named ? std::filesystem::path(out).extension().string() : ".jpg";
  const std::string stem = named ? out.substr(0, out.size() - ending.size()) : out;
  const int digits = static_cast<int>(absl::StrCat(total_steps).size());
  return absl::StrCat(stem, count > 1 ? absl::StrCat("-", image) : "", "-", absl::StrFormat("%0*d", digits, step),
                      ending);
}

absl::Status CheckWritable(absl::string_view flag, const std::string& path) {
  std::filesystem::path folder = std::filesystem::path(path).parent_path();
  folder = folder.empty() ? "." : folder;
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return absl::InvalidArgumentError(absl::StrCat(flag, " ", path, ": is a folder"));
  }
  if (access(folder.c_str(), W_OK) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(flag, " ", path, ": its folder: ", std::strerror(errno)));
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
