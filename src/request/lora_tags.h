#ifndef HOTLORA_SRC_REQUEST_LORA_TAGS_H_
#define HOTLORA_SRC_REQUEST_LORA_TAGS_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

#include "src/request/image_request.h"

namespace hotlora {

// A prompt with its tags cut out, and the adapters that they name, in their order.
struct TaggedPrompt {
  std::string text;
  std::vector<AdapterRef> adapters;
  std::vector<std::string> faults;  // of tags that are not sound, each with the tag
};

// Reads <lora:NAME:TEXT_ENCODER_WEIGHT:UNET_WEIGHT>, the tags of AUTOMATIC1111's web UI. The first weight is 1 if it
// is left out, the second is the first one; te=WEIGHT and unet=WEIGHT may stand in their place. What looks like a tag
// but is of another kind (<hypernet:...>) is text. A dynamic rank (dyn=, or a third number) is a fault: it is
// not supported. Blanks around a name are dropped. Names and the range of weights are not judged.
TaggedPrompt TakeLoraTags(absl::string_view prompt);

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_LORA_TAGS_H_
