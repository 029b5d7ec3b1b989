#include "tests/fakes/sim_device/deferred_call.h"

#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "tests/fakes/sim_device/counts.h"
#include "tests/fakes/sim_device/device_memory.h"
#include "tests/fakes/sim_device/sim_device.h"

namespace hotlora {
namespace {

using c10::IValue;
using torch::jit::Stack;

std::string NameOf(const c10::OperatorHandle& op) {
  const c10::OperatorName& name = op.operator_name();
  const std::string plain = name.name.substr(name.name.find("::") + 2);
  return name.overload_name.empty() ? plain : plain + "." + name.overload_name;
}

// Every value of a stack with its tensors and devices changed by the given functions.
struct Change {
  std::function<at::Tensor(const at::Tensor&)> tensor;
  c10::Device device;

  IValue operator()(const IValue& value) const {
    if (value.isTensor()) {
      return value.toTensor().defined() ? IValue(tensor(value.toTensor())) : value;
    }
    if (value.isDevice()) {
      return IValue(device);
    }
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& each : value.toTensorVector()) {
        list.push_back(tensor(each));
      }
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor>& each : value.toOptionalTensorVector()) {
        list.push_back(each.has_value() && each->defined() ? std::optional(tensor(*each)) : each);
      }
      return list;
    }
    return value;
  }
};

Stack Changed(const Stack& stack, const Change& change) {
  Stack changed;
  for (const IValue& value : stack) {
    changed.push_back(change(value));
  }
  return changed;
}

std::vector<at::Tensor> TensorsIn(const Stack& stack) {
  std::vector<at::Tensor> tensors;
  const Change collect{[&](const at::Tensor& tensor) {
                         tensors.push_back(tensor);
                         return tensor;
                       },
                       c10::Device(c10::kCPU)};
  Changed(stack, collect);
  return tensors;
}

// The one device of a call. Throws where there are several.
c10::DeviceIndex DeviceOf(const std::string& name, const Stack& stack) {
  std::optional<c10::Device> device;
  for (const at::Tensor& tensor : TensorsIn(stack)) {
    if (tensor.is_cpu() && tensor.dim() == 0) {
      continue;  // by value
    }
    TORCH_CHECK(!device.has_value() || *device == tensor.device(), "Expected all tensors of ", name,
                " to be on one device, but found ", *device, " and ", tensor.device());
    device = tensor.device();
  }
  for (const IValue& value : stack) {
    if (!device.has_value() && value.isDevice() && value.toDevice().is_privateuseone()) {
      device = value.toDevice();
    }
  }
  TORCH_CHECK(!device.has_value() || device->is_privateuseone(), "Expected all tensors of ", name,
              " to be on one device, but found ", *device);
  return device.has_value() && device->has_index() ? device->index() : CurrentSimDevice();
}

at::Tensor AsMeta(const at::Tensor& tensor) {
  return tensor.is_cpu() ? tensor
                         : at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(at::kMeta));
}

// A CPU tensor of no dimension is taken by value, now.
at::Tensor AsKernelTakes(const at::Tensor& tensor) {
  if (!tensor.is_cpu()) {
    return AsKernelSees(tensor);
  }
  at::Tensor value = tensor.clone();
  value.unsafeGetTensorImpl()->set_wrapped_number(tensor.unsafeGetTensorImpl()->is_wrapped_number());
  return value;
}

// For each result, the argument that it is; nullopt for a new one.
std::vector<std::optional<size_t>> ResultsInArguments(const c10::FunctionSchema& schema) {
  std::vector<std::optional<size_t>> places;
  for (const c10::Argument& result : schema.returns()) {
    std::optional<size_t> place;
    const c10::AliasInfo* const alias = result.alias_info();
    TORCH_CHECK_NOT_IMPLEMENTED(alias == nullptr || alias->isWrite(), schema.name(),
                                " returns a view: sim has no kernel");
    for (size_t i = 0; alias != nullptr && i < schema.arguments().size(); ++i) {
      const c10::AliasInfo* const other = schema.arguments()[i].alias_info();
      if (other != nullptr && other->beforeSets() == alias->beforeSets()) {
        place = i;
      }
    }
    places.push_back(place);
  }
  return places;
}

bool ReturnsOnlyTensors(const c10::FunctionSchema& schema) {
  for (const c10::Argument& result : schema.returns()) {
    const bool list = result.type()->isSubtypeOf(*c10::ListType::ofTensors());
    if (!list && !result.type()->isSubtypeOf(*c10::TensorType::get())) {
      return false;
    }
  }
  return true;
}

// Has no Meta kernel, and its out= has the shape of its first argument.
bool IsElementwise(const std::string& name) {
  static const std::set<std::string> names = {"abs.out"};
  return names.count(name) > 0;
}

// The results as the Meta kernel makes them; an out= tensor that it resized is resized here too. nullopt if there is
// none.
std::optional<Stack> AskMeta(const c10::OperatorHandle& op, const Stack& arguments) {
  if (!op.hasComputedKernelForDispatchKey(c10::DispatchKey::Meta)) {
    return std::nullopt;
  }
  std::vector<std::pair<at::Tensor, at::Tensor>> asked;  // a device's tensor and Meta's
  const Change change{[&](const at::Tensor& tensor) {
                        asked.emplace_back(tensor, AsMeta(tensor));
                        return asked.back().second;
                      },
                      c10::Device(c10::kMeta)};
  Stack stack = Changed(arguments, change);
  try {
    op.callBoxed(&stack);
  } catch (const c10::NotImplementedError&) {
    return std::nullopt;
  }
  for (const auto& [tensor, meta] : asked) {
    if (!tensor.is_cpu() && tensor.sizes() != meta.sizes()) {
      tensor.resize_(meta.sizes());
    }
  }
  return stack;
}

void CopyResult(const IValue& from, const IValue& to) {
  if (from.isTensor()) {
    if (from.toTensor().defined()) {
      to.toTensor().copy_(from.toTensor());
    }
    return;
  }
  const std::vector<at::Tensor> sources = from.toTensorVector(), targets = to.toTensorVector();
  TORCH_CHECK(sources.size() == targets.size(), "the Meta kernel says another number of results");
  for (size_t i = 0; i < sources.size(); ++i) {
    targets[i].copy_(sources[i]);
  }
}

class Call {
 public:
  Call(const c10::OperatorHandle& op, Stack arguments)
      : op_(op),
        name_(NameOf(op)),
        arguments_(std::move(arguments)),
        places_(ResultsInArguments(op.schema())),
        device_(DeviceOf(name_, arguments_)) {}

  Stack Run() {
    std::optional<Stack> meta;
    const bool plain = ReturnsOnlyTensors(op_.schema());
    if (IsElementwise(name_)) {
      arguments_[*places_[0]].toTensor().resize_(arguments_[0].toTensor().sizes());
      meta = Stack{arguments_[*places_[0]]};
    } else if (plain) {
      const c10::InferenceMode inference;
      meta = AskMeta(op_, arguments_);
    }
    return meta.has_value() ? Defer(*meta) : RunNow(plain);
  }

 private:
  // The results, on the device: arguments, or new tensors like `like`.
  Stack Results(const Stack& like) const {
    Stack results;
    const Change allocate{[&](const at::Tensor& tensor) {
                            return at::empty_strided(tensor.sizes(), tensor.strides(),
                                                     tensor.options().device(SimDevice(device_)));
                          },
                          SimDevice(device_)};
    for (size_t i = 0; i < places_.size(); ++i) {
      results.push_back(places_[i].has_value() ? arguments_[*places_[i]] : allocate(like[i]));
    }
    return results;
  }

  Stack ForKernel(const Stack& values) const {
    const c10::InferenceMode inference;
    return Changed(values, {AsKernelTakes, c10::Device(c10::kCPU)});
  }

  Stack Defer(const Stack& meta) const {
    Stack results = Results(meta);
    LaunchSim(device_, name_,
              [op = op_, places = places_, arguments = ForKernel(arguments_), targets = ForKernel(results)] {
                Stack stack = arguments;
                op.callBoxed(&stack);
                for (size_t i = 0; i < places.size(); ++i) {
                  if (!places[i].has_value()) {
                    CopyResult(stack[i], targets[i]);
                  }
                }
              });
    return results;
  }

  // Waits for the call: the host looks at its result, or nothing else says how large that is.
  Stack RunNow(bool drained) const {
    if (drained) {
      CountDrained(name_);
    }
    CountSim(&SimCounts::blocking_copies);
    Stack stack = ForKernel(arguments_);
    for (const std::optional<size_t>& place : places_) {
      if (place.has_value() && arguments_[*place].isTensor() && arguments_[*place].toTensor().numel() == 0) {
        stack[*place] = at::empty({0}, arguments_[*place].toTensor().options().device(at::kCPU));  // it gets its size
      }
    }
    LaunchSim(device_, name_, [this, &stack] { op_.callBoxed(&stack); });
    SimStream& stream = CurrentStream(device_);
    stream.Wait(stream.last());
    ThrowSimError(device_);
    if (!drained) {
      return stack;
    }
    Stack results = Results(stack);
    for (size_t i = 0; i < places_.size(); ++i) {
      if (places_[i].has_value() && results[i].isTensor() && results[i].toTensor().numel() == 0) {
        results[i].toTensor().resize_(stack[i].toTensor().sizes());
      }
    }
    stream.Enqueue([stack, targets = ForKernel(results)] {
      for (size_t i = 0; i < stack.size(); ++i) {
        CopyResult(stack[i], targets[i]);
      }
    });
    return results;
  }

  const c10::OperatorHandle op_;
  const std::string name_;
  const Stack arguments_;
  const std::vector<std::optional<size_t>> places_;
  const c10::DeviceIndex device_;
};

}  // namespace

at::Tensor AsKernelSees(const at::Tensor& tensor) {
  if (!tensor.defined()) {
    return tensor;
  }
  TORCH_CHECK(tensor.is_privateuseone(), "Expected a tensor on sim, but found one on ", tensor.device());
  return at::from_blob(DeviceMemory::AsKernel(tensor.const_data_ptr()), tensor.sizes(), tensor.strides(),
                       at::TensorOptions(at::kCPU).dtype(tensor.scalar_type()));
}

void LaunchSim(c10::DeviceIndex device, const std::string& name, std::function<void()> kernel) {
  CountSimLaunch(name);
  CurrentStream(device).Enqueue([name, kernel = std::move(kernel)] {
    try {
      kernel();
    } catch (const c10::Error& error) {
      TORCH_CHECK(false, name, ": ", error.what_without_backtrace());
    }
  });
}

void CallDeferred(const c10::OperatorHandle& op, Stack* stack) {
  const size_t count = op.schema().arguments().size();
  Stack arguments = torch::jit::last(*stack, count).vec();
  torch::jit::drop(*stack, count);
  for (IValue& result : Call(op, std::move(arguments)).Run()) {
    stack->push_back(std::move(result));
  }
}

}  // namespace hotlora
