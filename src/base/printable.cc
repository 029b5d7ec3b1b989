#include "src/base/printable.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

#include "src/base/resource_name.h"

namespace hotlora {
namespace {

constexpr size_t kMaxNamed = 8;
constexpr size_t kMaxNameLength = 160;

}  // namespace

std::string Shortened(absl::string_view text, size_t most) {
  constexpr int kMostContinuationBytes = 3;  // of one character
  size_t end = std::min(text.size(), most);
  const auto is_inside_character = [&] {
    return end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80;
  };
  for (int i = 0; i < kMostContinuationBytes && is_inside_character(); ++i) {
    --end;
  }
  return std::string(text.substr(0, end));
}

std::string PrintableName(absl::string_view name) {
  const std::string shown = Shortened(name, kMaxNameLength);
  return absl::StrCat("\"", absl::StrReplaceAll(EscapeName(shown), {{"\"", "\\\""}}),
                      shown.size() < name.size() ? "..." : "", "\"");
}

std::string ShapeText(absl::Span<const int64_t> shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

void NameSample::Add(absl::string_view name) { AddPrintable(PrintableName(name)); }

void NameSample::AddPrintable(std::string text) {
  if (++count_ <= kMaxNamed) {
    first_.push_back(std::move(text));
  }
}

std::string NameSample::ToString() const {
  return absl::StrCat(absl::StrJoin(first_, ", "),
                      count_ > first_.size() ? absl::StrCat(" and ", count_ - first_.size(), " more") : "");
}

}  // namespace hotlora
