#ifndef HOTLORA_SRC_ENGINE_MODEL_WATCH_H_
#define HOTLORA_SRC_ENGINE_MODEL_WATCH_H_

#include <functional>

#include "absl/time/time.h"

#include "src/base/periodic_thread.h"
#include "src/weights/model_files.h"

namespace hotlora {

// Looks now and then whether the files that the model was read from are still the same. A change has no effect on the
// model in memory; the first one found is one warning in the log, which names the files.
class ModelWatch {
 public:
  // `on_look` is called after each look, on the watch's own thread, with whether a file differs. It outlives this
  // object.
  ModelWatch(ModelFiles files, absl::Duration period, std::function<void(bool changed)> on_look);

 private:
  void Look();

  const ModelFiles files_;
  const std::function<void(bool)> on_look_;
  bool warned_ = false;    // the thread's
  PeriodicThread thread_;  // last: it uses all the others
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ENGINE_MODEL_WATCH_H_
