// Images that callers send: any bytes as an init image and as a mask, decoded and brought to a request's size.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "src/base/error_details.h"
#include "src/image/image_header.h"
#include "src/pipeline/init_picture.h"

namespace {

// Larger pictures only take longer.
constexpr uint64_t kMaxDecodedPixels = 1 << 18;

void Check(bool holds) {
  if (!holds) {
    std::abort();
  }
}

void Load(const hotlora::ImageJob& job) {
  const auto picture = hotlora::LoadInitPicture(job);
  if (!picture.ok()) {
    Check(hotlora::GetErrorDetails(picture.status()).reason == "INVALID_REQUEST");
    Check(!hotlora::GetErrorDetails(picture.status()).violations.empty());
    return;
  }
  const size_t pixels = size_t{job.denoise.width} * job.denoise.height;
  Check(picture->image.width == job.denoise.width && picture->image.height == job.denoise.height);
  Check(picture->image.pixels.size() == pixels * 3);
  Check(picture->repaint.size() == (job.mask_image.empty() ? 0 : pixels));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string file(reinterpret_cast<const char*>(data), size);
  const auto header = hotlora::ReadImageHeader(file);
  if (!header.ok()) {
    Check(header.status().code() == absl::StatusCode::kInvalidArgument && !header.status().message().empty());
    return 0;
  }
  const uint64_t pixels = uint64_t{header->width} * header->height;
  Check(header->width >= 1 && header->width <= hotlora::kMaxInputSide);
  Check(header->height >= 1 && header->height <= hotlora::kMaxInputSide);
  Check(pixels <= hotlora::kMaxInputPixels && header->orientation >= 1 && header->orientation <= 8);
  if (pixels > kMaxDecodedPixels) {
    return 0;
  }
  hotlora::ImageJob job;
  job.init_image = file;
  job.denoise.width = header->upright_width();
  job.denoise.height = header->upright_height();
  Load(job);
  job.mask_image = file;
  job.denoise.width = 64;
  job.denoise.height = 48;
  Load(job);
  return 0;
}
