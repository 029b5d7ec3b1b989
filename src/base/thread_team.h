#ifndef HOTLORA_SRC_BASE_THREAD_TEAM_H_
#define HOTLORA_SRC_BASE_THREAD_TEAM_H_

// OpenMP gives each thread that starts parallel work a team of its own, which stays with it and waits for its next
// work. To wake a team that sleeps takes tens of microseconds, and a step wakes it some hundred times. So a waiting
// team spins for a while first (GOMP_SPINCOUNT, server/main.cc), but only while all teams together have no more threads
// than there are CPUs: libgomp counts. Therefore only the thread that runs the steps keeps its team; the others release
// theirs after each piece of work (GuardTorch).

namespace hotlora {

// While it lives, ReleaseTeam does nothing in the calling thread. Scopes may nest.
class KeptTeam {
 public:
  KeptTeam();
  ~KeptTeam();
  KeptTeam(const KeptTeam&) = delete;
  KeptTeam& operator=(const KeptTeam&) = delete;
};

// Ends the threads of the calling thread's team. Its next parallel work starts new ones.
void ReleaseTeam();

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_THREAD_TEAM_H_
