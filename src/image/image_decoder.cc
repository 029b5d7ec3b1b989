#include "src/image/image_decoder.h"

// jpeglib.h wants size_t and FILE.
#include <jerror.h>
#include <jpeglib.h>
#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include <webp/decode.h>

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/status_macros.h"
#include "src/image/image_header.h"

namespace hotlora {
namespace {

constexpr size_t kRgb = 3, kRgba = 4;

absl::Status Undecodable(absl::string_view format, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("is a ", format, " file that cannot be decoded: ", why));
}

// Over white, rounded to nearest.
uint8_t OverWhite(uint8_t value, uint8_t alpha) {
  return static_cast<uint8_t>((value * alpha + 255 * (255 - alpha) + 127) / 255);
}

void FlattenRow(const uint8_t* rgba, size_t width, uint8_t* rgb) {
  for (size_t x = 0; x < width; ++x) {
    for (size_t c = 0; c < kRgb; ++c) {
      rgb[kRgb * x + c] = OverWhite(rgba[kRgba * x + c], rgba[kRgba * x + 3]);
    }
  }
}

// --- PNG. libpng and libjpeg report errors by longjmp: no object with a destructor may live in the frames it skips, so
// each reader keeps its own in the caller.

struct PngSource {
  absl::string_view left;
  std::string error;
};

void ReadPngBytes(png_structp png, png_bytep to, png_size_t count) {
  auto* const source = static_cast<PngSource*>(png_get_io_ptr(png));
  if (count > source->left.size()) {
    png_error(png, "it is cut off");
  }
  std::memcpy(to, source->left.data(), count);
  source->left.remove_prefix(count);
}

void NotePngError(png_structp png, png_const_charp message) {
  static_cast<PngSource*>(png_get_error_ptr(png))->error = message;
  longjmp(png_jmpbuf(png), 1);
}

// To 8-bit RGB, or RGBA if there is transparency.
void RequestPngTransforms(png_structp png, png_infop info) {
  png_set_expand(png);  // palettes, fewer than 8 bits, tRNS
  png_set_scale_16(png);
  png_set_gray_to_rgb(png);
  png_read_update_info(png, info);
}

// `rows`: where rows are decoded to; all of them if the file is interlaced.
bool ReadPng(png_structp png, png_infop info, PngSource* source, std::vector<uint8_t>* rows, RgbImage* image) {
  if (setjmp(png_jmpbuf(png)) != 0) {
    return false;
  }
  png_set_read_fn(png, source, ReadPngBytes);
  png_set_user_limits(png, image->width, image->height);
  // tRNS is the only ancillary chunk that libpng needs. The others may hold compressed bombs.
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  png_read_info(png, info);
  const int passes = png_set_interlace_handling(png);
  RequestPngTransforms(png, info);
  const size_t row_bytes = png_get_rowbytes(png, info), width = image->width, channels = row_bytes / width;
  if (channels != kRgb && channels != kRgba) {
    png_error(png, "its pixels have an unknown form");
  }
  rows->resize(row_bytes * (passes > 1 ? image->height : 1));
  image->pixels.resize(size_t{image->height} * width * kRgb);
  for (int pass = 0; pass < passes; ++pass) {
    for (size_t y = 0; y < image->height; ++y) {
      uint8_t* const row = rows->data() + (passes > 1 ? y * row_bytes : 0);
      png_read_row(png, row, nullptr);
      uint8_t* const out = image->pixels.data() + y * width * kRgb;
      if (pass + 1 < passes) {
        continue;
      }
      if (channels == kRgba) {
        FlattenRow(row, width, out);
      } else {
        std::memcpy(out, row, row_bytes);
      }
    }
  }
  png_read_end(png, nullptr);
  return true;
}

absl::Status DecodePng(absl::string_view file, RgbImage& image) {
  PngSource source{file, ""};
  std::vector<uint8_t> rows;
  struct Handle {
    png_structp png = nullptr;
    png_infop info = nullptr;
    ~Handle() { png_destroy_read_struct(&png, &info, nullptr); }
  } handle;
  handle.png =
      png_create_read_struct(PNG_LIBPNG_VER_STRING, &source, NotePngError, [](png_structp, png_const_charp) {});
  handle.info = handle.png != nullptr ? png_create_info_struct(handle.png) : nullptr;
  const bool decoded = handle.info != nullptr && ReadPng(handle.png, handle.info, &source, &rows, &image);
  return decoded ? absl::OkStatus() : Undecodable("PNG", source.error.empty() ? "no memory" : source.error);
}

// --- JPEG

struct JpegReader {
  jpeg_error_mgr errors;  // first, so that libjpeg's pointer is ours too
  jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

void NoteJpegError(j_common_ptr jpeg) {
  auto* const reader = reinterpret_cast<JpegReader*>(jpeg->err);
  (*jpeg->err->format_message)(jpeg, reader->message);
  longjmp(reader->jump, 1);
}

// Level -1: the data are corrupt, and libjpeg would make something up. It also says so of what does no harm.
void NoteJpegMessage(j_common_ptr jpeg, int level) {
  const int code = jpeg->err->msg_code;
  const bool harmless =
      code == JWRN_EXTRANEOUS_DATA || code == JWRN_ADOBE_XFORM || code == JWRN_JFIF_MAJOR || code == JWRN_BOGUS_ICC;
  if (level < 0 && !harmless) {
    NoteJpegError(jpeg);
  }
}

// A small file can ask for its whole area to be gone over any number of times.
void LimitJpegScans(j_common_ptr jpeg) {
  constexpr int kMostScans = 100;
  auto* const reader = reinterpret_cast<JpegReader*>(jpeg->err);
  if (jpeg->is_decompressor && reinterpret_cast<jpeg_decompress_struct*>(jpeg)->input_scan_number > kMostScans) {
    std::snprintf(reader->message, sizeof reader->message, "it has more than %d scans", kMostScans);
    longjmp(reader->jump, 1);
  }
}

// Adobe's programs store CMYK inverted: 255 means that there is no ink.
void CmykRowToRgb(const uint8_t* cmyk, size_t width, bool inverted, uint8_t* rgb) {
  for (size_t x = 0; x < width; ++x) {
    const auto light = [&](size_t c) { return inverted ? cmyk[4 * x + c] : 255 - cmyk[4 * x + c]; };
    for (size_t c = 0; c < kRgb; ++c) {
      rgb[kRgb * x + c] = static_cast<uint8_t>((light(c) * light(3) + 127) / 255);
    }
  }
}

bool ReadJpeg(absl::string_view file, jpeg_decompress_struct* jpeg, JpegReader* reader, jpeg_progress_mgr* progress,
              std::vector<uint8_t>* cmyk_row, RgbImage* image) {
  if (setjmp(reader->jump) != 0) {
    return false;
  }
  jpeg_create_decompress(jpeg);
  jpeg->progress = progress;
  jpeg_mem_src(jpeg, reinterpret_cast<const unsigned char*>(file.data()), file.size());
  jpeg_read_header(jpeg, TRUE);
  if (jpeg->image_width != image->width || jpeg->image_height != image->height) {
    std::snprintf(reader->message, sizeof reader->message, "it has two sizes");
    return false;
  }
  const bool cmyk = jpeg->num_components == 4;
  jpeg->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(jpeg);
  const size_t width = image->width;
  cmyk_row->resize(cmyk ? width * 4 : 0);
  image->pixels.resize(size_t{image->height} * width * kRgb);
  while (jpeg->output_scanline < jpeg->output_height) {
    uint8_t* const out = image->pixels.data() + size_t{jpeg->output_scanline} * width * kRgb;
    uint8_t* row = cmyk ? cmyk_row->data() : out;
    jpeg_read_scanlines(jpeg, &row, 1);
    if (cmyk) {
      CmykRowToRgb(row, width, jpeg->saw_Adobe_marker, out);
    }
  }
  jpeg_finish_decompress(jpeg);
  return true;
}

absl::Status DecodeJpeg(absl::string_view file, RgbImage& image) {
  struct Handle {
    jpeg_decompress_struct jpeg{};
    ~Handle() { jpeg_destroy_decompress(&jpeg); }
  } handle;
  JpegReader reader{};
  std::vector<uint8_t> cmyk_row;
  handle.jpeg.err = jpeg_std_error(&reader.errors);
  reader.errors.error_exit = NoteJpegError;
  reader.errors.emit_message = NoteJpegMessage;
  jpeg_progress_mgr progress{};
  progress.progress_monitor = LimitJpegScans;
  const bool decoded = ReadJpeg(file, &handle.jpeg, &reader, &progress, &cmyk_row, &image);
  return decoded ? absl::OkStatus() : Undecodable("JPEG", reader.message);
}

// --- WebP

absl::Status DecodeWebp(absl::string_view file, RgbImage& image) {
  const auto* const data = reinterpret_cast<const uint8_t*>(file.data());
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(data, file.size(), &features) != VP8_STATUS_OK) {
    return Undecodable("WebP", "its header is broken");
  }
  const size_t width = image.width, height = image.height, channels = features.has_alpha != 0 ? kRgba : kRgb;
  image.pixels.resize(height * width * kRgb);
  std::vector<uint8_t> with_alpha(channels == kRgba ? height * width * kRgba : 0);
  uint8_t* const decoded = channels == kRgba ? WebPDecodeRGBAInto(data, file.size(), with_alpha.data(),
                                                                  with_alpha.size(), static_cast<int>(width * kRgba))
                                             : WebPDecodeRGBInto(data, file.size(), image.pixels.data(),
                                                                 image.pixels.size(), static_cast<int>(width * kRgb));
  if (decoded == nullptr) {
    return Undecodable("WebP", "it is cut off or corrupt");
  }
  if (channels == kRgba) {
    FlattenRow(with_alpha.data(), width * height, image.pixels.data());
  }
  return absl::OkStatus();
}

// --- EXIF's eight orientations: mirrored, turned, or both.

RgbImage Upright(RgbImage stored, const ImageHeader& header) {
  if (header.orientation == 1) {
    return stored;
  }
  const size_t w = stored.width, h = stored.height;
  RgbImage image{header.upright_width(), header.upright_height(), std::vector<uint8_t>(stored.pixels.size())};
  uint8_t* out = image.pixels.data();
  for (size_t y = 0; y < image.height; ++y) {
    for (size_t x = 0; x < image.width; ++x) {
      size_t from_x = header.orientation >= 5 ? y : x, from_y = header.orientation >= 5 ? x : y;
      const bool mirror_x = header.orientation == 2 || header.orientation == 3 || header.orientation >= 7;
      const bool mirror_y =
          header.orientation == 3 || header.orientation == 4 || header.orientation == 6 || header.orientation == 7;
      from_x = mirror_x ? w - 1 - from_x : from_x;
      from_y = mirror_y ? h - 1 - from_y : from_y;
      std::memcpy(out, stored.pixels.data() + (from_y * w + from_x) * kRgb, kRgb);
      out += kRgb;
    }
  }
  return image;
}

absl::Status DecodeStored(absl::string_view file, InputFormat format, RgbImage& image) {
  switch (format) {
    case InputFormat::kPng:
      return DecodePng(file, image);
    case InputFormat::kJpeg:
      return DecodeJpeg(file, image);
    case InputFormat::kWebp:
      return DecodeWebp(file, image);
  }
  return absl::InternalError("unknown image format");
}

}  // namespace

absl::StatusOr<RgbImage> DecodeImage(absl::string_view file) {
  ABSL_ASSIGN_OR_RETURN(const ImageHeader header, ReadImageHeader(file));
  try {
    RgbImage image{header.width, header.height, {}};
    ABSL_RETURN_IF_ERROR(DecodeStored(file, header.format, image));
    return Upright(std::move(image), header);
  } catch (const std::bad_alloc&) {
    return MakeError(absl::StatusCode::kResourceExhausted, error_reason::kOutOfMemory, "no memory to decode an image");
  }
}

}  // namespace hotlora
