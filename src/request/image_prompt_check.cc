#include "src/request/image_prompt_check.h"

#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"

#include "src/request/reference_check.h"

namespace hotlora {
namespace {

std::vector<std::string> CheckImages(const std::string& field, const std::vector<std::string>& images,
                                     Violations& violations) {
  if (images.empty() || images.size() > kMaxPromptImages) {
    violations.Add(field, "has ", images.size(), " entries; allowed are 1 to ", kMaxPromptImages);
    return {};
  }
  for (size_t i = 0; i < images.size(); ++i) {
    CheckReferencePicture(absl::StrCat(field, "[", i, "]"), images[i], violations);
  }
  return images;
}

}  // namespace

std::vector<ImagePromptUse> CheckImagePrompts(const std::vector<ImagePromptRef>& refs,
                                              absl::Span<const std::string> cross_attentions, Violations& violations) {
  if (refs.size() > kMaxImagePrompts) {
    violations.Add("image_prompts", "has ", refs.size(), " entries; allowed are at most ", kMaxImagePrompts);
    return {};
  }
  const BlockRules rules{cross_attentions, "the UNet's cross attentions", 0.0, kMaxImagePromptScale};
  std::vector<ImagePromptUse> uses;
  absl::flat_hash_set<std::string> names;
  for (size_t i = 0; i < refs.size(); ++i) {
    const ImagePromptRef& ref = refs[i];
    ImagePromptUse use;
    use.field = absl::StrCat("image_prompts[", i, "]");
    use.name = CheckReferenceName(use.field + ".name", ref.name, violations);
    if (!use.name.empty() && !names.insert(use.name).second) {
      violations.Add(use.field + ".name", "names an image prompt that is in the list already");
    }
    use.images = CheckImages(use.field + ".images", ref.images, violations);
    use.scale = violations.RealInRange(use.field + ".scale", ref.scale, 0, kMaxImagePromptScale, 1);
    use.blocks = CheckBlocks(use.field + ".blocks", ref.blocks, rules, violations);
    if (!LeaveOutAll(use.blocks, use.scale, cross_attentions)) {
      uses.push_back(std::move(use));
    }
  }
  return uses;
}

}  // namespace hotlora
