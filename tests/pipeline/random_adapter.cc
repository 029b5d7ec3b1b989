#include "tests/pipeline/random_adapter.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>

namespace hotlora {
namespace {

// W + factor * change(W).
RandomAdapter::Map Added(std::function<at::Tensor(const at::Tensor&)> change) {
  return [change = std::move(change)](const at::Tensor& weight, double factor, bool) {
    return weight + factor * change(weight);
  };
}

// W' of a DoRA: m * V / |V|, |V| over everything but the axis.
at::Tensor Decomposed(const at::Tensor& v, const at::Tensor& magnitude, int64_t axis) {
  at::Tensor result = at::empty_like(v);
  for (int64_t i = 0; i < v.size(axis); ++i) {
    const at::Tensor slice = v.select(axis, i);
    result.select(axis, i).copy_(slice *
                                 (magnitude[i].item<double>() / std::sqrt(slice.square().sum().item<double>())));
  }
  return result;
}

// One module's change under construction.
class ChangeMaker {
 public:
  ChangeMaker(const ModuleTable& table, size_t entry, std::mt19937_64& random, RandomAdapter& adapter)
      : table_(table), entry_(entry), module_(table.modules[entry]), random_(random), adapter_(adapter) {
    const std::vector<int64_t>& shape = module_.shape;
    out_ = shape[0];
    in_ = shape.size() > 1 ? shape[1] : 1;
    kernel_ = shape.size() > 2 ? shape[2] : 1;
    std::string under = module_.path;
    std::replace(under.begin(), under.end(), '.', '_');
    const char* const kohya[] = {"lora_te1_", "lora_te2_", "lora_unet_"};
    const char* const dotted[] = {"text_encoder.", "text_encoder_2.", "unet."};
    const auto component = static_cast<size_t>(module_.component);
    peft_ = Chance(0.4);
    key_ = peft_ ? dotted[component] + module_.path : kohya[component] + under;
    dtype_ = std::vector<at::ScalarType>{at::kFloat, at::kHalf, at::kBFloat16, at::kDouble}[Below(4)];
  }

  void Make() {
    if (module_.shape.size() == 1) {
      return MakeNorm();
    }
    switch (Below(7)) {
      case 0:
        return Finish("lora", MakeLora());
      case 1:
        return Finish("loha", MakeLoha());
      case 2:
        return Finish("lokr", MakeLokr());
      case 3:
        return Finish("glora", MakeGlora());
      case 4:
        return MakeOft();
      case 5:
        return Finish("full", MakeFull());
      default:
        return Finish("lora", MakeLora());
    }
  }

 private:
  using Change = std::function<at::Tensor(const at::Tensor&)>;

  size_t Below(size_t count) { return random_() % count; }
  bool Chance(double probability) { return std::uniform_real_distribution<>(0, 1)(random_) < probability; }

  // Random numbers as the file will hold them, in float64.
  at::Tensor Store(const std::string& part, std::vector<int64_t> shape, double size) {
    at::Tensor values = at::empty(shape, at::kDouble);
    double* const data = values.mutable_data_ptr<double>();
    std::normal_distribution<double> normal(0.0, size);
    std::generate_n(data, values.numel(), [&] { return normal(random_); });
    const at::Tensor stored = values.to(dtype_);
    const auto count = static_cast<size_t>(stored.numel());
    const std::string name = key_ + "." + part;
    if (dtype_ == at::kDouble) {
      Write<double>(name, "F64", shape, stored, count);
    } else if (dtype_ == at::kFloat) {
      Write<float>(name, "F32", shape, stored, count);
    } else {
      Write<uint16_t>(name, dtype_ == at::kHalf ? "F16" : "BF16", shape, stored, count);
    }
    return stored.to(at::kFloat).to(at::kDouble);  // float64 is read as float32
  }

  template <typename T>
  void Write(const std::string& name, const char* dtype, const std::vector<int64_t>& shape, const at::Tensor& stored,
             size_t count) {
    const T* const data = static_cast<const T*>(stored.const_data_ptr());
    adapter_.file.Add(name, dtype, shape, std::vector<T>(data, data + count));
  }

  double StoreNumber(const std::string& part, float value) {
    adapter_.file.Add(key_ + "." + part, {}, value);
    return value;
  }

  // alpha / rank, or what stands in its place.
  double Scale(int64_t rank) {
    double scale = 1.0;
    if (Chance(0.7)) {
      const double alpha = StoreNumber("alpha", std::vector<float>{0.0f, 1.0f, 2.5f, 8.0f}[Below(4)]);
      scale = alpha == 0.0 || rank == 0 ? 1.0 : alpha / static_cast<double>(rank);
    }
    return Chance(0.1) ? StoreNumber("scale", -0.75f) : scale;
  }

  std::vector<int64_t> KernelShape(int64_t out, int64_t in) const {
    return module_.shape.size() == 4 ? std::vector<int64_t>{out, in, kernel_, kernel_} : std::vector<int64_t>{out, in};
  }
  at::Tensor AsWeight(const at::Tensor& flat) const { return flat.reshape(module_.shape); }

  Change MakeLora() {
    const int64_t rank = 1 + static_cast<int64_t>(Below(5));
    const bool tucker = kernel_ > 1 && !peft_ && Chance(0.4);
    const std::string down = peft_ ? "lora_A.weight" : "lora_down.weight",
                      up = peft_ ? "lora_B.weight" : "lora_up.weight";
    at::Tensor change;
    if (tucker) {
      const at::Tensor n = Store(down, {rank, in_, 1, 1}, 0.4).flatten(1);
      const at::Tensor mid = Store("lora_mid.weight", {rank, rank, kernel_, kernel_}, 0.4);
      const at::Tensor m = Store(up, {out_, rank, 1, 1}, 0.4).flatten(1);
      change = at::einsum("om,mnhw,ni->oihw", {m, mid, n});
    } else {
      const at::Tensor b = Store(down, KernelShape(rank, in_), 0.3).flatten(1);
      change = Store(up, {out_, rank}, 0.3).mm(b);
    }
    const double scale = Scale(rank);
    if (module_.bias.has_value() && Chance(0.2)) {
      const at::Tensor bias = Store("lora_B.bias", {out_}, 0.5);
      adapter_.maps[*module_.bias] = Added([bias, scale](const at::Tensor&) { return scale * bias; });
      no_magnitude_ = true;
    }
    return [change = AsWeight(change), scale](const at::Tensor&) { return scale * change; };
  }

  Change MakeLoha() {
    const int64_t rank = 1 + static_cast<int64_t>(Below(4));
    const bool tucker = kernel_ > 1 && Chance(0.5);
    at::Tensor halves[2];
    for (int half = 0; half < 2; ++half) {
      const std::string n = std::to_string(half + 1);
      if (tucker) {
        const at::Tensor t = Store("hada_t" + n, {rank, rank, kernel_, kernel_}, 0.7);
        const at::Tensor a = Store("hada_w" + n + "_a", {rank, out_}, 0.7);
        const at::Tensor b = Store("hada_w" + n + "_b", {rank, in_}, 0.7);
        halves[half] = at::einsum("abhw,bi,ao->oihw", {t, b, a});
      } else {
        const at::Tensor a = Store("hada_w" + n + "_a", {out_, rank}, 0.5);
        const at::Tensor b = Chance(0.5) ? Store("hada_w" + n + "_b", {rank, in_ * kernel_ * kernel_}, 0.5)
                                         : Store("hada_w" + n + "_b", KernelShape(rank, in_), 0.5).flatten(1);
        halves[half] = AsWeight(a.mm(b));
      }
    }
    const double scale = Scale(rank);
    return [change = halves[0] * halves[1], scale](const at::Tensor&) { return scale * change; };
  }

  Change MakeLokr() {
    const int64_t a = out_ % 4 == 0 ? 4 : 1, b = in_ % 2 == 0 ? 2 : 1, c = out_ / a, d = in_ / b;
    int64_t rank = 0;
    at::Tensor first, second;
    if (Chance(0.5)) {
      first = Store("lokr_w1", {a, b}, 0.5);
    } else {
      rank = 1 + static_cast<int64_t>(Below(3));
      const at::Tensor left = Store("lokr_w1_a", {a, rank}, 0.5);
      first = left.mm(Store("lokr_w1_b", {rank, b}, 0.5));
    }
    if (Chance(0.4)) {
      second = Store("lokr_w2", KernelShape(c, d), 0.5);
    } else {
      rank = 1 + static_cast<int64_t>(Below(3));
      if (kernel_ > 1 && Chance(0.5)) {
        const at::Tensor t = Store("lokr_t2", {rank, rank, kernel_, kernel_}, 0.5);
        const at::Tensor left = Store("lokr_w2_a", {rank, c}, 0.5);
        second = at::einsum("pqhw,qd,pc->cdhw", {t, Store("lokr_w2_b", {rank, d}, 0.5), left});
      } else {
        const at::Tensor left = Store("lokr_w2_a", {c, rank}, 0.5);
        second = left.mm(Store("lokr_w2_b", {rank, d * kernel_ * kernel_}, 0.5));
      }
    }
    second = second.reshape({c, d, kernel_ * kernel_});
    at::Tensor change = at::empty({out_, in_, kernel_ * kernel_}, at::kDouble);
    for (int64_t i = 0; i < a; ++i) {
      for (int64_t j = 0; j < b; ++j) {
        change.narrow(0, i * c, c).narrow(1, j * d, d).copy_(first[i][j] * second);
      }
    }
    const double scale = Scale(rank);
    return [change = AsWeight(change), scale](const at::Tensor&) { return scale * change; };
  }

  Change MakeGlora() {
    const int64_t rank = 1 + static_cast<int64_t>(Below(4));
    at::Tensor mixed, added;
    if (kernel_ == 1 && Chance(0.5)) {  // LyCORIS' first layout
      const at::Tensor a1 = Store("a1.weight", {rank, in_}, 0.2), a2 = Store("a2.weight", {in_, rank}, 0.2);
      const at::Tensor b1 = Store("b1.weight", {rank, in_}, 0.3), b2 = Store("b2.weight", {out_, rank}, 0.3);
      mixed = a2.mm(a1);
      added = b2.mm(b1);
    } else {
      const at::Tensor a1 = Store("a1.weight", {in_, rank}, 0.2), a2 = Store("a2.weight", {rank, in_}, 0.2);
      const at::Tensor b1 = Store("b1.weight", {out_, rank}, 0.3), b2 = Store("b2.weight", KernelShape(rank, in_), 0.3);
      mixed = a1.mm(a2);
      added = b1.mm(b2.flatten(1));
    }
    const double scale = Scale(rank);
    return [mixed, added = AsWeight(added), scale](const at::Tensor& weight) {
      return scale * (added + at::einsum("oi...,ij->oj...", {weight, mixed}));
    };
  }

  Change MakeFull() {
    const at::Tensor change = Store("diff", module_.shape, 0.3);
    const double scale = Scale(0);
    if (module_.bias.has_value() && Chance(0.5)) {
      const at::Tensor bias = Store("diff_b", {out_}, 0.5);
      adapter_.maps[*module_.bias] = Added([bias](const at::Tensor&) { return bias; });
    }
    return [change, scale](const at::Tensor&) { return scale * change; };
  }

  void MakeOft() {
    std::vector<int64_t> sizes;
    for (const int64_t size : {2, 4, 8}) {
      if (out_ % size == 0) {
        sizes.push_back(size);
      }
    }
    const int64_t size = sizes[Below(sizes.size())], blocks = out_ / size;
    const at::Tensor stored = Store("oft_blocks", {blocks, size, size}, 0.4);
    at::Tensor rescale = at::ones({out_}, at::kDouble);
    if (Chance(0.3)) {
      std::vector<int64_t> shape(module_.shape.size(), 1);
      shape[0] = out_;
      rescale = Store("rescale", shape, 1.0).reshape({out_});
    }
    at::Tensor skew = stored - stored.transpose(1, 2);
    if (Chance(0.5)) {
      const double bound = StoreNumber("alpha", 0.03125f) * static_cast<double>(out_);
      const double norm = std::sqrt(skew.square().sum().item<double>());
      skew = norm > bound ? skew * (bound / norm) : skew;
    }
    at::Tensor rotation = at::zeros({out_, out_}, at::kDouble);
    const at::Tensor identity = at::eye(size, at::kDouble);
    for (int64_t block = 0; block < blocks; ++block) {
      const at::Tensor r = (identity + skew[block]).mm(at::inverse(identity - skew[block]));
      rotation.narrow(0, block * size, size).narrow(1, block * size, size).copy_(r.t());
    }
    rotation = at::diag(rescale).mm(rotation);
    adapter_.formats += " oft";
    adapter_.maps[entry_] = Added([rotation](const at::Tensor& weight) {
      return rotation.mm(weight.flatten(1)).reshape(weight.sizes()) - weight;
    });
  }

  void MakeNorm() {
    const bool weight = Chance(0.7);
    if (weight) {
      const at::Tensor change = Store(Chance(0.8) ? "w_norm" : "diff", {out_}, 0.5);
      adapter_.maps[entry_] = Added([change](const at::Tensor&) { return change; });
    }
    if (!weight || Chance(0.5)) {
      const at::Tensor change = Store(Chance(0.8) ? "b_norm" : "diff_b", {out_}, 0.5);
      adapter_.maps[*module_.bias] = Added([change](const at::Tensor&) { return change; });
    }
    adapter_.formats += " norm";
  }

  // With a magnitude in a third of all cases.
  void Finish(const std::string& format, Change change) {
    adapter_.formats += " " + format;
    if (no_magnitude_ || Chance(0.67)) {
      adapter_.maps[entry_] = Added(std::move(change));
      return;
    }
    const bool inputs = !peft_ && Chance(0.5);
    std::vector<int64_t> shape(module_.shape.size(), 1);
    shape[inputs ? 1 : 0] = inputs ? in_ : out_;
    const at::Tensor magnitude =
        peft_ ? Store("lora_magnitude_vector", {out_}, 1.0) : Store("dora_scale", shape, 1.0).flatten();
    adapter_.formats += inputs ? "+dora(in)" : "+dora(out)";
    adapter_.maps[entry_] = [change = std::move(change), magnitude, inputs](const at::Tensor& weight, double factor,
                                                                            bool interpolated) {
      const int64_t axis = inputs ? 1 : 0;
      return interpolated ? weight + factor * (Decomposed(weight + change(weight), magnitude, axis) - weight)
                          : Decomposed(weight + factor * change(weight), magnitude, axis);
    };
  }

  const ModuleTable& table_;
  const size_t entry_;
  const AdaptableModule& module_;
  std::mt19937_64& random_;
  RandomAdapter& adapter_;
  std::string key_;
  at::ScalarType dtype_ = at::kFloat;
  bool peft_ = false, no_magnitude_ = false;
  int64_t out_ = 0, in_ = 0, kernel_ = 0;
};

}  // namespace

RandomAdapter MakeRandomAdapter(const ModuleTable& table, const std::vector<size_t>& modules, size_t count,
                                std::mt19937_64& random) {
  RandomAdapter adapter;
  std::vector<size_t> chosen = modules;
  std::shuffle(chosen.begin(), chosen.end(), random);
  chosen.resize(std::min(count, chosen.size()));
  for (const size_t entry : chosen) {
    ChangeMaker(table, entry, random, adapter).Make();
    const bool unet = table.modules[entry].component == Component::kUnet;
    (unet ? adapter.of_unet : adapter.of_text) = true;
  }
  return adapter;
}

}  // namespace hotlora
