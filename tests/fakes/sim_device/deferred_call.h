#ifndef HOTLORA_TESTS_FAKES_SIM_DEVICE_DEFERRED_CALL_H_
#define HOTLORA_TESTS_FAKES_SIM_DEVICE_DEFERRED_CALL_H_

#include <functional>
#include <string>

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include "tests/fakes/sim_device/stream.h"

namespace hotlora {

// A CPU tensor over the memory of a device's tensor, by the kernels' address. It keeps nothing alive.
at::Tensor AsKernelSees(const at::Tensor& tensor);

// Queues `kernel` on the current stream of the device and counts a launch. It sees tensors by AsKernelSees.
void LaunchSim(c10::DeviceIndex device, const std::string& name, std::function<void()> kernel);

// The boxed fallback: any operator, see sim_device.h.
void CallDeferred(const c10::OperatorHandle& op, torch::jit::Stack* stack);

}  // namespace hotlora

#endif  // HOTLORA_TESTS_FAKES_SIM_DEVICE_DEFERRED_CALL_H_
