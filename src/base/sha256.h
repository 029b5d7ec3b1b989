#ifndef HOTLORA_SRC_BASE_SHA256_H_
#define HOTLORA_SRC_BASE_SHA256_H_

#include <cstddef>
#include <string>

namespace hotlora {

// SHA-256 over bytes that arrive in parts. Not thread-safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(const void* data, size_t size);

  // The digest as 64 lower-case hex digits. Call once, last.
  std::string HexDigest();

 private:
  void* context_;  // EVP_MD_CTX
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_SHA256_H_
