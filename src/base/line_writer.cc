#include "src/base/line_writer.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

#include "absl/strings/str_cat.h"

#include "src/base/steady_time.h"

namespace hotlora {
namespace {

constexpr absl::Duration kLastWrites = absl::Seconds(1);
constexpr int kPollMilliseconds = 100;

// A thread that takes no signal: it may start before the threads that do are chosen, and a reader that goes away is a
// lost line (EPIPE), not our end (SIGPIPE).
template <typename Body>
std::thread StartWithoutSignals(Body body) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread(std::move(body));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

}  // namespace

LineWriter::LineWriter(int descriptor, std::function<void()> on_lost)
    : descriptor_(descriptor), on_lost_(std::move(on_lost)), thread_(StartWithoutSignals([this] { Run(); })) {}

LineWriter::~LineWriter() {
  {
    MutexLock lock(&mu_);
    stop_by_ = SteadyNow() + kLastWrites;
  }
  changed_.SignalAll();
  thread_.join();
}

void LineWriter::Write(std::string line) {
  line.push_back('\n');
  {
    MutexLock lock(&mu_);
    if (waiting_.size() < kMaxWaiting) {
      waiting_.push_back(std::move(line));
      ++accepted_;
      changed_.SignalAll();
      return;
    }
  }
  on_lost_();
}

bool LineWriter::Flush(absl::Duration patience) {
  const absl::Time deadline = SteadyNow() + patience;
  MutexLock lock(&mu_);
  const uint64_t goal = accepted_;
  while (finished_ < goal && changed_.WaitUntil(&mu_, deadline)) {
  }
  return finished_ >= goal;
}

bool LineWriter::IsOver() {
  MutexLock lock(&mu_);
  return stop_by_.has_value() && SteadyNow() >= *stop_by_;
}

std::optional<std::string> LineWriter::AwaitLine() {
  MutexLock lock(&mu_);
  while (waiting_.empty() && !stop_by_.has_value()) {
    changed_.Wait(&mu_);
  }
  return waiting_.empty() ? std::nullopt : std::optional(waiting_.front());
}

void LineWriter::FinishLine() {
  MutexLock lock(&mu_);
  waiting_.pop_front();
  ++finished_;
  changed_.SignalAll();
}

void LineWriter::Run() {
  pthread_setname_np(pthread_self(), "lines");
  bool cut = false;  // a part of a line that was lost is the last that was written
  while (const std::optional<std::string> waiting = AwaitLine()) {
    const std::string line = absl::StrCat(cut ? "\n" : "", *waiting);
    const size_t written = WriteOut(line);
    if (written < line.size()) {
      on_lost_();
    }
    cut = written == 0 ? cut : written < line.size();
    FinishLine();
  }
}

size_t LineWriter::WriteOut(const std::string& text) {
  size_t written = 0;
  while (written < text.size()) {
    pollfd ready{descriptor_, POLLOUT, 0};
    const bool last_chance = IsOver();
    if (poll(&ready, 1, last_chance ? 0 : kPollMilliseconds) == 0) {
      if (last_chance) {
        return written;
      }
      continue;
    }
    // A pipe that is ready takes PIPE_BUF bytes without blocking, and no more for certain.
    const size_t size = std::min<size_t>(text.size() - written, PIPE_BUF);
    const ssize_t bytes = write(descriptor_, text.data() + written, size);
    if (bytes < 0 && errno != EINTR && errno != EAGAIN) {
      return written;
    }
    written += bytes > 0 ? static_cast<size_t>(bytes) : 0;
  }
  return written;
}

}  // namespace hotlora
