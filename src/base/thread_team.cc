#include "src/base/thread_team.h"

#include <sched.h>
#include <sys/resource.h>

#include <algorithm>

// Functions of libgomp and MKL, which programs with LibTorch load; null in others. Within parallel work the first
// refuses, which does no harm. LibTorch's teams are as large as the second says.
extern "C" {
__attribute__((weak)) int omp_pause_resource_all(int kind);
__attribute__((weak)) int MKL_Get_Max_Threads();
}

namespace hotlora {
namespace {

constexpr int kPauseSoft = 1;  // omp_pause_soft of <omp.h>

thread_local int kept = 0;

bool AddressesAreLimited() {
  rlimit limit{};
  return getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
}

}  // namespace

KeptTeam::KeptTeam() { ++kept; }

KeptTeam::~KeptTeam() { --kept; }

void ReleaseTeam() {
  if (kept == 0 && omp_pause_resource_all != nullptr && !AddressesAreLimited()) {
    omp_pause_resource_all(kPauseSoft);
  }
}

int TeamSize() {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  const int most = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1024;
  return MKL_Get_Max_Threads == nullptr ? most : std::min(most, MKL_Get_Max_Threads());
}

}  // namespace hotlora
