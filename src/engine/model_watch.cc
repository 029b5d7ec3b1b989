#include "src/engine/model_watch.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"

#include "src/base/logging.h"

namespace hotlora {

ModelWatch::ModelWatch(ModelFiles files, absl::Duration period, std::function<void(bool changed)> on_look)
    : files_(std::move(files)), on_look_(std::move(on_look)), thread_("model-watch", period, [this] { Look(); }) {}

void ModelWatch::Look() {
  const std::vector<std::string> changed = files_.Changed();
  if (!changed.empty() && !std::exchange(warned_, true)) {
    LogWarning("files of the model changed after they were read, which has no effect until the server starts again: ",
               absl::StrJoin(changed, ", "));
  }
  on_look_(!changed.empty());
}

}  // namespace hotlora
