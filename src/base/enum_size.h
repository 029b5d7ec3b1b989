#ifndef HOTLORA_SRC_BASE_ENUM_SIZE_H_
#define HOTLORA_SRC_BASE_ENUM_SIZE_H_

// The values of an enum, for loops over them, and their number, for a static_assert behind each table that is indexed
// by an enum: a value that is added to the enum and not to its tables does not compile.

#include <array>
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

// All values, in their order.
template <typename Enum>
constexpr std::array<Enum, kEnumSize<Enum>> AllOf() {
  std::array<Enum, kEnumSize<Enum>> all{};
  for (size_t i = 0; i < all.size(); ++i) {
    all[i] = static_cast<Enum>(i);
  }
  return all;
}

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_ENUM_SIZE_H_
