// What cannot go through the fallback: making tensors and views, copies, what waits for a value, and the operators that
// LibTorch leaves to the device. Operators can only be registered through <torch/library.h>, which the product never
// includes.

#include <tuple>

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/SDPBackend.h>
#include <ATen/native/DispatchStub.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "tests/fakes/sim_device/counts.h"
#include "tests/fakes/sim_device/deferred_call.h"
#include "tests/fakes/sim_device/device_memory.h"
#include "tests/fakes/sim_device/host_memory.h"
#include "tests/fakes/sim_device/sim_device.h"

namespace hotlora {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

const c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

c10::Allocator* DeviceAllocator() { return c10::GetAllocator(c10::DeviceType::PrivateUse1); }

at::Tensor Empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout> layout,
                 std::optional<at::Device> device, std::optional<bool> pinned, std::optional<at::MemoryFormat> format) {
  const c10::OptionalDeviceGuard guard(device);
  return at::Tensor(at::detail::empty_generic(size, DeviceAllocator(), kKeys, c10::dtype_or_default(dtype), format));
}

at::Tensor EmptyStrided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                        std::optional<at::Layout> layout, std::optional<at::Device> device,
                        std::optional<bool> pinned) {
  const c10::OptionalDeviceGuard guard(device);
  return at::Tensor(
      at::detail::empty_strided_generic(size, stride, DeviceAllocator(), kKeys, c10::dtype_or_default(dtype)));
}

// For out= arguments: a new storage where the old one is too small. Its content is not kept.
const at::Tensor& Resize(const at::Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat> format) {
  c10::TensorImpl* const impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(size);
  const size_t bytes = static_cast<size_t>(impl->numel() + impl->storage_offset()) * self.element_size();
  if (bytes > self.storage().nbytes()) {
    const c10::DeviceGuard guard(self.device());
    self.storage().unsafeGetStorageImpl()->set_data_ptr_noswap(DeviceAllocator()->allocate(bytes));
    self.storage().unsafeGetStorageImpl()->set_nbytes(bytes);
  }
  return self;
}

// A copy between the host and a device, on the device's current stream. Only from and to pinned memory it goes on after
// the call, as CUDA's do.
void CopyWithHost(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  const at::Tensor& host = from.is_cpu() ? from : to;
  const c10::DeviceIndex device = (from.is_cpu() ? to : from).device().index();
  SimStream& stream = CurrentStream(device);
  const auto view = [](const at::Tensor& tensor) {
    return tensor.is_cpu() ? at::from_blob(const_cast<void*>(tensor.const_data_ptr()), tensor.sizes(), tensor.strides(),
                                           tensor.options().pinned_memory(false))
                           : AsKernelSees(tensor);
  };
  stream.Enqueue([source = view(from), target = view(to)] { target.copy_(source); });
  if (non_blocking && IsPinned(host.storage().data())) {
    RecordPinned(host.storage().data(), stream);
    return;
  }
  CountSim(&SimCounts::blocking_copies);
  stream.Wait(stream.last());
  ThrowSimError(device);
}

void CopyOnDevice(const at::Tensor& from, const at::Tensor& to) {
  const c10::DeviceIndex source = from.device().index(), target = to.device().index();
  if (source != target) {
    SimStream& before = CurrentStream(source);
    CurrentStream(target).StartAfter(before, before.last());
  }
  LaunchSim(target, "copy_", [source = AsKernelSees(from), target = AsKernelSees(to)] { target.copy_(source); });
  if (source != target) {
    SimStream& after = CurrentStream(target);
    CurrentStream(source).StartAfter(after, after.last());
  }
}

at::Tensor CopyFrom(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  if (from.numel() == 0) {
    return to;
  }
  const at::Tensor source = from.expand_as(to);
  if (source.is_cpu() || to.is_cpu()) {
    CopyWithHost(source, to, non_blocking);
  } else {
    CopyOnDevice(source, to);
  }
  return to;
}

at::Tensor CopyFromAndResize(const at::Tensor& from, const at::Tensor& to) {
  to.resize_(from.sizes());
  return CopyFrom(from, to, /*non_blocking=*/false);
}

at::Scalar LocalScalar(const at::Tensor& self) {
  at::Tensor value = at::empty_like(self, self.options().device(at::kCPU));
  CopyWithHost(self, value, /*non_blocking=*/false);
  return value.item();
}

void RecordStream(at::Tensor& self, c10::Stream stream) {
  if (self.storage().data() != nullptr) {
    DeviceMemory::Of(self.device().index()).Record(self.storage().mutable_data(), StreamOf(stream));
  }
}

at::Tensor AsStrided(const at::Tensor& self, at::IntArrayRef size, at::IntArrayRef stride,
                     std::optional<int64_t> offset) {
  return at::native::as_strided_tensorimpl(self, size, stride, offset);
}

at::Tensor View(const at::Tensor& self, at::IntArrayRef size) { return at::native::view(self, size); }

at::Tensor ReshapeAlias(const at::Tensor& self, at::IntArrayRef size, at::IntArrayRef stride) {
  return at::native::_reshape_alias(self, size, stride);
}

// A GPU lays its result out as the input or the weight, as cuDNN does.
at::Tensor Convolution(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                       at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
                       at::IntArrayRef output_padding, int64_t groups) {
  TORCH_CHECK(!transposed && input.dim() == 4, "sim has no such convolution");
  for (const at::Tensor& other : {weight, bias.value_or(at::Tensor())}) {
    TORCH_CHECK(!other.defined() || other.device() == input.device(),
                "Expected all tensors of convolution to be on one device, but found ", input.device(), " and ",
                other.device());
  }
  std::vector<int64_t> size = {input.size(0), weight.size(0)};
  for (int64_t i = 0; i < 2; ++i) {
    const auto at = static_cast<size_t>(i);
    const int64_t window = dilation[at] * (weight.size(2 + i) - 1) + 1;
    size.push_back((input.size(2 + i) + 2 * padding[at] - window) / stride[at] + 1);
  }
  const bool last = input.suggest_memory_format() == at::MemoryFormat::ChannelsLast ||
                    weight.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
  at::Tensor output =
      at::empty(size, input.options(), last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
  LaunchSim(input.device().index(), "convolution",
            [x = AsKernelSees(input), w = AsKernelSees(weight), b = AsKernelSees(bias.value_or(at::Tensor())),
             y = AsKernelSees(output), stride = stride.vec(), padding = padding.vec(), dilation = dilation.vec(),
             groups] { y.copy_(at::conv2d(x, w, b, stride, padding, dilation, groups)); });
  return output;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> GroupNorm(const at::Tensor& input, const OptionalTensor& weight,
                                                         const OptionalTensor& bias, int64_t rows, int64_t channels,
                                                         int64_t pixels, int64_t groups, double epsilon) {
  at::Tensor output = at::empty(input.sizes(), input.options(), at::MemoryFormat::Contiguous);
  at::Tensor mean = at::empty({rows, groups}, input.options()), rstd = at::empty({rows, groups}, input.options());
  LaunchSim(input.device().index(), "native_group_norm",
            [=, x = AsKernelSees(input), w = AsKernelSees(weight.value_or(at::Tensor())),
             b = AsKernelSees(bias.value_or(at::Tensor())), y = AsKernelSees(output), m = AsKernelSees(mean),
             r = AsKernelSees(rstd)] {
              const auto [normed, means, rstds] =
                  at::native_group_norm(x.contiguous(), w, b, rows, channels, pixels, groups, epsilon);
              y.copy_(normed);
              m.copy_(means);
              r.copy_(rstds);
            });
  return {output, mean, rstd};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> LayerNorm(const at::Tensor& input, at::IntArrayRef shape,
                                                         const OptionalTensor& weight, const OptionalTensor& bias,
                                                         double epsilon) {
  at::Tensor output = at::empty(input.sizes(), input.options());
  std::vector<int64_t> outer = input.sizes().slice(0, static_cast<size_t>(input.dim()) - shape.size()).vec();
  outer.resize(static_cast<size_t>(input.dim()), 1);
  at::Tensor mean = at::empty(outer, input.options()), rstd = at::empty(outer, input.options());
  LaunchSim(input.device().index(), "native_layer_norm",
            [x = AsKernelSees(input), w = AsKernelSees(weight.value_or(at::Tensor())),
             b = AsKernelSees(bias.value_or(at::Tensor())), y = AsKernelSees(output), m = AsKernelSees(mean),
             r = AsKernelSees(rstd), shape = shape.vec(), epsilon] {
              const auto [normed, means, rstds] = at::native_layer_norm(x, shape, w, b, epsilon);
              y.copy_(normed);
              m.copy_(means);
              r.copy_(rstds);
            });
  return {output, mean, rstd};
}

at::Tensor IndexSelect(const at::Tensor& self, int64_t dim, const at::Tensor& index) {
  TORCH_CHECK(self.device() == index.device(), "Expected all tensors of index_select to be on one device, but found ",
              self.device(), " and ", index.device());
  std::vector<int64_t> size = self.sizes().vec();
  size[static_cast<size_t>(c10::maybe_wrap_dim(dim, self.dim()))] = index.numel();
  at::Tensor output = at::empty(size, self.options());
  LaunchSim(self.device().index(), "index_select",
            [x = AsKernelSees(self), i = AsKernelSees(index), y = AsKernelSees(output), dim] {
              y.copy_(at::index_select(x, dim, i));
            });
  return output;
}

int64_t ChooseAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const OptionalTensor& mask,
                        double dropout, bool causal, std::optional<double> scale, bool enable_gqa) {
  return static_cast<int64_t>(at::SDPBackend::overrideable);
}

// Laid out as the fused kernels of a GPU do: [rows, tokens, heads, size], seen as [rows, heads, tokens, size].
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, c10::SymInt, c10::SymInt, at::Tensor, at::Tensor, at::Tensor>
Attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const OptionalTensor& bias, double dropout,
          bool causal, bool debug, std::optional<double> scale) {
  at::Tensor output = at::empty({q.size(0), q.size(2), q.size(1), v.size(3)}, q.options()).transpose(1, 2);
  LaunchSim(q.device().index(), "scaled_dot_product_attention",
            [q = AsKernelSees(q), k = AsKernelSees(k), v = AsKernelSees(v),
             b = AsKernelSees(bias.value_or(at::Tensor())), y = AsKernelSees(output), causal, scale] {
              const OptionalTensor mask = b.defined() ? OptionalTensor(b) : std::nullopt;
              y.copy_(at::scaled_dot_product_attention(q, k, v, mask, 0.0, causal, scale));
            });
  return {output,    at::Tensor(), at::Tensor(), at::Tensor(), q.size(2),
          k.size(2), at::Tensor(), at::Tensor(), at::Tensor()};
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", &Empty);
  library.impl("empty_strided", &EmptyStrided);
  library.impl("resize_", &Resize);
  library.impl("_copy_from", &CopyFrom);
  library.impl("_copy_from_and_resize", &CopyFromAndResize);
  library.impl("_local_scalar_dense", &LocalScalar);
  library.impl("record_stream", &RecordStream);
  library.impl("as_strided", &AsStrided);
  library.impl("view", &View);
  library.impl("_reshape_alias", &ReshapeAlias);
  library.impl("convolution_overrideable", &Convolution);
  library.impl("native_group_norm", &GroupNorm);
  library.impl("native_layer_norm", &LayerNorm);
  library.impl("index_select", &IndexSelect);
  library.impl("_fused_sdp_choice", &ChooseAttention);
  library.impl("_scaled_dot_product_fused_attention_overrideable", &Attention);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&CallDeferred>());
}

}  // namespace hotlora

namespace at::native {
REGISTER_PRIVATEUSE1_DISPATCH(_fused_sdp_choice_stub, &hotlora::ChooseAttention)
}  // namespace at::native
