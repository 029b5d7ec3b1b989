#include "tests/fakes/sim_device/counts.h"

#include <pthread.h>

#include <array>
#include <memory>
#include <mutex>
#include <vector>

namespace hotlora {
namespace {

struct Record {
  std::string thread;
  SimCounts counts;
};

struct Book {
  std::mutex mutex;
  std::vector<std::shared_ptr<Record>> records;  // also of threads that have ended
  std::map<std::string, int64_t> launches, drained;
};

Book& TheBook() {
  static Book* const book = new Book;
  return *book;
}

// REQUIRES: the book's mutex is held.
Record& OfThisThread() {
  thread_local const std::shared_ptr<Record> record = [] {
    std::array<char, 16> name{};
    pthread_getname_np(pthread_self(), name.data(), name.size());
    return TheBook().records.emplace_back(std::make_shared<Record>(Record{name.data(), {}}));
  }();
  return *record;
}

SimCounts operator+(const SimCounts& a, const SimCounts& b) {
  return {a.launches + b.launches, a.synchronizations + b.synchronizations, a.blocking_copies + b.blocking_copies,
          a.allocations + b.allocations, a.segments + b.segments};
}

}  // namespace

SimCounts operator-(const SimCounts& a, const SimCounts& b) {
  return {a.launches - b.launches, a.synchronizations - b.synchronizations, a.blocking_copies - b.blocking_copies,
          a.allocations - b.allocations, a.segments - b.segments};
}

void CountSim(int64_t SimCounts::*figure) {
  const std::lock_guard lock(TheBook().mutex);
  ++(OfThisThread().counts.*figure);
}

void CountSimLaunch(const std::string& name) {
  const std::lock_guard lock(TheBook().mutex);
  ++OfThisThread().counts.launches;
  ++TheBook().launches[name];
}

void CountDrained(const std::string& name) {
  const std::lock_guard lock(TheBook().mutex);
  ++TheBook().drained[name];
}

SimCounts SimCountsOfThisThread() {
  const std::lock_guard lock(TheBook().mutex);
  return OfThisThread().counts;
}

std::map<std::string, SimCounts> SimCountsByThread() {
  const std::lock_guard lock(TheBook().mutex);
  std::map<std::string, SimCounts> by_thread;
  for (const auto& record : TheBook().records) {
    by_thread[record->thread] = by_thread[record->thread] + record->counts;
  }
  return by_thread;
}

std::map<std::string, int64_t> SimLaunches() {
  const std::lock_guard lock(TheBook().mutex);
  return TheBook().launches;
}

std::map<std::string, int64_t> DrainedOperators() {
  const std::lock_guard lock(TheBook().mutex);
  return TheBook().drained;
}

}  // namespace hotlora
