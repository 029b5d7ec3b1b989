#include "tests/gpu/cupti.h"

#include <dlfcn.h>

#include <cstddef>
#include <cstdlib>
#include <mutex>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace hotlora {
namespace {

// The beginnings of CUPTI's records, which later releases keep.
enum ActivityKind : uint32_t { kMemcpy = 1, kMemset = 2, kConcurrentKernel = 10 };

struct ActivityRecord {
  uint32_t kind;
  uint32_t other[3];
  uint64_t begin, end;  // at the same place in all three kinds
};
static_assert(offsetof(ActivityRecord, begin) == 16);

struct KernelRecord {
  ActivityRecord common;
  uint32_t other[18];
  const char* name;
};
static_assert(offsetof(KernelRecord, name) == 104);

using Result = int;
constexpr Result kSuccess = 0;

using BufferRequested = void (*)(uint8_t** buffer, size_t* size, size_t* most_records);
using BufferCompleted = void (*)(void* context, uint32_t stream, uint8_t* buffer, size_t size, size_t valid);

struct Functions {
  Result (*register_callbacks)(BufferRequested, BufferCompleted) = nullptr;
  Result (*enable)(uint32_t kind) = nullptr;
  Result (*disable)(uint32_t kind) = nullptr;
  Result (*flush)(uint32_t flag) = nullptr;
  Result (*next)(uint8_t* buffer, size_t valid, ActivityRecord** record) = nullptr;
};

absl::StatusOr<Functions> LoadFunctions() {
  void* const library = dlopen("libcupti.so.13", RTLD_NOW);
  if (library == nullptr) {
    return absl::UnavailableError(dlerror());
  }
  Functions functions;
  std::string missing;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
    if (function == nullptr) {
      absl::StrAppend(&missing, " ", name);
    }
  };
  find(functions.register_callbacks, "cuptiActivityRegisterCallbacks");
  find(functions.enable, "cuptiActivityEnable");
  find(functions.disable, "cuptiActivityDisable");
  find(functions.flush, "cuptiActivityFlushAll");
  find(functions.next, "cuptiActivityGetNextRecord");
  if (!missing.empty()) {
    return absl::UnavailableError(absl::StrCat("libcupti.so.13 lacks", missing));
  }
  return functions;
}

// CUPTI's callbacks have no argument of the caller's. They run on threads of its own.
std::mutex recording_mutex;
std::vector<DeviceActivity>* recorded = nullptr;
Functions recording;

void GiveBuffer(uint8_t** buffer, size_t* size, size_t* most_records) {
  constexpr size_t kBytes = 4 << 20;
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(64, kBytes));
  *size = *buffer == nullptr ? 0 : kBytes;
  *most_records = 0;  // as many as fit
}

void TakeBuffer(void* /*context*/, uint32_t /*stream*/, uint8_t* buffer, size_t /*size*/, size_t valid) {
  const std::lock_guard<std::mutex> lock(recording_mutex);
  ActivityRecord* record = nullptr;
  while (recorded != nullptr && recording.next(buffer, valid, &record) == kSuccess) {
    if (record->begin == 0 || record->end < record->begin) {
      continue;  // CUPTI has no times of it
    }
    if (record->kind == kConcurrentKernel) {
      const char* const name = reinterpret_cast<const KernelRecord*>(record)->name;
      recorded->push_back({name == nullptr ? "" : name, record->begin, record->end});
    } else if (record->kind == kMemcpy || record->kind == kMemset) {
      recorded->push_back({record->kind == kMemcpy ? "copy" : "copy of a value", record->begin, record->end});
    }
  }
  std::free(buffer);
}

void SetRecorded(std::vector<DeviceActivity>* activities) {
  const std::lock_guard<std::mutex> lock(recording_mutex);
  recorded = activities;
}

}  // namespace

absl::StatusOr<std::vector<DeviceActivity>> RecordActivities(absl::FunctionRef<void()> body) {
  const absl::StatusOr<Functions> functions = LoadFunctions();
  if (!functions.ok()) {
    return functions.status();
  }
  recording = *functions;
  constexpr uint32_t kKinds[] = {kConcurrentKernel, kMemcpy, kMemset};
  std::vector<DeviceActivity> activities;
  Result result = recording.register_callbacks(GiveBuffer, TakeBuffer);
  for (const uint32_t kind : kKinds) {
    result = result == kSuccess ? recording.enable(kind) : result;
  }
  if (result == kSuccess) {
    SetRecorded(&activities);
    body();
  }
  for (const uint32_t kind : kKinds) {
    recording.disable(kind);
  }
  recording.flush(/*flag=*/1);
  SetRecorded(nullptr);
  if (result != kSuccess) {
    return absl::UnavailableError(absl::StrCat("CUPTI does not record activities: its error ", result,
                                               "; another profiler may be at work, or the driver does not allow it"));
  }
  return activities;
}

}  // namespace hotlora
