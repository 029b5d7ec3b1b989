#include "src/weights/parallel_read.h"

#include <algorithm>
#include <exception>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"

#include "src/base/logging.h"
#include "src/base/mutex.h"
#include "src/base/named_thread.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

constexpr int kMostReaders = 3;  // one thread computes the hash, so more would not help

// Parts are cut into such pieces. If the hash keeps up, it finds them in the cache that the threads share.
constexpr uint64_t kPiece = uint64_t{2} << 20;

std::vector<FilePart> CutIntoPieces(absl::Span<const FilePart> parts) {
  std::vector<FilePart> pieces;
  for (const FilePart& part : parts) {
    for (uint64_t begin = 0; begin < part.bytes; begin += kPiece) {
      pieces.push_back(
          {part.offset + begin, std::min(kPiece, part.bytes - begin), part.to == nullptr ? nullptr : part.to + begin});
    }
  }
  return pieces;
}

// Thread-safe. Each piece is read once, by the thread that takes it.
class PieceReader {
 public:
  PieceReader(const OpenFile& file, const std::vector<FilePart>& pieces)
      : file_(file), pieces_(pieces), read_(pieces.size()) {}

  // Reads the next piece that no thread has taken. False if there is none, or if reading has failed or was stopped.
  bool ReadNext() {
    size_t piece;
    {
      MutexLock lock(&mu_);
      if (next_ == pieces_.size() || stopped_) {
        return false;
      }
      piece = next_++;
    }
    const FilePart& part = pieces_[piece];
    const absl::Status status = part.to == nullptr ? absl::OkStatus() : ReadAt(file_, part.to, part.bytes, part.offset);
    MutexLock lock(&mu_);
    read_[piece] = true;
    if (!status.ok()) {
      status_ = status;
      stopped_ = true;
    }
    changed_.SignalAll();
    return true;
  }

  bool IsRead(size_t piece) const {
    MutexLock lock(&mu_);
    return read_[piece];
  }

  // Waits for a piece that a thread has taken. The error of any piece.
  absl::Status Await(size_t piece) const {
    MutexLock lock(&mu_);
    while (!read_[piece] && !stopped_) {
      changed_.Wait(&mu_);
    }
    return status_;
  }

  void Stop() {
    MutexLock lock(&mu_);
    stopped_ = true;
  }

 private:
  const OpenFile& file_;
  const std::vector<FilePart>& pieces_;
  mutable Mutex mu_;
  mutable CondVar changed_;
  size_t next_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<bool> read_ ABSL_GUARDED_BY(mu_);
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
};

// Threads that read until there is nothing left to read.
class ReaderThreads {
 public:
  ReaderThreads(PieceReader& reader, size_t count) : reader_(reader), count_(count) { threads_.reserve(count); }

  ~ReaderThreads() {
    reader_.Stop();
    for (std::thread& thread : threads_) {
      thread.join();
    }
  }

  void Start() {
    try {
      while (threads_.size() < count_) {
        threads_.push_back(StartNamedThread("read", [reader = &reader_] {
          while (reader->ReadNext()) {
          }
        }));
      }
    } catch (const std::exception& error) {
      LogWarning("cannot start another thread to read a file: ", error.what());
    }
  }

 private:
  PieceReader& reader_;
  const size_t count_;
  std::vector<std::thread> threads_;
};

}  // namespace

int ReadersFor(const Cpus& cpus, bool addresses_are_limited) {
  const int usable = std::min(cpus.allowed, cpus.quota.value_or(cpus.allowed));
  return addresses_are_limited ? 0 : std::clamp(usable - 1, 0, kMostReaders);
}

absl::Status ReadParts(const OpenFile& file, absl::Span<const FilePart> parts, int readers, Sha256& hash) {
  const std::vector<FilePart> pieces = CutIntoPieces(parts);
  PieceReader reader(file, pieces);
  uint64_t bytes = 0;
  for (const FilePart& part : parts) {
    bytes += part.to == nullptr ? 0 : part.bytes;
  }
  ReaderThreads threads(reader, std::min<uint64_t>(static_cast<uint64_t>(readers), bytes / kPiece));
  threads.Start();
  std::vector<std::byte> unkept;
  for (size_t i = 0; i < pieces.size(); ++i) {
    while (!reader.IsRead(i) && reader.ReadNext()) {
    }
    ABSL_RETURN_IF_ERROR(reader.Await(i));
    const std::byte* data = pieces[i].to;
    if (data == nullptr) {
      unkept.resize(pieces[i].bytes);
      ABSL_RETURN_IF_ERROR(ReadAt(file, unkept.data(), pieces[i].bytes, pieces[i].offset));
      data = unkept.data();
    }
    hash.Update(data, pieces[i].bytes);
  }
  return absl::OkStatus();
}

}  // namespace hotlora
