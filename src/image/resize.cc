#include "src/image/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace hotlora {
namespace {

constexpr size_t kChannels = 3;
constexpr double kLobes = 3.0;
constexpr int kPrecisionBits = 32 - 8 - 2;  // of the weights: 8 bits of a pixel, 2 to spare for sums beyond 1

// Which pixels make up each pixel of the result, along one axis.
struct Taps {
  struct Window {
    size_t first = 0, count = 0;
  };
  std::vector<Window> windows;
  std::vector<int32_t> weights;  // windows.size() x stride, fixed point
  size_t stride = 0;
};

double Lanczos(double x) {
  if (x <= -kLobes || x >= kLobes) {
    return 0.0;
  }
  const auto sinc = [](double v) { return v == 0.0 ? 1.0 : std::sin(v * M_PI) / (v * M_PI); };
  return sinc(x) * sinc(x / kLobes);
}

Taps MakeTaps(size_t from, size_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double widening = std::max(scale, 1.0), support = kLobes * widening;
  Taps taps;
  taps.stride = static_cast<size_t>(std::ceil(support)) * 2 + 1;
  taps.weights.resize(to * taps.stride);
  std::vector<double> exact(taps.stride);
  for (size_t i = 0; i < to; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const auto first = static_cast<size_t>(std::max(0.0, center - support + 0.5));
    const size_t end = std::min(from, static_cast<size_t>(center + support + 0.5));
    double sum = 0.0;
    for (size_t j = first; j < end; ++j) {
      exact[j - first] = Lanczos((static_cast<double>(j) - center + 0.5) / widening);
      sum += exact[j - first];
    }
    for (size_t j = 0; j < end - first; ++j) {
      const double weight = (sum != 0.0 ? exact[j] / sum : exact[j]) * (1 << kPrecisionBits);
      taps.weights[i * taps.stride + j] = static_cast<int32_t>(weight + (weight < 0.0 ? -0.5 : 0.5));
    }
    taps.windows.push_back({first, end - first});
  }
  return taps;
}

// The weighted sum of pixels `step` bytes apart, for each channel.
void Blend(const uint8_t* pixels, size_t step, const int32_t* weights, size_t count, uint8_t* out) {
  int32_t sums[kChannels];
  std::fill_n(sums, kChannels, 1 << (kPrecisionBits - 1));
  for (size_t k = 0; k < count; ++k) {
    for (size_t c = 0; c < kChannels; ++c) {
      sums[c] += pixels[k * step + c] * weights[k];
    }
  }
  for (size_t c = 0; c < kChannels; ++c) {
    out[c] = static_cast<uint8_t>(std::clamp(sums[c] >> kPrecisionBits, 0, 255));
  }
}

RgbImage ResizeRows(const RgbImage& image, uint32_t width) {
  const Taps taps = MakeTaps(image.width, width);
  RgbImage out{width, image.height, std::vector<uint8_t>(size_t{width} * image.height * kChannels)};
  for (size_t y = 0; y < image.height; ++y) {
    const uint8_t* const row = image.pixels.data() + y * image.width * kChannels;
    for (size_t x = 0; x < width; ++x) {
      const auto [first, count] = taps.windows[x];
      Blend(row + first * kChannels, kChannels, &taps.weights[x * taps.stride], count,
            out.pixels.data() + (y * width + x) * kChannels);
    }
  }
  return out;
}

RgbImage ResizeColumns(const RgbImage& image, uint32_t height) {
  const Taps taps = MakeTaps(image.height, height);
  RgbImage out{image.width, height, std::vector<uint8_t>(size_t{image.width} * height * kChannels)};
  const size_t row_bytes = image.width * kChannels;
  for (size_t y = 0; y < height; ++y) {
    const auto [first, count] = taps.windows[y];
    for (size_t x = 0; x < image.width; ++x) {
      Blend(image.pixels.data() + first * row_bytes + x * kChannels, row_bytes, &taps.weights[y * taps.stride], count,
            out.pixels.data() + y * row_bytes + x * kChannels);
    }
  }
  return out;
}

}  // namespace

RgbImage ResizeLanczos(const RgbImage& image, uint32_t width, uint32_t height) {
  const RgbImage rows = image.width == width ? image : ResizeRows(image, width);
  return rows.height == height ? rows : ResizeColumns(rows, height);
}

RgbImage ResizeNearest(const RgbImage& image, uint32_t width, uint32_t height) {
  const auto nearest = [](size_t i, uint32_t from, uint32_t to) {
    return std::min<size_t>(from - 1, static_cast<size_t>((static_cast<double>(i) + 0.5) * from / to));
  };
  RgbImage out{width, height, std::vector<uint8_t>(size_t{width} * height * kChannels)};
  for (size_t y = 0; y < height; ++y) {
    const size_t from_y = nearest(y, image.height, height);
    for (size_t x = 0; x < width; ++x) {
      const size_t from = (from_y * image.width + nearest(x, image.width, width)) * kChannels;
      std::memcpy(out.pixels.data() + (y * width + x) * kChannels, image.pixels.data() + from, kChannels);
    }
  }
  return out;
}

std::vector<uint8_t> Luma(const RgbImage& image) {
  // In 16 bits of fraction: 0.299, 0.587, 0.114.
  constexpr uint32_t kRed = 19595, kGreen = 38470, kBlue = 7471, kHalf = 1 << 15;
  std::vector<uint8_t> luma(image.pixels.size() / kChannels);
  for (size_t i = 0; i < luma.size(); ++i) {
    const uint8_t* const pixel = &image.pixels[i * kChannels];
    luma[i] = static_cast<uint8_t>((pixel[0] * kRed + pixel[1] * kGreen + pixel[2] * kBlue + kHalf) >> 16);
  }
  return luma;
}

}  // namespace hotlora
