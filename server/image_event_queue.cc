#include "server/image_event_queue.h"

#include <algorithm>
#include <string>
#include <utility>

#include "server/proto_mapping.h"

namespace hotlora {

void ImageEventQueue::PushAccepted(const Admission& admission) {
  Entry& entry = entries_.emplace_back();
  *entry.event.mutable_accepted() = ToProto(admission);
}

void ImageEventQueue::PushWaiting(const ImageWaiting& waiting) {
  v1::GenerateImagesEvent event;
  *event.mutable_waiting() = ToProto(waiting);
  PushUpdate(std::move(event));
}

void ImageEventQueue::PushProgress(const ImageProgress& progress) {
  v1::GenerateImagesEvent event;
  *event.mutable_progress() = ToProto(progress);
  PushUpdate(std::move(event));
}

void ImageEventQueue::PushUpdate(v1::GenerateImagesEvent event) {
  if (updates_ == kMaxUpdates) {
    entries_.erase(std::find_if(entries_.begin(), entries_.end(), [](const Entry& e) { return e.is_update; }));
    --updates_;
    ++dropped_updates_;
  }
  Entry& entry = entries_.emplace_back();
  entry.is_update = true;
  entry.event = std::move(event);
  ++updates_;
}

void ImageEventQueue::PushImage(FinishedImage image) {
  Entry& entry = entries_.emplace_back();
  *entry.event.mutable_image() = ToProtoWithoutData(image);
  entry.data = std::move(image.data);
}

void ImageEventQueue::PushSummary(const ImageSummary& summary) {
  Entry& entry = entries_.emplace_back();
  *entry.event.mutable_summary() = ToProto(summary);
}

bool ImageEventQueue::Next(v1::GenerateImagesEvent& event) {
  if (entries_.empty()) {
    return false;
  }
  Entry& entry = entries_.front();
  if (entry.data.size() > kMaxWholeBytes) {
    const size_t bytes = std::min(kPartBytes, entry.data.size() - entry.sent);
    event = entry.event;
    event.mutable_image()->set_data(entry.data.data() + entry.sent, bytes);
    entry.sent += bytes;
    if (entry.sent < entry.data.size()) {
      return true;
    }
  } else {
    event = std::move(entry.event);
    if (event.has_image()) {
      event.mutable_image()->set_data(std::move(entry.data));
    }
  }
  updates_ -= entry.is_update ? 1 : 0;
  entries_.pop_front();
  return true;
}

void ImageEventQueue::clear() {
  entries_.clear();
  updates_ = 0;
}

}  // namespace hotlora
