#include "src/engine/model_watch.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"

#include "src/base/logging.h"
#include "src/base/named_thread.h"

namespace hotlora {

ModelWatch::ModelWatch(ModelFiles files, absl::Duration period, std::function<void(bool changed)> on_look)
    : files_(std::move(files)), period_(period), on_look_(std::move(on_look)) {
  thread_ = StartNamedThread("model-watch", [this] { Run(); });
}

ModelWatch::~ModelWatch() {
  {
    absl::MutexLock lock(&mu_);
    closed_ = true;
  }
  thread_.join();
}

void ModelWatch::Run() {
  bool told = false;
  for (;;) {
    {
      absl::MutexLock lock(&mu_);
      if (mu_.AwaitWithTimeout(absl::Condition(&closed_), period_)) {
        return;
      }
    }
    const std::vector<std::string> changed = files_.Changed();
    if (!changed.empty() && !told) {
      told = true;
      LogWarning("files of the model changed after they were read, which has no effect until the server starts again: ",
                 absl::StrJoin(changed, ", "));
    }
    on_look_(!changed.empty());
  }
}

}  // namespace hotlora
