#ifndef HOTLORA_SRC_BASE_THREAD_TEAM_H_
#define HOTLORA_SRC_BASE_THREAD_TEAM_H_

// OpenMP gives each thread that starts parallel work a team of its own, which stays with it and waits for its next
// work. To wake a team that sleeps takes tens of microseconds, and a step wakes it some hundred times. So a waiting
// team spins for a while first (ThreadDefaults), but only while the threads of all teams are no more
// than the CPUs: libgomp counts them, whether they work or wait. Therefore only the thread that runs the steps keeps
// its team; the others release theirs after each piece of work (GuardTorch).

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace hotlora {

// While it lives, ReleaseTeam does nothing in the calling thread. Scopes may nest.
class KeptTeam {
 public:
  KeptTeam();
  ~KeptTeam();
  KeptTeam(const KeptTeam&) = delete;
  KeptTeam& operator=(const KeptTeam&) = delete;
};

// Whether addresses are limited (RLIMIT_AS). A thread takes 8 MiB of them for its stack and 64 MiB for its heap.
bool AddressesAreLimited();

// Ends the threads of the calling thread's team. Its next parallel work starts new ones. If addresses are limited, it
// does nothing: libgomp ends the process if it cannot start a thread, and with few addresses left that may fail.
void ReleaseTeam();

// The CPUs that this process may use.
struct Cpus {
  int allowed = 1;           // in its affinity mask
  int team = 1;              // threads of a team, unless the environment says otherwise: LibTorch has one for each core
  std::optional<int> quota;  // of its container, CpusOfQuota
};
Cpus CpusOfThisProcess();

// What hotlora-server sets in its environment, unless it is set: the number of threads, and how they wait.
std::vector<std::pair<std::string, std::string>> ThreadDefaults(const Cpus& cpus, bool waiting_is_set);

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_THREAD_TEAM_H_
