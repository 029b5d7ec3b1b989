#include "src/image/image_header.h"

#include <algorithm>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include <webp/decode.h>

#include "src/base/invalid_argument.h"

namespace hotlora {
namespace {

uint8_t Byte(absl::string_view bytes, size_t at) { return static_cast<uint8_t>(bytes[at]); }

// Callers check that the bytes are there.
uint32_t BigEndian(absl::string_view bytes, size_t at, int count) {
  uint32_t value = 0;
  for (int i = 0; i < count; ++i) {
    value = value << 8 | Byte(bytes, at + i);
  }
  return value;
}

uint32_t LittleEndian(absl::string_view bytes, size_t at, int count) {
  uint32_t value = 0;
  for (int i = count - 1; i >= 0; --i) {
    value = value << 8 | Byte(bytes, at + i);
  }
  return value;
}

// The orientation of an EXIF block, which is a TIFF file: its tag 0x0112 in the first directory.
int ExifOrientation(absl::string_view exif) {
  constexpr size_t kEntryBytes = 12;
  absl::ConsumePrefix(&exif, absl::string_view("Exif\0\0", 6));
  const bool little = absl::StartsWith(exif, absl::string_view("II*\0", 4));
  if (exif.size() < 8 || (!little && !absl::StartsWith(exif, absl::string_view("MM\0*", 4)))) {
    return 1;
  }
  const auto number = [exif, little](size_t at, int count) {
    return little ? LittleEndian(exif, at, count) : BigEndian(exif, at, count);
  };
  const size_t directory = number(4, 4);
  if (directory > exif.size() - 2) {
    return 1;
  }
  const uint32_t entries = number(directory, 2);
  for (uint32_t i = 0; i < entries; ++i) {
    const size_t entry = directory + 2 + i * kEntryBytes;
    if (entry + kEntryBytes > exif.size()) {
      return 1;
    }
    constexpr uint32_t kOrientation = 0x0112, kShort = 3;
    if (number(entry, 2) == kOrientation) {
      const uint32_t value = number(entry + 2, 2) == kShort ? number(entry + 8, 2) : 1;
      return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
    }
  }
  return 1;
}

// Chunks: length, name, data, checksum.
absl::StatusOr<ImageHeader> ReadPngHeader(absl::string_view file) {
  constexpr size_t kSignature = 8, kChunkFrame = 12, kHeaderBytes = 13;
  if (file.size() < kSignature + kChunkFrame + kHeaderBytes || BigEndian(file, kSignature, 4) != kHeaderBytes ||
      file.substr(kSignature + 4, 4) != "IHDR") {
    return InvalidArgument("is a PNG file without a header");
  }
  ImageHeader header;
  header.format = InputFormat::kPng;
  header.width = BigEndian(file, kSignature + 8, 4);
  header.height = BigEndian(file, kSignature + 12, 4);
  for (size_t at = kSignature; at + kChunkFrame <= file.size();) {
    const size_t length = BigEndian(file, at, 4);
    if (length > file.size() - at - kChunkFrame) {
      break;  // cut off: the decoder tells
    }
    if (file.substr(at + 4, 4) == "eXIf") {
      header.orientation = ExifOrientation(file.substr(at + 8, length));
      break;
    }
    at += kChunkFrame + length;
  }
  return header;
}

// Segments: 0xFF, a marker, for most a length that counts itself, data; up to the start of a scan.
absl::StatusOr<ImageHeader> ReadJpegHeader(absl::string_view file) {
  ImageHeader header;
  header.format = InputFormat::kJpeg;
  bool framed = false;
  size_t at = 2;
  while (at + 4 <= file.size()) {
    if (Byte(file, at) != 0xFF) {
      ++at;  // garbage between segments, which libjpeg skips too
      continue;
    }
    const uint8_t marker = Byte(file, at + 1);
    if (marker == 0xFF) {
      ++at;  // filling
      continue;
    }
    if (marker <= 0x01 || (marker >= 0xD0 && marker <= 0xD8)) {
      at += 2;  // no segment
      continue;
    }
    if (marker == 0xDA || marker == 0xD9) {
      break;  // the scan, or the end
    }
    const size_t length = BigEndian(file, at + 2, 2);
    if (length < 2 || length > file.size() - at - 2) {
      break;
    }
    const absl::string_view data = file.substr(at + 4, length - 2);
    const bool frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (frame && !framed && data.size() >= 5) {
      header.height = BigEndian(data, 1, 2);
      header.width = BigEndian(data, 3, 2);
      framed = true;
    } else if (marker == 0xE1 && absl::StartsWith(data, absl::string_view("Exif\0\0", 6))) {
      header.orientation = ExifOrientation(data);
    }
    at += 2 + length;
  }
  if (!framed) {
    return InvalidArgument("is a JPEG file without a frame header");
  }
  return header;
}

// RIFF: name, size of the whole, "WEBP", then chunks of name, size, data padded to even length.
absl::StatusOr<ImageHeader> ReadWebpHeader(absl::string_view file) {
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(reinterpret_cast<const uint8_t*>(file.data()), file.size(), &features) != VP8_STATUS_OK) {
    return InvalidArgument("is a WebP file with a broken header");
  }
  if (features.has_animation != 0) {
    return InvalidArgument("is an animated WebP file; allowed are single images");
  }
  ImageHeader header;
  header.format = InputFormat::kWebp;
  header.width = static_cast<uint32_t>(features.width);
  header.height = static_cast<uint32_t>(features.height);
  constexpr size_t kRiffHeader = 12, kChunkHeader = 8;
  for (size_t at = kRiffHeader; at + kChunkHeader <= file.size();) {
    const size_t length = LittleEndian(file, at + 4, 4);
    if (length > file.size() - at - kChunkHeader) {
      break;
    }
    if (file.substr(at, 4) == "EXIF") {
      header.orientation = ExifOrientation(file.substr(at + kChunkHeader, length));
      break;
    }
    at += kChunkHeader + length + length % 2;
  }
  return header;
}

absl::StatusOr<ImageHeader> ReadHeaderOfFormat(absl::string_view file) {
  if (absl::StartsWith(file, absl::string_view("\x89PNG\r\n\x1a\n", 8))) {
    return ReadPngHeader(file);
  }
  if (absl::StartsWith(file, "\xFF\xD8\xFF")) {
    return ReadJpegHeader(file);
  }
  if (absl::StartsWith(file, "RIFF") && file.size() >= 12 && file.substr(8, 4) == "WEBP") {
    return ReadWebpHeader(file);
  }
  return InvalidArgument("is not a PNG, JPEG or WebP file");
}

}  // namespace

absl::StatusOr<ImageHeader> ReadImageHeader(absl::string_view file) {
  if (file.size() > kMaxInputBytes) {
    return InvalidArgument("has ", file.size(), " bytes; allowed are at most ", kMaxInputBytes);
  }
  absl::StatusOr<ImageHeader> header = ReadHeaderOfFormat(file);
  if (!header.ok()) {
    return header;
  }
  const uint64_t pixels = uint64_t{header->width} * header->height;
  if (pixels == 0 || std::max(header->width, header->height) > kMaxInputSide || pixels > kMaxInputPixels) {
    return InvalidArgument("is ", header->width, "x", header->height, " pixels; allowed are 1 to ", kMaxInputSide,
                           " on a side and ", kMaxInputPixels, " together");
  }
  return header;
}

}  // namespace hotlora
