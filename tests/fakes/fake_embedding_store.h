#ifndef HOTLORA_TESTS_FAKES_FAKE_EMBEDDING_STORE_H_
#define HOTLORA_TESTS_FAKES_FAKE_EMBEDDING_STORE_H_

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"

#include "src/adapters/embedding_store.h"
#include "src/base/error_details.h"

namespace hotlora {

// Has an embedding of two vectors under each name that begins with "e".
class FakeEmbeddingStore : public EmbeddingStore {
 public:
  absl::StatusOr<Embedding> Read(absl::string_view name) const override {
    if (name.substr(0, 1) != "e") {
      return MakeError(absl::StatusCode::kNotFound, "EMBEDDING_NOT_FOUND", absl::StrCat("no embedding \"", name, "\""));
    }
    return Embedding{std::string(name), std::string(64, 'e'),
                     std::make_shared<const EmbeddingVectors>(EmbeddingVectors{2, {1.0f}, {2.0f}})};
  }
};

}  // namespace hotlora

#endif  // HOTLORA_TESTS_FAKES_FAKE_EMBEDDING_STORE_H_
