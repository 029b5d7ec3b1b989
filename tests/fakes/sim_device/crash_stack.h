#ifndef HOTLORA_TESTS_FAKES_SIM_DEVICE_CRASH_STACK_H_
#define HOTLORA_TESTS_FAKES_SIM_DEVICE_CRASH_STACK_H_

namespace hotlora {

// From now on, a host that touches the tensors' mapping of a device's memory prints "the host touched sim:N's memory"
// and its stack to standard error before SIGSEGV ends it. Other faults are handled as before.
void PrintStackOfCrashes();

}  // namespace hotlora

#endif  // HOTLORA_TESTS_FAKES_SIM_DEVICE_CRASH_STACK_H_
