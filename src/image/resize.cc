#include "src/image/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace hotlora {
namespace {

constexpr size_t kChannels = 3;
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

// A filter, and where it ends on either side.
struct Kernel {
  double support;
  double (*weight)(double x);
};

double Lanczos(double x) {
  constexpr double kLobes = 3.0;
  const auto sinc = [](double v) { return v == 0.0 ? 1.0 : std::sin(v * M_PI) / (v * M_PI); };
  return x <= -kLobes || x >= kLobes ? 0.0 : sinc(x) * sinc(x / kLobes);
}

// Keys' cubic convolution with a = -1/2.
double Cubic(double x) {
  constexpr double kA = -0.5;
  x = std::abs(x);
  if (x < 1.0) {
    return ((kA + 2.0) * x - (kA + 3.0)) * x * x + 1.0;
  }
  return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * kA : 0.0;
}

constexpr Kernel kLanczos = {3.0, Lanczos}, kCubic = {2.0, Cubic};

// The pixels [first, first + count) of a side that is brought to `length`.
struct Part {
  size_t length, first, count;
};

Taps MakeTaps(const Kernel& kernel, size_t from, const Part& to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to.length);
  const double widening = std::max(scale, 1.0), support = kernel.support * widening;
  Taps taps;
  taps.stride = static_cast<size_t>(std::ceil(support)) * 2 + 1;
  taps.weights.resize(to.count * taps.stride);
  std::vector<double> exact(taps.stride);
  for (size_t i = 0; i < to.count; ++i) {
    const double center = (static_cast<double>(to.first + i) + 0.5) * scale;
    const auto first = static_cast<size_t>(std::max(0.0, center - support + 0.5));
    const size_t end = std::min(from, static_cast<size_t>(center + support + 0.5));
    double sum = 0.0;
    for (size_t j = first; j < end; ++j) {
      exact[j - first] = kernel.weight((static_cast<double>(j) - center + 0.5) / widening);
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

// Takes the image's rows [first_row, first_row + rows) alone.
RgbImage ResizeRows(const RgbImage& image, const Taps& taps, size_t first_row, size_t rows) {
  const size_t width = taps.windows.size();
  RgbImage out{static_cast<uint32_t>(width), static_cast<uint32_t>(rows),
               std::vector<uint8_t>(width * rows * kChannels)};
  for (size_t y = 0; y < rows; ++y) {
    const uint8_t* const row = image.pixels.data() + (first_row + y) * image.width * kChannels;
    for (size_t x = 0; x < width; ++x) {
      const auto [first, count] = taps.windows[x];
      Blend(row + first * kChannels, kChannels, &taps.weights[x * taps.stride], count,
            out.pixels.data() + (y * width + x) * kChannels);
    }
  }
  return out;
}

// Takes an image whose first row is number `first_row` for the taps.
RgbImage ResizeColumns(const RgbImage& image, const Taps& taps, size_t first_row) {
  const size_t height = taps.windows.size(), row_bytes = image.width * kChannels;
  RgbImage out{image.width, static_cast<uint32_t>(height), std::vector<uint8_t>(height * row_bytes)};
  for (size_t y = 0; y < height; ++y) {
    const auto [first, count] = taps.windows[y];
    for (size_t x = 0; x < image.width; ++x) {
      Blend(image.pixels.data() + (first - first_row) * row_bytes + x * kChannels, row_bytes,
            &taps.weights[y * taps.stride], count, out.pixels.data() + y * row_bytes + x * kChannels);
    }
  }
  return out;
}

}  // namespace

RgbImage ResizeLanczos(const RgbImage& image, uint32_t width, uint32_t height) {
  const RgbImage rows = image.width == width
                            ? image
                            : ResizeRows(image, MakeTaps(kLanczos, image.width, {width, 0, width}), 0, image.height);
  return rows.height == height ? rows : ResizeColumns(rows, MakeTaps(kLanczos, rows.height, {height, 0, height}), 0);
}

RgbImage CoverSquare(const RgbImage& image, MiddleSquare square) {
  const size_t shorter = std::min(image.width, image.height);
  const auto middle = [&](size_t length) {
    const size_t scaled = length * square.edge / shorter;
    return MakeTaps(kCubic, length, {scaled, (scaled - square.side) / 2, square.side});
  };
  const Taps across = middle(image.width), down = middle(image.height);
  // The rows that the square is made of: of a high image a few.
  const size_t first = down.windows.front().first, end = down.windows.back().first + down.windows.back().count;
  return ResizeColumns(ResizeRows(image, across, first, end - first), down, first);
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
