#ifndef HOTLORA_SRC_TENSOR_PAGE_RESERVE_H_
#define HOTLORA_SRC_TENSOR_PAGE_RESERVE_H_

#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"

#include "src/base/mutex.h"

namespace hotlora {

// Brings in pages of large storages on the CPU before they are written for the first time, on a thread of its own: a
// page that comes when it is written costs more than the writing (9 ms for 22 MiB). What is brought in runs ahead of
// what is used, so a storage that is far larger than what is in it does not become resident.
//
// Threads  thread-safe
// Errors   none: where the kernel cannot (before Linux 5.14) or will not, pages come as they are written
class PageReserve {
 public:
  // What is brought in beyond what is used: so much, or room for two more blocks like the last.
  static constexpr int64_t kLeastAhead = int64_t{64} << 20;

  struct Area {
    char* begin;
    int64_t bytes;
  };

  // Brings in the first kLeastAhead bytes of each area. The areas outlive this object.
  explicit PageReserve(const std::vector<Area>& areas);
  ~PageReserve();

  // Notes that [offset, offset + bytes) of area number `area` is in use. Does not wait.
  void Use(size_t area, int64_t offset, int64_t bytes);

 private:
  struct State {
    Area area;
    int64_t brought = 0;  // bytes from the start
    int64_t wanted = 0;
  };

  void Run();
  Area AwaitPiece();  // what is to be brought in next; empty once this object ends

  Mutex mu_;
  CondVar changed_;
  std::vector<State> states_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_TENSOR_PAGE_RESERVE_H_
