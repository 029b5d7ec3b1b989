#include "src/image/image_encoder.h"

#include <jpeglib.h>
#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include <webp/encode.h>

#include "src/base/error_details.h"
#include "src/base/error_reason.h"

namespace hotlora {
namespace {

constexpr int kChannels = 3;
// Level 2 with the SUB filter: a third of the default level's time for a few per cent more bytes.
constexpr int kPngLevel = 2;

absl::Status Failed(absl::string_view format) {
  return MakeError(absl::StatusCode::kResourceExhausted, error_reason::kOutOfMemory,
                   absl::StrCat("the image could not be encoded as ", format));
}

// libpng and libjpeg report errors by longjmp: no object with a destructor may live in the frames it skips, so each
// encoder keeps its own in the caller.
// And no exception may pass through them, so want of memory becomes such an error.
void AppendPng(png_structp png, png_bytep data, png_size_t size) {
  bool appended = false;
  try {
    static_cast<std::string*>(png_get_io_ptr(png))->append(reinterpret_cast<const char*>(data), size);
    appended = true;
  } catch (const std::bad_alloc&) {
  }
  if (!appended) {
    png_error(png, "no memory");
  }
}

bool WritePng(const RgbImage& image, png_text* text, png_structp png, png_infop info, std::string* out) {
  if (setjmp(png_jmpbuf(png)) != 0) {
    return false;
  }
  png_set_write_fn(png, out, &AppendPng, nullptr);
  png_set_IHDR(png, info, image.width, image.height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_set_compression_level(png, kPngLevel);
  png_set_filter(png, PNG_FILTER_TYPE_BASE, PNG_FILTER_SUB);
  if (text != nullptr) {
    png_set_text(png, info, text, 1);
  }
  png_write_info(png, info);
  for (uint32_t y = 0; y < image.height; ++y) {
    png_write_row(png, image.pixels.data() + size_t{y} * image.width * kChannels);
  }
  png_write_end(png, info);
  return true;
}

void AppendBigEndian(std::string& out, uint32_t value, int bytes) {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(value >> shift));
  }
}

void AppendLittleEndian(std::string& out, uint32_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) {
    out.push_back(static_cast<char>(value >> 8 * i));
  }
}

// UTF-8 to UTF-16, high byte first. Bytes that are not UTF-8 become U+FFFD.
std::string Utf16(absl::string_view text) {
  std::string out;
  size_t at = 0;
  while (at < text.size()) {
    const auto lead = static_cast<uint8_t>(text[at++]);
    int following = lead < 0x80 ? 0 : lead < 0xC2 ? -1 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : lead < 0xF5 ? 3 : -1;
    uint32_t code = following <= 0 ? lead : lead & (0x3F >> following);
    const bool sound = following >= 0;
    for (; following > 0 && at < text.size() && (text[at] & 0xC0) == 0x80; --following) {
      code = code << 6 | (text[at++] & 0x3F);
    }
    const bool surrogate = code >= 0xD800 && code < 0xE000;
    code = !sound || following != 0 || surrogate || code > 0x10FFFF ? 0xFFFD : code;
    if (code >= 0x10000) {
      AppendBigEndian(out, 0xD800 + ((code - 0x10000) >> 10), 2);
      code = 0xDC00 + ((code - 0x10000) & 0x3FF);
    }
    AppendBigEndian(out, code, 2);
  }
  return out;
}

// An EXIF block, which is a TIFF file, with `text` as its UserComment; "" if a JPEG's segment could not hold it.
std::string UserCommentExif(const std::string& text) {
  constexpr size_t kMaxBytes = 65'000;
  constexpr uint32_t kExifDirectory = 0x8769, kUserComment = 0x9286, kLong = 4, kUndefined = 7;
  const std::string comment = std::string("UNICODE\0", 8) + Utf16(text);
  if (text.empty() || comment.size() > kMaxBytes) {
    return "";
  }
  std::string exif("MM\0*", 4);
  AppendBigEndian(exif, 8, 4);  // where the first directory lies
  const auto directory_of_one = [&exif](uint32_t tag, uint32_t type, uint32_t count, uint32_t value) {
    AppendBigEndian(exif, 1, 2);
    AppendBigEndian(exif, tag, 2);
    AppendBigEndian(exif, type, 2);
    AppendBigEndian(exif, count, 4);
    AppendBigEndian(exif, value, 4);
    AppendBigEndian(exif, 0, 4);  // no further directory
  };
  constexpr uint32_t kDirectoryBytes = 18;
  directory_of_one(kExifDirectory, kLong, 1, 8 + kDirectoryBytes);
  directory_of_one(kUserComment, kUndefined, static_cast<uint32_t>(comment.size()), 8 + 2 * kDirectoryBytes);
  return exif + comment;
}

absl::StatusOr<std::string> EncodePng(const RgbImage& image, std::string parameters) {
  std::string out;
  // PNG's tEXt is Latin-1, its iTXt UTF-8; neither may hold a NUL.
  std::replace(parameters.begin(), parameters.end(), '\0', ' ');
  const bool ascii = std::all_of(parameters.begin(), parameters.end(), absl::ascii_isascii);
  char key[] = "parameters", none[] = "";
  png_text text{};
  text.compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
  text.key = key;
  text.text = parameters.data();
  text.text_length = ascii ? parameters.size() : 0;
  text.itxt_length = ascii ? 0 : parameters.size();
  text.lang = none;
  text.lang_key = none;
  png_structp png = png_create_write_struct(
      PNG_LIBPNG_VER_STRING, nullptr, [](png_structp p, png_const_charp) { longjmp(png_jmpbuf(p), 1); },
      [](png_structp, png_const_charp) {});
  png_infop info = png != nullptr ? png_create_info_struct(png) : nullptr;
  const bool written = info != nullptr && WritePng(image, parameters.empty() ? nullptr : &text, png, info, &out);
  png_destroy_write_struct(&png, &info);
  if (!written) {
    return Failed("PNG");
  }
  return out;
}

struct JpegError {
  jpeg_error_mgr base;  // first, so that libjpeg's pointer is ours too
  jmp_buf jump;
};

bool WriteJpeg(const RgbImage& image, int quality, const std::string& exif, jpeg_compress_struct* jpeg,
               JpegError* error, unsigned char** data,
               unsigned long* size) {  // NOLINT(google-runtime-int): libjpeg's own type
  if (setjmp(error->jump) != 0) {
    return false;
  }
  jpeg_create_compress(jpeg);
  jpeg_mem_dest(jpeg, data, size);
  jpeg->image_width = image.width;
  jpeg->image_height = image.height;
  jpeg->input_components = kChannels;
  jpeg->in_color_space = JCS_RGB;
  jpeg_set_defaults(jpeg);
  jpeg_set_quality(jpeg, quality, TRUE);
  jpeg_start_compress(jpeg, TRUE);
  if (!exif.empty()) {
    jpeg_write_marker(jpeg, JPEG_APP0 + 1, reinterpret_cast<const JOCTET*>(exif.data()),
                      static_cast<unsigned int>(exif.size()));
  }
  while (jpeg->next_scanline < jpeg->image_height) {
    auto* row = const_cast<JSAMPROW>(image.pixels.data() + size_t{jpeg->next_scanline} * image.width * kChannels);
    jpeg_write_scanlines(jpeg, &row, 1);
  }
  jpeg_finish_compress(jpeg);
  return true;
}

absl::StatusOr<std::string> EncodeJpeg(const RgbImage& image, int quality, const std::string& parameters) {
  jpeg_compress_struct jpeg{};
  JpegError error{};
  jpeg.err = jpeg_std_error(&error.base);
  error.base.error_exit = [](j_common_ptr info) { longjmp(reinterpret_cast<JpegError*>(info->err)->jump, 1); };
  unsigned char* data = nullptr;
  unsigned long size = 0;  // NOLINT(google-runtime-int)
  std::string exif = UserCommentExif(parameters);
  exif = exif.empty() ? "" : std::string("Exif\0\0", 6) + exif;
  const bool written = WriteJpeg(image, quality, exif, &jpeg, &error, &data, &size);
  jpeg_destroy_compress(&jpeg);
  const std::unique_ptr<unsigned char, decltype(&free)> owned(data, &free);
  if (!written) {
    return Failed("JPEG");
  }
  return std::string(reinterpret_cast<const char*>(data), size);
}

// A simple WebP file as an extended one that carries `exif`.
std::string WithExif(const std::string& webp, const RgbImage& image, const std::string& exif) {
  constexpr size_t kRiffHeader = 12;
  constexpr uint32_t kExtendedBytes = 10, kHasExif = 0x08;
  std::string chunks = "WEBPVP8X";
  AppendLittleEndian(chunks, kExtendedBytes, 4);
  AppendLittleEndian(chunks, kHasExif, 4);
  AppendLittleEndian(chunks, image.width - 1, 3);
  AppendLittleEndian(chunks, image.height - 1, 3);
  chunks += webp.substr(kRiffHeader);
  chunks += "EXIF";
  AppendLittleEndian(chunks, static_cast<uint32_t>(exif.size()), 4);
  chunks += exif;
  chunks.append(exif.size() % 2, '\0');
  std::string out = "RIFF";
  AppendLittleEndian(out, static_cast<uint32_t>(chunks.size()), 4);
  return out + chunks;
}

absl::StatusOr<std::string> EncodeWebp(const RgbImage& image, int quality, const std::string& parameters) {
  uint8_t* data = nullptr;
  const int stride = static_cast<int>(image.width) * kChannels;
  const size_t size = WebPEncodeRGB(image.pixels.data(), static_cast<int>(image.width), static_cast<int>(image.height),
                                    stride, static_cast<float>(quality), &data);
  if (size == 0) {
    return Failed("WebP");
  }
  const std::unique_ptr<uint8_t, decltype(&WebPFree)> owned(data, &WebPFree);
  std::string out(reinterpret_cast<const char*>(data), size);
  const std::string exif = UserCommentExif(parameters);
  return exif.empty() ? out : WithExif(out, image, exif);
}

}  // namespace

absl::StatusOr<std::string> EncodeImage(const RgbImage& image, ImageFormat format, uint32_t quality,
                                        const std::string& parameters) {
  switch (format) {
    case ImageFormat::kPng:
      return EncodePng(image, parameters);
    case ImageFormat::kJpeg:
      return EncodeJpeg(image, static_cast<int>(quality), parameters);
    case ImageFormat::kWebp:
      return EncodeWebp(image, static_cast<int>(quality), parameters);
    case ImageFormat::kRawRgb8:
      return std::string(image.pixels.begin(), image.pixels.end());
  }
  return absl::InternalError("unknown image format");
}

}  // namespace hotlora
