#ifndef HOTLORA_SERVER_IMAGE_EVENT_QUEUE_H_
#define HOTLORA_SERVER_IMAGE_EVENT_QUEUE_H_

// The events of one stream between the engine, which makes them at its own pace, and a caller who
// may read slowly.

#include <cstddef>
#include <cstdint>
#include <deque>

#include "hotlora/v1/images.pb.h"
#include "src/engine/engine.h"

namespace hotlora {

// Progress and waiting events beyond the last few are dropped, oldest first, so a caller who does
// not read costs no more than the images it asked for. Images and the rest are never dropped. Not
// thread-safe.
class ImageEventQueue {
 public:
  // Updates that wait at most.
  static constexpr size_t kMaxUpdates = 8;
  // An image of more is split, into parts of at most kPartBytes.
  static constexpr size_t kMaxWholeBytes = size_t{2} << 20;
  static constexpr size_t kPartBytes = size_t{1} << 20;

  void PushAccepted(const Admission& admission);
  void PushWaiting(const ImageWaiting& waiting);
  void PushProgress(const ImageProgress& progress);
  void PushImage(FinishedImage image);
  void PushSummary(const ImageSummary& summary);

  // Takes the next event into `event`; false if there is none. Parts are cut here, one at a
  // time, so that a queued image is held once.
  bool Next(v1::GenerateImagesEvent& event);

  // Updates that were dropped since the start.
  uint64_t dropped_updates() const { return dropped_updates_; }

  bool empty() const { return entries_.empty(); }
  void clear();

 private:
  struct Entry {
    bool is_update = false;
    v1::GenerateImagesEvent event;  // of an image: its header
    std::string data;               // of an image
    size_t sent = 0;                // of `data`
  };

  void PushUpdate(v1::GenerateImagesEvent event);

  std::deque<Entry> entries_;
  size_t updates_ = 0;  // entries with is_update
  uint64_t dropped_updates_ = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_IMAGE_EVENT_QUEUE_H_
