#include "src/adapter_format/stored_values.h"

#include <cmath>
#include <cstring>
#include <limits>

namespace hotlora {
namespace {

template <typename T>
T Load(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof(T));
  return value;
}

// An IEEE number is infinite or NaN if all bits of its exponent are set: then, and only then, adding the lowest of
// them carries into the sign bit. Without a branch, so that the compiler takes many numbers at a time.
template <typename Bits>
bool AllFiniteBits(const std::byte* data, size_t count, Bits exponent) {
  const auto lowest = static_cast<Bits>(exponent & -exponent);
  Bits carried = 0;
  for (size_t i = 0; i < count; ++i) {
    carried |= static_cast<Bits>((Load<Bits>(data + i * sizeof(Bits)) & exponent) + lowest);
  }
  return carried >> (8 * sizeof(Bits) - 1) == 0;
}

double FromHalf(uint16_t bits) {
  const double sign = bits >> 15 ? -1.0 : 1.0;
  const int exponent = bits >> 10 & 31;
  const double fraction = bits & 1023;
  if (exponent == 31) {
    return fraction == 0 ? sign * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  }
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

double FromBfloat(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

}  // namespace

bool IsWeightDtype(StoredDtype dtype) {
  return dtype == StoredDtype::kF32 || dtype == StoredDtype::kF16 || dtype == StoredDtype::kBF16 ||
         dtype == StoredDtype::kF64;
}

uint64_t LoadedBytes(const StoredTensor& tensor) {
  return tensor.dtype == StoredDtype::kF64 ? tensor.bytes() / 2 : tensor.bytes();
}

bool AllFinite(const StoredTensor& tensor, const std::byte* data) {
  const size_t count = tensor.bytes() / SizeOf(tensor.dtype);
  switch (tensor.dtype) {
    case StoredDtype::kF16:
      return AllFiniteBits<uint16_t>(data, count, 0x7C00);
    case StoredDtype::kBF16:
      return AllFiniteBits<uint16_t>(data, count, 0x7F80);
    case StoredDtype::kF32:
      return AllFiniteBits<uint32_t>(data, count, 0x7F800000);
    default:
      break;
  }
  for (size_t i = 0; i < count; ++i) {
    // Not a cast: a double beyond float's range has no defined value as float.
    if (!(std::abs(Load<double>(data + i * sizeof(double))) <=
          static_cast<double>(std::numeric_limits<float>::max()))) {
      return false;
    }
  }
  return true;
}

std::vector<float> ReadFloats(const StoredTensor& tensor, const std::byte* data) {
  const size_t size = SizeOf(tensor.dtype);
  std::vector<float> values(tensor.bytes() / size);
  for (size_t i = 0; i < values.size(); ++i) {
    const std::byte* const value = data + i * size;
    switch (tensor.dtype) {
      case StoredDtype::kF16:
        values[i] = static_cast<float>(FromHalf(Load<uint16_t>(value)));
        break;
      case StoredDtype::kBF16:
        values[i] = static_cast<float>(FromBfloat(Load<uint16_t>(value)));
        break;
      case StoredDtype::kF32:
        values[i] = Load<float>(value);
        break;
      default:
        values[i] = static_cast<float>(Load<double>(value));
        break;
    }
  }
  return values;
}

std::optional<double> ReadScalar(const StoredTensor& tensor, const std::byte* data) {
  if (tensor.bytes() != SizeOf(tensor.dtype)) {
    return std::nullopt;
  }
  switch (tensor.dtype) {
    case StoredDtype::kF64:
      return Load<double>(data);
    case StoredDtype::kF32:
      return Load<float>(data);
    case StoredDtype::kF16:
      return FromHalf(Load<uint16_t>(data));
    case StoredDtype::kBF16:
      return FromBfloat(Load<uint16_t>(data));
    case StoredDtype::kI64:
      return static_cast<double>(Load<int64_t>(data));
    case StoredDtype::kI32:
      return Load<int32_t>(data);
    case StoredDtype::kI16:
      return Load<int16_t>(data);
    case StoredDtype::kI8:
      return Load<int8_t>(data);
    case StoredDtype::kU8:
      return Load<uint8_t>(data);
    case StoredDtype::kU16:
      return Load<uint16_t>(data);
    case StoredDtype::kU32:
      return Load<uint32_t>(data);
    case StoredDtype::kU64:
      return static_cast<double>(Load<uint64_t>(data));
    default:
      return std::nullopt;
  }
}

}  // namespace hotlora
