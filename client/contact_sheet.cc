#include "client/contact_sheet.h"

#include <png.h>

#include <algorithm>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#include "src/base/status_macros.h"

namespace hotlora {
namespace {

constexpr uint32_t kGap = 4;
constexpr uint64_t kMaxPixels = 100'000'000;

struct Picture {
  uint32_t width = 0, height = 0;
  std::vector<uint8_t> rgb;  // height x width x 3
};

absl::StatusOr<Picture> ReadPng(const std::string& file) {
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  if (png_image_begin_read_from_file(&image, file.c_str()) == 0) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", image.message));
  }
  image.format = PNG_FORMAT_RGB;
  if (uint64_t{image.width} * image.height > kMaxPixels) {
    png_image_free(&image);
    return absl::InvalidArgumentError(absl::StrCat(file, ": over ", kMaxPixels, " pixels"));
  }
  Picture picture = {image.width, image.height, std::vector<uint8_t>(PNG_IMAGE_SIZE(image))};
  const png_color white = {255, 255, 255};
  if (png_image_finish_read(&image, &white, picture.rgb.data(), 0, nullptr) == 0) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", image.message));
  }
  return picture;
}

}  // namespace

absl::Status WriteContactSheet(const std::vector<std::string>& pictures, uint32_t columns, const std::string& out) {
  if (pictures.empty() || columns == 0) {
    return absl::InvalidArgumentError("a sheet needs at least one picture and one column");
  }
  Picture sheet;
  uint64_t cell_width = 0, cell_height = 0;
  for (size_t i = 0; i < pictures.size(); ++i) {
    ABSL_ASSIGN_OR_RETURN(const Picture picture, ReadPng(pictures[i]));
    if (i == 0) {
      cell_width = uint64_t{picture.width} + kGap;
      cell_height = uint64_t{picture.height} + kGap;
      const uint64_t width = std::min<uint64_t>(columns, pictures.size()) * cell_width + kGap;
      const uint64_t height = (pictures.size() + columns - 1) / columns * cell_height + kGap;
      if (width * height > kMaxPixels) {
        return absl::InvalidArgumentError(
            absl::StrCat("the sheet would be ", width, "x", height, ", over ", kMaxPixels, " pixels"));
      }
      sheet = {static_cast<uint32_t>(width), static_cast<uint32_t>(height),
               std::vector<uint8_t>(width * height * 3, 255)};
    } else if (picture.width + kGap != cell_width || picture.height + kGap != cell_height) {
      return absl::InvalidArgumentError(absl::StrCat(pictures[i], ": is ", picture.width, "x", picture.height,
                                                     ", the first picture is ", cell_width - kGap, "x",
                                                     cell_height - kGap));
    }
    const uint64_t left = kGap + i % columns * cell_width, top = kGap + i / columns * cell_height;
    for (uint32_t y = 0; y < picture.height; ++y) {
      const auto row = picture.rgb.begin() + static_cast<ptrdiff_t>(uint64_t{y} * picture.width * 3);
      std::copy_n(row, size_t{picture.width} * 3,
                  sheet.rgb.begin() + static_cast<ptrdiff_t>(((top + y) * sheet.width + left) * 3));
    }
  }
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  image.width = sheet.width;
  image.height = sheet.height;
  image.format = PNG_FORMAT_RGB;
  if (png_image_write_to_file(&image, out.c_str(), 0, sheet.rgb.data(), 0, nullptr) == 0) {
    return absl::InvalidArgumentError(absl::StrCat(out, ": ", image.message));
  }
  return absl::OkStatus();
}

}  // namespace hotlora
