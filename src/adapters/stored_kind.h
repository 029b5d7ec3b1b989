#ifndef HOTLORA_SRC_ADAPTERS_STORED_KIND_H_
#define HOTLORA_SRC_ADAPTERS_STORED_KIND_H_

// What a folder's files are: adapters, ControlNets, image prompts, an image encoder or embeddings. The kinds are
// found, read, kept and lent by the same code; this says in what their files and the words of their errors differ. No
// LibTorch here.

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "src/base/error_reason.h"
#include "src/weights/weight_index.h"

namespace hotlora {

struct StoredKind {
  absl::string_view noun;         // "adapter": before a name in messages
  absl::string_view plural;       // of what shares a memory: "adapters"
  absl::string_view folder_noun;  // "adapter folder"
  absl::string_view flag;         // that names the folder: "--adapters"

  // Reasons of errors (error_reason.h).
  const char* not_found;
  const char* invalid;
  const char* budget;
  const char* in_use;
  const char* exists;
  const char* no_folder;
  const char* folder;
  const char* folder_missing;
  const char* folder_read_only;
  const char* folder_replaced;

  // A name may be a folder: its tensors' file, without extension, the first of these that is there, and the name of its
  // configuration. Empty: names are files alone.
  absl::Span<const absl::string_view> folder_weights;
  absl::string_view folder_config;
  absl::string_view layout;  // what people call such a folder: "PEFT folder"
  // Whether `a.json` beside `a.safetensors` is its configuration.
  bool config_beside_file;

  // How many times the size of its file a block in memory may be.
  uint64_t most_growth;

  // Whether a folder's tensors may also be several files (shards), which an index names (weights/weight_index.h). The
  // folder's weights are then variants of the first of them.
  bool shards = false;

  // What a store of several kinds has before the names of this one's files (stored_folders.h). It ends in a newline,
  // which no name has.
  absl::string_view prefix = "";
  // The folder itself is the only file of this kind, whatever its name.
  bool is_folder = false;
  absl::string_view more_config = "";  // a second configuration that a folder may have

  // Whether that is a file of tensors of such a folder, by its name without extension.
  bool IsFolderWeights(absl::string_view leaf) const {
    return std::find(folder_weights.begin(), folder_weights.end(), leaf) != folder_weights.end() ||
           (shards && IsShardName(leaf, folder_weights.front()));
  }

  // The files of which the first that is there tells where a folder's tensors are, and whether it is an index.
  struct Head {
    std::string file;
    bool is_index = false;
  };
  std::vector<Head> FolderHeads() const {
    std::vector<Head> heads;
    for (const absl::string_view weights : folder_weights) {
      heads.push_back({absl::StrCat(weights, ".safetensors")});
      const absl::string_view stem = folder_weights.front();
      for (std::string& index : shards ? IndexNames(stem, weights.substr(stem.size())) : std::vector<std::string>()) {
        heads.push_back({std::move(index), true});
      }
    }
    return heads;
  }
};

inline constexpr absl::string_view kPeftWeights[] = {"adapter_model"};
// A rank of 1 is padded to 8, and widened from 16 bits to 32.
inline constexpr StoredKind kAdapterKind = {"adapter",
                                            "adapters",
                                            "adapter folder",
                                            "--adapters",
                                            error_reason::kAdapterNotFound,
                                            error_reason::kAdapterInvalid,
                                            error_reason::kAdapterBudget,
                                            error_reason::kAdaptersInUse,
                                            error_reason::kAdapterExists,
                                            error_reason::kNoAdapterFolder,
                                            error_reason::kAdapterFolder,
                                            error_reason::kAdapterFolderMissing,
                                            error_reason::kAdapterFolderReadOnly,
                                            error_reason::kAdapterFolderReplaced,
                                            kPeftWeights,
                                            "adapter_config.json",
                                            "PEFT folder",
                                            /*config_beside_file=*/false,
                                            /*most_growth=*/16};

// In the order of ReadCheckpoint.
inline constexpr absl::string_view kDiffusersWeights[] = {"diffusion_pytorch_model", "diffusion_pytorch_model.fp32",
                                                          "diffusion_pytorch_model.fp16",
                                                          "diffusion_pytorch_model.bf16"};
// Only widened.
inline constexpr StoredKind kControlKind = {"ControlNet",
                                            "ControlNets and image prompts",
                                            "ControlNet folder",
                                            "--controls",
                                            error_reason::kControlNotFound,
                                            error_reason::kControlInvalid,
                                            error_reason::kControlBudget,
                                            error_reason::kControlsInUse,
                                            error_reason::kControlExists,
                                            error_reason::kNoControlFolder,
                                            error_reason::kControlFolder,
                                            error_reason::kControlFolderMissing,
                                            error_reason::kControlFolderReadOnly,
                                            error_reason::kControlFolderReplaced,
                                            kDiffusersWeights,
                                            "config.json",
                                            "diffusers folder",
                                            /*config_beside_file=*/true,
                                            /*most_growth=*/2,
                                            /*shards=*/true};

// Image prompts and their encoder share the memory of ControlNets.
inline constexpr StoredKind kImagePromptKind = {"image prompt",
                                                "ControlNets and image prompts",
                                                "image prompt folder",
                                                "--image-prompts",
                                                error_reason::kImagePromptNotFound,
                                                error_reason::kImagePromptInvalid,
                                                error_reason::kControlBudget,
                                                error_reason::kControlsInUse,
                                                error_reason::kImagePromptExists,
                                                error_reason::kNoImagePromptFolder,
                                                error_reason::kImagePromptFolder,
                                                error_reason::kImagePromptFolderMissing,
                                                error_reason::kImagePromptFolderReadOnly,
                                                error_reason::kImagePromptFolderReplaced,
                                                {},
                                                "",
                                                "",
                                                /*config_beside_file=*/false,
                                                /*most_growth=*/2,
                                                /*shards=*/false,
                                                "image prompt\n"};

inline constexpr absl::string_view kTransformersWeights[] = {"model", "model.fp32", "model.fp16", "model.bf16"};
// It is one folder, into which nothing is written.
inline constexpr StoredKind kImageEncoderKind = {"image encoder",
                                                 "ControlNets and image prompts",
                                                 "image encoder folder",
                                                 "--image-encoder",
                                                 error_reason::kNoImageEncoder,
                                                 error_reason::kImageEncoderInvalid,
                                                 error_reason::kControlBudget,
                                                 error_reason::kControlsInUse,
                                                 error_reason::kInternal,
                                                 error_reason::kNoImageEncoder,
                                                 error_reason::kImageEncoderFolder,
                                                 error_reason::kNoImageEncoder,
                                                 error_reason::kInternal,
                                                 error_reason::kInternal,
                                                 kTransformersWeights,
                                                 "config.json",
                                                 "transformers folder",
                                                 /*config_beside_file=*/false,
                                                 /*most_growth=*/2,
                                                 /*shards=*/true,
                                                 "image encoder\n",
                                                 /*is_folder=*/true,
                                                 "preprocessor_config.json"};
inline constexpr absl::string_view kImageEncoderName = "model";
// Its name in a store of several kinds: prefix and name.
inline constexpr char kImageEncoderKey[] = "image encoder\nmodel";
static_assert(absl::string_view(kImageEncoderKey).substr(0, kImageEncoderKind.prefix.size()) ==
                  kImageEncoderKind.prefix &&
              absl::string_view(kImageEncoderKey).substr(kImageEncoderKind.prefix.size()) == kImageEncoderName);

// Nothing is kept of embeddings or written into their folder, so there are no errors about that.
inline constexpr StoredKind kEmbeddingKind = {"embedding",
                                              "embeddings",
                                              "embedding folder",
                                              "--embeddings",
                                              error_reason::kEmbeddingNotFound,
                                              error_reason::kEmbeddingInvalid,
                                              error_reason::kInternal,
                                              error_reason::kInternal,
                                              error_reason::kInternal,
                                              error_reason::kEmbeddingFolder,
                                              error_reason::kEmbeddingFolder,
                                              error_reason::kEmbeddingNotFound,
                                              error_reason::kEmbeddingFolder,
                                              error_reason::kEmbeddingFolder,
                                              {},
                                              "",
                                              "",
                                              /*config_beside_file=*/false,
                                              /*most_growth=*/1};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_STORED_KIND_H_
