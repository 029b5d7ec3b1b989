#include "src/request/lora_tags.h"

#include <array>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace hotlora {
namespace {

constexpr absl::string_view kTagBegin = "<lora:";

// A tag's arguments: those without a name by place (name, text encoder, UNet), then what named ones put over them.
class TagArguments {
 public:
  void Read(absl::string_view argument) {
    const std::pair<absl::string_view, absl::string_view> named = absl::StrSplit(argument, absl::MaxSplits('=', 1));
    const bool known = named.first == "te" || named.first == "unet" || named.first == "dyn";
    if (!absl::StrContains(argument, '=') || (places_ == 0 && !known)) {  // a name may have "="
      if (places_++ == 0) {
        ref_.name = std::string(absl::StripAsciiWhitespace(argument));
      } else {
        ReadWeight(argument, places_ == 2 ? text_encoder_[0] : places_ == 3 ? unet_[0] : rank_);
      }
    } else if (named.first == "te") {
      ReadWeight(named.second, text_encoder_[1]);
    } else if (named.first == "unet") {
      ReadWeight(named.second, unet_[1]);
    } else if (named.first == "dyn") {
      ReadWeight(named.second, rank_);
    } else {
      Fail(absl::StrCat("has \"", named.first, "\"; known are te, unet"));
    }
  }

  // The adapter, or nothing if `fault` says why not.
  std::optional<AdapterRef> Finish(std::string* fault) {
    if (ref_.name.empty()) {
      Fail("names no adapter");
    }
    if (rank_.has_value()) {
      Fail("sets a dynamic rank, which is not supported");
    }
    if (!fault_.empty()) {
      *fault = fault_;
      return std::nullopt;
    }
    ref_.text_encoder_weight = text_encoder_[1].value_or(text_encoder_[0].value_or(1.0));
    ref_.weight = unet_[1].value_or(unet_[0].value_or(*ref_.text_encoder_weight));
    return ref_;
  }

 private:
  void Fail(std::string fault) {
    if (fault_.empty()) {
      fault_ = std::move(fault);
    }
  }

  void ReadWeight(absl::string_view text, std::optional<double>& weight) {
    double value = 0.0;
    if (!absl::SimpleAtod(text, &value)) {
      Fail(absl::StrCat("has the weight \"", text, "\", which is not a number"));
    }
    weight = value;
  }

  AdapterRef ref_;
  int places_ = 0;
  std::array<std::optional<double>, 2> text_encoder_, unet_;  // by place, by name
  std::optional<double> rank_;
  std::string fault_;
};

}  // namespace

TaggedPrompt TakeLoraTags(absl::string_view prompt) {
  TaggedPrompt tagged;
  for (size_t begin = prompt.find(kTagBegin); begin != absl::string_view::npos; begin = prompt.find(kTagBegin)) {
    const size_t end = prompt.find('>', begin);
    if (end == absl::string_view::npos || end == begin + kTagBegin.size()) {
      break;
    }
    absl::StrAppend(&tagged.text, prompt.substr(0, begin));
    TagArguments arguments;
    for (const absl::string_view argument :
         absl::StrSplit(prompt.substr(begin + kTagBegin.size(), end - begin - kTagBegin.size()), ':')) {
      arguments.Read(argument);
    }
    std::string fault;
    if (const std::optional<AdapterRef> adapter = arguments.Finish(&fault)) {
      tagged.adapters.push_back(*adapter);
    } else {
      tagged.faults.push_back(absl::StrCat("has the tag ", prompt.substr(begin, end + 1 - begin), ", which ", fault));
    }
    prompt.remove_prefix(end + 1);
  }
  absl::StrAppend(&tagged.text, prompt);
  return tagged;
}

}  // namespace hotlora
