// The safetensors reader on any bytes.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "src/weights/safetensors_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* const begin = reinterpret_cast<const std::byte*>(data);
  const absl::StatusOr<hotlora::SafetensorsFile> file =
      hotlora::SafetensorsFile::Parse(std::vector<std::byte>(begin, begin + size));
  if (!file.ok()) {
    return 0;
  }
  // What it accepts lies inside the file, is found by its name, and leaves no byte over.
  uint64_t reached = file->data_offset();
  for (const hotlora::StoredTensor& tensor : file->tensors()) {
    if (file->data_offset() + tensor.begin != reached || tensor.end < tensor.begin ||
        file->Find(tensor.name) != &tensor) {
      std::abort();
    }
    reached = file->data_offset() + tensor.end;
    if (tensor.bytes() > 0) {  // a sanitizer sees what lies outside
      volatile const std::byte* const bytes = file->Data(tensor);
      (void)bytes[0];
      (void)bytes[tensor.bytes() - 1];
    }
  }
  if (reached != size || file->file_bytes() != size) {
    std::abort();
  }
  return 0;
}
