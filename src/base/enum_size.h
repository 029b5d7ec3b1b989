#ifndef HOTLORA_SRC_BASE_ENUM_SIZE_H_
#define HOTLORA_SRC_BASE_ENUM_SIZE_H_

// The number of an enum's values, for a static_assert behind each table that is indexed by an enum: a value that is
// added to the enum and not to its tables does not compile.

#include <cstddef>
#include <string_view>

namespace hotlora {
namespace internal {

// GCC and Clang write a value as "hotlora::Color::kRed" if it has a name, else as "(hotlora::Color)3".
template <auto value>
constexpr bool HasName() {
  const std::string_view function = __PRETTY_FUNCTION__;
  constexpr std::string_view kBefore = "value = ";
  return function[function.rfind(kBefore) + kBefore.size()] != '(';
}

template <typename Enum, size_t from>
constexpr size_t CountNames() {
  if constexpr (HasName<static_cast<Enum>(from)>()) {
    return CountNames<Enum, from + 1>();
  }
  return from;
}

}  // namespace internal

// REQUIRES: an enum class whose values are 0, 1, 2 and so on.
template <typename Enum>
inline constexpr size_t kEnumSize = internal::CountNames<Enum, 0>();

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_ENUM_SIZE_H_
