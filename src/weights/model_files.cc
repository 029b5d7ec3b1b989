#include "src/weights/model_files.h"

#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "src/base/error_details.h"
#include "src/base/error_reason.h"

namespace hotlora {

ModelFiles::Stamp ModelFiles::StampOf(const std::string& path) {
  struct stat file = {};
  if (stat(path.c_str(), &file) != 0) {
    return {};
  }
  return {true, file.st_size, file.st_mtim.tv_sec, file.st_mtim.tv_nsec};
}

void ModelFiles::Add(const std::string& path) { files_.emplace(path, StampOf(path)); }

std::vector<std::string> ModelFiles::Changed() const {
  std::vector<std::string> changed;
  for (const auto& [path, stamp] : files_) {
    if (!(StampOf(path) == stamp)) {
      changed.push_back(path);
    }
  }
  return changed;
}

absl::Status ModelFiles::CheckUnchanged() const {
  const std::vector<std::string> changed = Changed();
  if (changed.empty()) {
    return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kFailedPrecondition, error_reason::kModelChanged,
                   absl::StrCat("files of the model changed while they were read: ", absl::StrJoin(changed, ", "),
                                "; start again when they are complete"));
}

}  // namespace hotlora
