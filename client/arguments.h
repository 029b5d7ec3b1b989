#ifndef HOTLORA_CLIENT_ARGUMENTS_H_
#define HOTLORA_CLIENT_ARGUMENTS_H_

// The command line of `hotlora` as values. Nothing here talks to a server.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "client/bench/settings.h"
#include "hotlora/v1/images.pb.h"
#include "hotlora/v1/server.pb.h"

namespace hotlora {

// How to reach the server.
struct ConnectionOptions {
  std::string server = "127.0.0.1:50051";
  bool tls = false;               // set by each of the tls_* as well
  std::string tls_ca;             // PEM file; empty: the system's authorities
  std::string tls_cert, tls_key;  // PEM files of our own identity
  std::string tls_server_name;    // the name to expect in the server's certificate; empty: the host's
  std::string token;              // bearer token; empty: none
  double timeout_seconds = 0;     // 0: none
};

enum class Command {
  kGenerate,
  kListAdapters,
  kGetAdapter,
  kLoadAdapter,
  kUnloadAdapter,
  kUploadAdapter,
  kDeleteAdapter,
  kInspectAdapter,
  kHealth,
  kInfo,
  kStatistics,
  kVerify,
  kLogLevel,
  kSheet,
  kBench
};

struct Arguments {
  Command command = Command::kInfo;
  ConnectionOptions connection;
  bool json = false;

  v1::GenerateImagesRequest request;  // kGenerate
  std::string out;                    // kGenerate: a file, or "-" for standard output; kSheet: a PNG file
  std::string preview_out;            // kGenerate: file that previews are named after; empty: none
  std::string adapter;                // the name, in all commands about one adapter of the server
  bool replace = false;               // kUploadAdapter
  bool pin = false;                   // kLoadAdapter
  v1::LogLevel log_level = v1::LOG_LEVEL_UNSPECIFIED;  // kLogLevel: the new level; unspecified: only show it
  std::string file;          // kUploadAdapter, kInspectAdapter: a .safetensors file, or (inspect) a PEFT folder
  std::string model_config;  // kInspectAdapter: folder of the model's configs; empty: stock SDXL
  std::vector<std::string> pictures;  // kSheet: PNG files, row by row
  uint32_t columns = 1;               // kSheet
  BenchSettings bench;                // kBench

  // Set if there is a text to print instead of a command to run (--help, --version).
  std::optional<std::string> answer;
};

// Parses `arguments`, which do not include the program's name. `environment` returns the value of a variable, nullopt
// if it is not set; HOTLORA_SERVER and HOTLORA_TOKEN are looked up. Reads the files of --token-file, --init and --mask.
// InvalidArgument says what is wrong.
absl::StatusOr<Arguments> ParseArguments(const std::vector<std::string>& arguments,
                                         const std::function<std::optional<std::string>(const char*)>& environment);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_ARGUMENTS_H_
