#include "client/bench/adapter_draw.h"

#include <fnmatch.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace hotlora {

std::vector<std::string> Matching(const std::vector<std::string>& names, const std::vector<std::string>& patterns) {
  std::vector<std::string> matching;
  for (const std::string& name : names) {
    if (std::any_of(patterns.begin(), patterns.end(),
                    [&](const std::string& pattern) { return fnmatch(pattern.c_str(), name.c_str(), 0) == 0; })) {
      matching.push_back(name);
    }
  }
  return matching;
}

AdapterDraw::AdapterDraw(std::vector<std::string> names, std::vector<double> weights, uint64_t seed)
    : names_(std::move(names)), weights_(std::move(weights)), random_(seed) {}

uint32_t AdapterDraw::Number(uint32_t count) { return static_cast<uint32_t>(random_() % count); }

AdapterChoice AdapterDraw::Choose(uint32_t count) {
  std::vector<std::string> left = names_;
  AdapterChoice choice;
  while (choice.size() < count && !left.empty()) {
    const uint32_t which = Number(static_cast<uint32_t>(left.size()));
    choice.emplace_back();
    choice.back().set_name(left[which]);
    choice.back().set_weight(weights_[Number(static_cast<uint32_t>(weights_.size()))]);
    left.erase(left.begin() + which);
  }
  return choice;
}

AdapterChoice AdapterDraw::ChooseOther(uint32_t count, const AdapterChoice& last) {
  AdapterChoice choice;
  do {
    choice = Choose(count);
  } while (Words(choice) == Words(last));
  return choice;
}

std::string Words(const AdapterChoice& adapters) {
  std::string words;
  for (const v1::AdapterRef& adapter : adapters) {
    absl::StrAppend(&words, words.empty() ? "" : " ", adapter.name(), ":", adapter.weight());
  }
  return words;
}

v1::GenerateImagesRequest MakeRequest(const BenchSettings& settings, const AdapterChoice& adapters) {
  v1::GenerateImagesRequest request;
  request.set_prompt("a photo");
  request.set_width(settings.size);
  request.set_height(settings.size);
  request.set_steps(settings.steps);
  request.set_guidance_scale(settings.guidance);
  request.set_seed(settings.seed);
  request.set_format(v1::IMAGE_FORMAT_RAW_RGB8);
  for (const v1::AdapterRef& adapter : adapters) {
    *request.add_adapters() = adapter;
  }
  return request;
}

}  // namespace hotlora
