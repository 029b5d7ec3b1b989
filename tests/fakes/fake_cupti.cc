// A stand-in for NVIDIA's libcupti.so.13, for machines without a GPU: each recording ends with one buffer of six
// records: a kernel, a copy, a fill, one of a kind that was not asked for, and two copies without times. If
// HOTLORA_FAKE_CUPTI_ERROR is set, nothing can be enabled, and that is the error.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int kSuccess = 0;
constexpr int kMaxLimitReached = 12;
constexpr size_t kRecordBytes = 256;

void (*requested)(uint8_t**, size_t*, size_t*) = nullptr;
void (*completed)(void*, uint32_t, uint8_t*, size_t, size_t) = nullptr;
bool enabled[64];

template <typename T>
void Put(uint8_t* record, size_t offset, T value) {
  std::memcpy(record + offset, &value, sizeof(value));
}

void Write(uint8_t* record, uint32_t kind, uint64_t begin, uint64_t end) {
  std::memset(record, 0xff, kRecordBytes);
  Put(record, 0, kind);
  Put(record, 16, begin);
  Put(record, 24, end);
}

}  // namespace

extern "C" {

int cuptiActivityRegisterCallbacks(decltype(requested) give, decltype(completed) take) {
  requested = give;
  completed = take;
  return kSuccess;
}

int cuptiActivityEnable(uint32_t kind) {
  if (const char* const error = std::getenv("HOTLORA_FAKE_CUPTI_ERROR")) {
    return std::atoi(error);
  }
  enabled[kind] = true;
  return kSuccess;
}

int cuptiActivityDisable(uint32_t kind) {
  enabled[kind] = false;
  return kSuccess;
}

int cuptiActivityFlushAll(uint32_t /*flag*/) {
  uint8_t* buffer = nullptr;
  size_t size = 0, most = 0;
  requested(&buffer, &size, &most);
  Write(buffer, 10, 1000, 4000);
  static const char kName[] = "void cutlass::Kernel2<sm90_xmma_gemm_bf16>";
  Put(buffer, 104, &kName[0]);
  Write(buffer + kRecordBytes, 1, 4000, 4500);
  Write(buffer + 2 * kRecordBytes, 2, 5000, 5100);
  Write(buffer + 3 * kRecordBytes, 33, 1, 2);
  Write(buffer + 4 * kRecordBytes, 1, 0, 0);
  Write(buffer + 5 * kRecordBytes, 1, 5000, 0);
  completed(nullptr, 0, buffer, size, 6 * kRecordBytes);
  return kSuccess;
}

int cuptiActivityGetNextRecord(uint8_t* buffer, size_t valid, uint8_t** record) {
  uint8_t* const next = *record == nullptr ? buffer : *record + kRecordBytes;
  if (next >= buffer + valid) {
    return kMaxLimitReached;
  }
  *record = next;
  return kSuccess;
}

}  // extern "C"
