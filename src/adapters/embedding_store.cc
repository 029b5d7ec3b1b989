#include "src/adapters/embedding_store.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "src/adapter_format/stored_values.h"
#include "src/adapters/adapter_directory.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/printable.h"
#include "src/base/status_macros.h"
#include "src/weights/safetensors_file.h"

namespace hotlora {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{4} << 20;  // three times the largest that may be
constexpr uint64_t kMaxHeaderBytes = uint64_t{64} << 10;
constexpr int64_t kStableDiffusion1Width = 768;

absl::Status Invalid(absl::string_view what) {
  return MakeError(absl::StatusCode::kFailedPrecondition, error_reason::kEmbeddingInvalid, what);
}

absl::Status Mismatch(absl::string_view what) {
  return MakeError(absl::StatusCode::kFailedPrecondition, error_reason::kEmbeddingMismatch, what);
}

// The tensors of the two encoders; a key that is neither is refused.
struct EncoderTensors {
  const StoredTensor* first = nullptr;
  const StoredTensor* second = nullptr;
};

absl::Status Assign(const StoredTensor& tensor, const StoredTensor*& encoder) {
  if (encoder != nullptr) {
    return Invalid(absl::StrCat("has ", encoder->name, " and ", tensor.name, ", which mean the same"));
  }
  encoder = &tensor;
  return absl::OkStatus();
}

absl::StatusOr<EncoderTensors> FindTensors(const SafetensorsFile& file) {
  EncoderTensors found;
  for (const StoredTensor& tensor : file.tensors()) {
    if (tensor.name == "clip_l" || tensor.name == "text_encoders_0") {
      ABSL_RETURN_IF_ERROR(Assign(tensor, found.first));
    } else if (tensor.name == "clip_g" || tensor.name == "text_encoders_1") {
      ABSL_RETURN_IF_ERROR(Assign(tensor, found.second));
    } else if (file.tensors().size() == 1) {
      const bool old = !tensor.shape.empty() && tensor.shape.back() == kStableDiffusion1Width;
      return Mismatch(absl::StrCat("has vectors for one text encoder alone, under the key ", PrintableName(tensor.name),
                                   "; needed are clip_l and clip_g", old ? " (it is of Stable Diffusion 1?)" : ""));
    } else {
      return Invalid(absl::StrCat("has the key ", PrintableName(tensor.name), "; known are clip_l and clip_g, or ",
                                  "text_encoders_0 and text_encoders_1"));
    }
  }
  if (found.first == nullptr || found.second == nullptr) {
    return Mismatch(absl::StrCat("lacks ", found.first == nullptr ? "clip_l" : "clip_g",
                                 ": needed are vectors for both text encoders"));
  }
  return found;
}

// Checks one encoder's tensor; how many vectors it has.
absl::StatusOr<int64_t> CheckTensor(const SafetensorsFile& file, const StoredTensor& tensor, int64_t width) {
  const bool flat = tensor.shape.size() == 1;
  if (!IsWeightDtype(tensor.dtype) || (!flat && tensor.shape.size() != 2)) {
    return Invalid(absl::StrCat(tensor.name, " is ", NameOf(tensor.dtype), " ", ShapeText(tensor.shape),
                                "; allowed are F32, F16, BF16, F64 of [vectors, width]"));
  }
  if (tensor.shape.back() != width) {
    return Mismatch(absl::StrCat(tensor.name, " is ", ShapeText(tensor.shape), "; this model's vectors have ", width));
  }
  const int64_t count = flat ? 1 : tensor.shape.front();
  if (count < 1 || count > kMaxEmbeddingVectors) {
    return Invalid(absl::StrCat(tensor.name, " has ", count, " vectors; allowed are 1 to ", kMaxEmbeddingVectors));
  }
  if (!AllFinite(tensor, file.Data(tensor))) {
    return Invalid(absl::StrCat(tensor.name, " has values that are not finite"));
  }
  return count;
}

class FolderEmbeddingStore final : public EmbeddingStore {
 public:
  FolderEmbeddingStore(AdapterDirectory directory, EmbeddingWidths widths)
      : directory_(std::move(directory)), widths_(widths) {
    directory_.LogWhatIsNotServed();
  }

  absl::StatusOr<Embedding> Read(absl::string_view name) const override {
    const std::string printable = PrintableName(name);
    const absl::StatusOr<OpenedAdapter> opened = directory_.OpenAdapter(name);
    if (absl::IsNotFound(opened.status())) {
      return MakeError(absl::StatusCode::kNotFound, error_reason::kEmbeddingNotFound,
                       absl::StrCat("no embedding ", printable));
    }
    if (absl::IsResourceExhausted(opened.status()) || absl::IsUnavailable(opened.status())) {
      return opened.status();
    }
    if (!opened.ok()) {
      return Invalid(absl::StrCat("embedding ", printable, " cannot be read"));
    }
    const absl::StatusOr<SafetensorsFile> file =
        SafetensorsFile::ReadDescriptor(opened->weights.number(), kMaxFileBytes, kMaxHeaderBytes);
    if (!file.ok() && !absl::IsDataLoss(file.status()) && !absl::IsResourceExhausted(file.status())) {
      return UnreadableNow(absl::StrCat("embedding ", printable), file.status().message());
    }
    if (!file.ok()) {
      return Invalid(absl::StrCat("embedding ", printable, ": ", file.status().message()));
    }
    absl::StatusOr<EmbeddingVectors> vectors = ParseEmbedding(*file, widths_);
    if (!vectors.ok()) {
      return MakeError(vectors.status().code(), GetErrorDetails(vectors.status()).reason,
                       absl::StrCat("embedding ", printable, " ", vectors.status().message()));
    }
    return Embedding{std::string(name), file->sha256(), std::make_shared<const EmbeddingVectors>(*std::move(vectors))};
  }

 private:
  const AdapterDirectory directory_;
  const EmbeddingWidths widths_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<EmbeddingStore>> EmbeddingStore::Create(const EmbeddingStoreOptions& options) {
  absl::StatusOr<AdapterDirectory> directory =
      AdapterDirectory::Open(options.directory, options.follow_links, /*use_openat2=*/true, kEmbeddingKind);
  if (!directory.ok()) {
    return MakeError(absl::StatusCode::kInvalidArgument, error_reason::kEmbeddingFolder,
                     absl::StrCat("--embeddings ", options.directory, ": cannot be opened"));
  }
  return std::make_unique<FolderEmbeddingStore>(*std::move(directory), options.widths);
}

absl::StatusOr<EmbeddingVectors> ParseEmbedding(const SafetensorsFile& file, const EmbeddingWidths& widths) {
  ABSL_ASSIGN_OR_RETURN(const EncoderTensors tensors, FindTensors(file));
  ABSL_ASSIGN_OR_RETURN(const int64_t first, CheckTensor(file, *tensors.first, widths.first));
  ABSL_ASSIGN_OR_RETURN(const int64_t second, CheckTensor(file, *tensors.second, widths.second));
  if (first != second) {
    return Invalid(absl::StrCat(tensors.first->name, " has ", first, " vectors, ", tensors.second->name, " ", second,
                                "; both must have the same number"));
  }
  return EmbeddingVectors{static_cast<uint32_t>(first), ReadFloats(*tensors.first, file.Data(*tensors.first)),
                          ReadFloats(*tensors.second, file.Data(*tensors.second))};
}

}  // namespace hotlora
