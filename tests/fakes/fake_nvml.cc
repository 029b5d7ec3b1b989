// A stand-in for NVIDIA's libnvidia-ml.so.1, for machines without a GPU: one device whose figures are made up, energy
// and throttling growing with time. What it is asked for and how is checked by the signatures: the collector declares
// the same ones from NVML's documentation.

#include <unistd.h>

#include <chrono>
#include <cstring>

namespace {

constexpr int kSuccess = 0;
constexpr int kNotFound = 6;
constexpr unsigned long long kTotal = 80ULL << 30;  // NOLINT(google-runtime-int)
constexpr unsigned long long kUsed = 20ULL << 30;   // NOLINT(google-runtime-int)
constexpr unsigned long long kOwn = 18ULL << 30;    // NOLINT(google-runtime-int)
char device;

double Seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

int Copy(const char* text, char* to, unsigned int size) {
  std::strncpy(to, text, size);
  return kSuccess;
}

struct Memory {
  unsigned long long total, free, used;  // NOLINT(google-runtime-int)
};
struct Process {
  unsigned int pid;
  unsigned long long bytes;  // NOLINT(google-runtime-int)
  unsigned int gpu_instance, compute_instance;
};
struct Utilization {
  unsigned int gpu, memory;
};
struct Violation {
  unsigned long long reference, violation;  // NOLINT(google-runtime-int)
};

}  // namespace

extern "C" {

int nvmlInit_v2() { return kSuccess; }
int nvmlShutdown() { return kSuccess; }
int nvmlDeviceGetCount_v2(unsigned int* count) {
  *count = 1;
  return kSuccess;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void** handle) {
  *handle = &device;
  return index == 0 ? kSuccess : kNotFound;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char*, void** handle) {
  *handle = &device;
  return kSuccess;
}
int nvmlDeviceGetUUID(void*, char* text, unsigned int size) { return Copy("GPU-fake-0", text, size); }
int nvmlDeviceGetName(void*, char* text, unsigned int size) { return Copy("Fake GPU", text, size); }
int nvmlSystemGetDriverVersion(char* text, unsigned int size) { return Copy("999.1", text, size); }
int nvmlDeviceGetMemoryInfo(void*, Memory* memory) {
  *memory = {kTotal, kTotal - kUsed, kUsed};
  return kSuccess;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void*, unsigned int* count, Process* processes) {
  *count = 1;
  processes[0] = {static_cast<unsigned int>(getpid()), kOwn, 0, 0};
  return kSuccess;
}
int nvmlDeviceGetUtilizationRates(void*, Utilization* rates) {
  *rates = {73, 40};
  return kSuccess;
}
int nvmlDeviceGetTemperature(void*, unsigned int, unsigned int* celsius) {
  *celsius = 61;
  return kSuccess;
}
int nvmlDeviceGetClockInfo(void*, unsigned int, unsigned int* megahertz) {
  *megahertz = 1755;
  return kSuccess;
}
int nvmlDeviceGetPowerUsage(void*, unsigned int* milliwatts) {
  *milliwatts = 300'000;
  return kSuccess;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void*, unsigned long long* reasons) {  // NOLINT(google-runtime-int)
  *reasons = 4;                                                                      // the power limit
  return kSuccess;
}
int nvmlDeviceGetTotalEnergyConsumption(void*, unsigned long long* millijoules) {  // NOLINT(google-runtime-int)
  *millijoules = static_cast<unsigned long long>(Seconds() * 300e3);               // NOLINT(google-runtime-int)
  return kSuccess;
}
int nvmlDeviceGetTotalEccErrors(void*, unsigned int, unsigned int, unsigned long long* errors) {  // NOLINT
  *errors = 0;
  return kSuccess;
}
int nvmlDeviceGetViolationStatus(void*, unsigned int policy, Violation* violation) {
  *violation = {0, policy == 0 ? static_cast<unsigned long long>(Seconds() * 1e7) : 0};  // NOLINT: 1 % of the time
  return kSuccess;
}
}
