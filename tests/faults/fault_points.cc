#include "tests/faults/fault_points.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <new>
#include <stdexcept>

#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

namespace hotlora::faults {
namespace {

struct Point {
  std::atomic<int64_t> passed;  // since the start of the process
  std::atomic<int64_t> first;   // the number of the point at which it happens; 0: never
  std::atomic<int64_t> count;   // there and at so many points in all
  std::atomic<int64_t> action;
  std::atomic<int64_t> happened;
};

struct Table {
  Point points[kKinds];
  std::atomic<int64_t> clock_nanoseconds;
  std::atomic<int64_t> leaked_tensor_bytes_a_swap;
  std::atomic<int64_t> leaked_heap_bytes_a_swap;
  std::atomic<int64_t> slower_nanoseconds_each_swap;
};

constexpr int64_t kHour = int64_t{3600} * 1'000'000'000;

// By plain system calls: the functions of these names are points themselves.
Table* MapTable() {
  static Table nothing;
  const char* const path = getenv("HOTLORA_TEST_FAULTS");
  const long file = path == nullptr ? -1 : syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
  if (file < 0) {
    return &nothing;
  }
  const long begin = syscall(SYS_mmap, nullptr, sizeof(Table), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  syscall(SYS_close, file);
  return begin < 0 && begin > -4096 ? &nothing : reinterpret_cast<Table*>(begin);
}

Table& TheTable() {
  static Table* const table = MapTable();
  return *table;
}

// True if the action is one of those after which the point goes on.
bool HappensBeside(int64_t action, Table& table) {
  switch (action) {
    case kStuck: {
      const timespec two_seconds{2, 0};
      nanosleep(&two_seconds, nullptr);
      return true;
    }
    case kLeak:
      c10::GetCPUAllocator()->raw_allocate(4096);
      return true;
    case kHourOn:
      table.clock_nanoseconds.fetch_add(kHour);
      return true;
    case kHourBack:
      table.clock_nanoseconds.fetch_sub(kHour);
      return true;
    default:
      return false;
  }
}

}  // namespace

int64_t Pass(Kind kind) {
  Table& table = TheTable();
  Point& point = table.points[static_cast<int>(kind)];
  const int64_t number = point.passed.fetch_add(1) + 1;
  const int64_t first = point.first.load();
  if (first == 0 || number < first || number >= first + point.count.load()) {
    return kNothing;
  }
  point.happened.fetch_add(1);
  const int64_t action = point.action.load();
  return HappensBeside(action, table) ? kNothing : action;
}

bool PassKernel() {
  switch (Pass(Kind::kKernel)) {
    case kTorchError:
      TORCH_CHECK(false, "a fault of tests/faults");
    case kRuntimeError:
      throw std::runtime_error("a fault of tests/faults");
    case kNoMemory:
      throw std::bad_alloc();
    case kNan:
      return true;
    default:
      return false;
  }
}

Settings CurrentSettings() {
  const Table& table = TheTable();
  return {table.clock_nanoseconds.load(), table.leaked_tensor_bytes_a_swap.load(),
          table.leaked_heap_bytes_a_swap.load(), table.slower_nanoseconds_each_swap.load()};
}

}  // namespace hotlora::faults
