#ifndef HOTLORA_SERVER_FLAGS_H_
#define HOTLORA_SERVER_FLAGS_H_

// hotlora-server's settings. Each has one name and four sources, the first of which wins:
//
//   flag          --max-batch 8
//   environment   HOTLORA_MAX_BATCH=8          (repeatable flags: values with commas between them; a comma in a value
//                                               is %2C, a percent sign %25)
//   file          max_batch = 8                (TOML, named by --config; repeatable flags: an array)
//   default
//
// Unknown names are errors in all three. Nothing here loads anything: a bad setting ends the program before the model
// is touched.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "src/request/model_info.h"

namespace hotlora {

// Paths of PEM files; empty: not given.
struct TlsFiles {
  std::string cert;       // chain, leaf first; empty: no TLS
  std::string key;        // of the leaf
  std::string client_ca;  // callers must show a certificate that this signs
};

struct Flags {
  std::string model;         // folder or single file
  std::string model_config;  // folder of configs for a single file; empty: stock SDXL's
  std::string vae;           // folder or file; empty: the checkpoint's own
  std::string adapters;      // folder; empty: there are no adapters
  bool adapters_follow_links = false;
  std::string embeddings;  // folder; empty: there are no textual-inversion embeddings
  bool embeddings_follow_links = false;
  std::string controls;       // folder; empty: there are no ControlNets
  std::string image_prompts;  // folder; empty: there are no image prompts
  std::string image_encoder;  // transformers folder, which they need; empty: there is none
  std::string apply = "auto";
  std::string listen = "127.0.0.1:50051";
  std::string metrics_listen = "127.0.0.1:9464";
  std::string device = "auto";
  std::string dtype = "auto";
  std::string vae_dtype = "float32";
  uint32_t max_batch = 4;
  uint32_t max_queue = 64;
  uint32_t client_share = 0;  // 0: off
  uint64_t adapter_device_bytes = uint64_t{2} << 30;
  uint64_t adapter_host_bytes = uint64_t{4} << 30;
  std::optional<uint64_t> control_device_bytes, control_host_bytes;  // unset: by the folder
  uint64_t conditioning_cache_bytes = uint64_t{64} << 20;
  std::vector<std::string> pin, pin_control;
  std::vector<BaseAdapter> base_adapters;
  bool allow_unmatched_keys = false;
  std::string dora_weighting = "peft";
  std::optional<double> max_request_seconds;  // 0: none; unset: 300 on CUDA, none on the CPU
  uint32_t max_message_bytes = uint32_t{32} << 20;
  TlsFiles tls;
  std::string tokens_file;
  std::vector<std::string> trusted_proxies;  // sound (TrustedProxies::Parse)
  bool insecure = false;                     // a listener that is not loopback needs neither tokens nor client_ca
  bool reflection = false;
  std::string uploads;  // "on" or "off"; empty: not given (ServesUploads)
  uint32_t upload_quota_files = 1000;
  uint64_t upload_quota_bytes = uint64_t{256} << 30;
  std::string ready_file;
  bool check = false;
  double drain_timeout = 30;
  std::string log_level = "info";
  std::string access_log;  // file, or "-" for standard output; empty: none
  std::string fault_file;  // by how many seconds each step is longer, while it is there; empty: never

  // Set if there is a text to print instead of a server to run (--help, --version).
  std::optional<std::string> answer;
};

// Reads the settings from `arguments` (without the program's name), `environment` (all variables;
// those without the prefix HOTLORA_ are ignored) and the file that --config names. InvalidArgument
// names the flag, variable or key and what it may be.
absl::StatusOr<Flags> ParseFlags(const std::vector<std::string>& arguments,
                                 const std::map<std::string, std::string>& environment);

// Whether `listen`, HOST:PORT, is an address that this machine alone can reach.
bool IsLoopback(absl::string_view listen);

// Whether UploadAdapter and DeleteAdapter are served: as --uploads says; without it, if only this machine can call, if
// callers need a token or a certificate, or with --insecure.
bool ServesUploads(const Flags& flags);

// Whether the files and folders that `flags` names are there and can be read. InvalidArgument names
// the flag.
absl::Status CheckPaths(const Flags& flags);

// This process's environment.
std::map<std::string, std::string> ReadEnvironment();

}  // namespace hotlora

#endif  // HOTLORA_SERVER_FLAGS_H_
