#ifndef HOTLORA_SRC_ADAPTERS_ADAPTER_STORE_H_
#define HOTLORA_SRC_ADAPTERS_ADAPTER_STORE_H_

// The life cycle of adapters: found by name in a folder, read and checked once, kept in two tiers of memory (host,
// device) with byte budgets, lent out by lease. ControlNets, image prompts and the image encoder have the same, in a
// store of their own, whose errors have the reasons of their kinds (stored_kind.h); read "adapter" as "ControlNet"
// and so on there. In it names begin with their kind's `prefix`, but not those in what is answered. No LibTorch in
// this header.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "src/adapters/adapter_info.h"
#include "src/adapters/adapter_lease.h"
#include "src/adapters/adapter_memory.h"
#include "src/adapters/adapter_statistics.h"
#include "src/adapters/adapter_upload.h"
#include "src/metrics/store_metrics.h"
#include "src/nn/adapter_set.h"
#include "src/weights/module_table.h"

namespace hotlora {

struct AdapterStoreOptions {
  std::string directory;      // --adapters; empty: there are no adapters
  bool follow_links = false;  // --adapters-follow-links: links may leave the directory
  bool allow_unmatched_keys = false;
};

// Thread-safe. Acquire and Load read files and take as long as that takes: the engine's threads call
// them, never a gRPC thread. NeedsRead, List, Get, Unload and Delete read what is known and the
// directory, and do not wait for a load under way.
class AdapterStore {
 public:
  virtual ~AdapterStore() = default;

  // InvalidArgument if the directory does not exist. `metrics` outlives the store and all leases.
  static absl::StatusOr<std::unique_ptr<AdapterStore>> Create(AdapterStoreOptions options, ModuleTable modules,
                                                              StoreMetrics* metrics,
                                                              std::unique_ptr<AdapterMemory> memory);

  // Lends the adapter on the device. Its file is read if no tier has it or if the file has changed. A changed file is a
  // new version; if it is broken, the old version serves on. Loads of one name at the same time are one read.
  //   NotFound             ADAPTER_NOT_FOUND: no file of that name, or a name no adapter can have
  //   FailedPrecondition   ADAPTER_INVALID: not a sound file, not finite, ranks that disagree
  //                        ADAPTER_MISMATCH: keys or shapes that this model lacks, each named
  //                        ADAPTER_UNSUPPORTED: a format that hotlora lacks (ParseAdapter)
  //   ResourceExhausted    ADAPTER_BUDGET: does not fit beside what is leased or pinned
  //   Unavailable          FILE_UNREADABLE: the disk failed; worth another try
  // A failed load leaves everything as it was.
  virtual absl::StatusOr<std::unique_ptr<AdapterLease>> Acquire(absl::string_view name) = 0;

  // Lends all of these, no name twice, or none. Calls `wanted` before each, and returns its error. Other errors are as
  // Acquire's, and
  //   ResourceExhausted    ADAPTER_BUDGET: together they do not fit beside what is pinned
  //                        ADAPTERS_IN_USE: they do not fit until other requests release theirs; worth another try then
  // Both are checked before anything is evicted. Fragmentation can still make a later Acquire fail.
  virtual absl::StatusOr<std::vector<std::unique_ptr<AdapterLease>>> AcquireAll(
      absl::Span<const std::string> names, absl::FunctionRef<absl::Status()> wanted) = 0;

  // Whether Acquire would read a file now, or wait for a read under way. Reads none; counts nothing.
  virtual bool NeedsRead(absl::string_view name) = 0;

  // Brings the adapter into `tier` (kHost or kDevice); with `pin` it is not evicted until it is unloaded.
  // Errors as Acquire, also if an earlier version goes on serving.
  virtual absl::StatusOr<AdapterInfo> Load(absl::string_view name, AdapterTier tier, bool pin) = 0;

  // Leaves the resident tiers (running requests keep their lease) and loses its pin. NotFound as
  // Acquire.
  virtual absl::StatusOr<AdapterInfo> Unload(absl::string_view name) = 0;

  // Begins to receive an adapter's file. Errors of AdapterUpload that the header already shows, and
  //   InvalidArgument      INVALID_REQUEST: each bad field of the header
  //   FailedPrecondition   NO_ADAPTER_FOLDER, ADAPTER_FOLDER_READ_ONLY
  //   ResourceExhausted    UPLOADS_BUSY: uploads under way have set aside as much disk space as the host tier is large
  // The upload must not outlive the store.
  virtual absl::StatusOr<std::unique_ptr<AdapterUpload>> BeginUpload(UploadHeader header) = 0;

  // Removes the file and leaves the resident tiers; running requests keep their lease. NotFound as
  // Acquire; FailedPrecondition as BeginUpload.
  virtual absl::Status Delete(absl::string_view name) = 0;

  virtual absl::StatusOr<AdapterInfo> Get(absl::string_view name) const = 0;

  // Up to `limit` adapters in the order of their names, beginning after `after` ("" from the
  // start).
  virtual absl::StatusOr<std::vector<AdapterInfo>> List(absl::string_view after, size_t limit) const = 0;

  virtual AdapterStoreStatistics Statistics() const = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ADAPTER_STORE_H_
