#include "src/base/thread_team.h"

// A function of libgomp, which programs with LibTorch load; null in others. Within parallel work it refuses, which does
// no harm.
extern "C" __attribute__((weak)) int omp_pause_resource_all(int kind);

namespace hotlora {
namespace {

constexpr int kPauseSoft = 1;  // omp_pause_soft of <omp.h>

thread_local int kept = 0;

}  // namespace

KeptTeam::KeptTeam() { ++kept; }

KeptTeam::~KeptTeam() { --kept; }

void ReleaseTeam() {
  if (kept == 0 && omp_pause_resource_all != nullptr) {
    omp_pause_resource_all(kPauseSoft);
  }
}

}  // namespace hotlora
