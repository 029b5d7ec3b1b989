#include "src/base/thread_team.h"

#include <sched.h>
#include <sys/resource.h>

#include <algorithm>

#include "src/base/cgroups.h"

// Functions of libgomp and MKL, which programs with LibTorch load; null in others. Within parallel work
// omp_pause_resource_all refuses, which does no harm. LibTorch's teams are as large as MKL_Get_Max_Threads says.
extern "C" {
__attribute__((weak)) int omp_pause_resource_all(int kind);
__attribute__((weak)) int MKL_Get_Max_Threads();
}

namespace hotlora {
namespace {

constexpr int kPauseSoft = 1;  // omp_pause_soft of <omp.h>

thread_local int kept = 0;

}  // namespace

KeptTeam::KeptTeam() { ++kept; }

KeptTeam::~KeptTeam() { --kept; }

bool AddressesAreLimited() {
  rlimit limit{};
  return getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
}

void ReleaseTeam() {
  if (kept == 0 && omp_pause_resource_all != nullptr && !AddressesAreLimited()) {
    omp_pause_resource_all(kPauseSoft);
  }
}

Cpus CpusOfThisProcess() {
  Cpus cpus;
  cpu_set_t mask;
  CPU_ZERO(&mask);
  // Larger machines than the mask has room for count as one of its size.
  cpus.allowed = sched_getaffinity(0, sizeof(mask), &mask) == 0 ? CPU_COUNT(&mask) : CPU_SETSIZE;
  cpus.team = MKL_Get_Max_Threads == nullptr ? cpus.allowed : std::min(cpus.allowed, MKL_Get_Max_Threads());
  cpus.quota = CpusOfQuota();
  return cpus;
}

std::vector<std::pair<std::string, std::string>> ThreadDefaults(const Cpus& cpus, bool waiting_is_set) {
  std::vector<std::pair<std::string, std::string>> settings;
  // More threads than CPUs of the quota wait for each other while it is used up.
  if (cpus.quota.has_value() && *cpus.quota < cpus.team) {
    settings.emplace_back("OMP_NUM_THREADS", std::to_string(*cpus.quota));
  }
  if (waiting_is_set) {
    return settings;
  }
  // The step thread and the decode thread have a team each: on few cores a team that spins while it waits slows the
  // other tenfold. So threads sleep while they wait, but spin for a while before. A quota counts that time too: there
  // they do not.
  settings.emplace_back("OMP_WAIT_POLICY", "PASSIVE");
  if (!cpus.quota.has_value() || *cpus.quota >= cpus.allowed) {
    settings.emplace_back("GOMP_SPINCOUNT", "100000");
  }
  return settings;
}

}  // namespace hotlora
