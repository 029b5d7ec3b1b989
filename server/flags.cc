#include "server/flags.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include <CLI/CLI.hpp>

#include "src/base/resource_name.h"
#include "src/base/status_macros.h"
#include "src/request/validation.h"
#include "toml++/toml.h"

namespace hotlora {
namespace {

constexpr char kPrefix[] = "HOTLORA_";

// What one source says of one flag, as text.
using Values = std::vector<std::string>;

// By flag name, without dashes in front.
using Settings = std::map<std::string, Values>;

enum class Kind { kValue, kSwitch, kList };

// One flag. `set` gets the text of the source that won and says what is wrong with it, without the
// flag's name.
struct FlagSpec {
  std::string name;
  Kind kind;
  std::string help;
  std::function<absl::Status(const Values&, Flags*)> set;
};

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

FlagSpec Text(std::string name, std::string Flags::*field, std::string help) {
  return {std::move(name), Kind::kValue, std::move(help), [field](const Values& values, Flags* flags) {
            if (values[0].empty()) {
              return Bad("is empty");
            }
            flags->*field = values[0];
            return absl::OkStatus();
          }};
}

FlagSpec TlsPath(std::string name, std::string TlsFiles::*field, std::string help) {
  return {std::move(name), Kind::kValue, std::move(help), [field](const Values& values, Flags* flags) {
            if (values[0].empty()) {
              return Bad("is empty");
            }
            flags->tls.*field = values[0];
            return absl::OkStatus();
          }};
}

FlagSpec OneOf(std::string name, std::string Flags::*field, std::vector<std::string> allowed, std::string help) {
  return {std::move(name), Kind::kValue, std::move(help),
          [field, allowed = std::move(allowed)](const Values& values, Flags* flags) {
            if (std::find(allowed.begin(), allowed.end(), values[0]) == allowed.end()) {
              return Bad("is \"", values[0], "\"; allowed are ", absl::StrJoin(allowed, ", "));
            }
            flags->*field = values[0];
            return absl::OkStatus();
          }};
}

FlagSpec Switch(std::string name, bool Flags::*field, std::string help) {
  return {std::move(name), Kind::kSwitch, std::move(help), [field](const Values& values, Flags* flags) {
            if (!absl::SimpleAtob(values[0], &(flags->*field))) {
              return Bad("is \"", values[0], "\"; allowed are true and false");
            }
            return absl::OkStatus();
          }};
}

FlagSpec Count(std::string name, uint32_t Flags::*field, uint32_t low, uint32_t high, std::string help) {
  return {std::move(name), Kind::kValue, std::move(help), [field, low, high](const Values& values, Flags* flags) {
            uint32_t count;
            if (!absl::SimpleAtoi(values[0], &count) || count < low || count > high) {
              return Bad("is \"", values[0], "\"; allowed are ", low, " to ", high);
            }
            flags->*field = count;
            return absl::OkStatus();
          }};
}

// A number of bytes, plain or with KiB, MiB, GiB or TiB; nullopt where it is neither or too big for
// 63 bits.
std::optional<uint64_t> ParseBytes(absl::string_view text) {
  static constexpr std::pair<absl::string_view, int> kUnits[] = {
      {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}, {"B", 0}};
  int shift = 0;
  for (const auto& [unit, unit_shift] : kUnits) {
    if (absl::ConsumeSuffix(&text, unit)) {
      shift = unit_shift;
      break;
    }
  }
  text = absl::StripAsciiWhitespace(text);
  uint64_t count;
  if (text.empty() || !absl::ascii_isdigit(static_cast<unsigned char>(text[0])) || !absl::SimpleAtoi(text, &count) ||
      count > (uint64_t{INT64_MAX} >> shift)) {
    return std::nullopt;
  }
  return count << shift;
}

template <typename T>
FlagSpec Bytes(std::string name, T Flags::*field, uint64_t low, uint64_t high, std::string help) {
  return {std::move(name), Kind::kValue, std::move(help), [field, low, high](const Values& values, Flags* flags) {
            const std::optional<uint64_t> bytes = ParseBytes(values[0]);
            if (!bytes.has_value()) {
              return Bad("is \"", values[0],
                         "\"; a size is a whole number with nothing, KiB, MiB, GiB or TiB behind it");
            }
            if (*bytes < low || *bytes > high) {
              return Bad("is ", *bytes, " bytes; allowed are ", low, " to ", high);
            }
            flags->*field = static_cast<T>(*bytes);
            return absl::OkStatus();
          }};
}

template <typename T>
FlagSpec Seconds(std::string name, T Flags::*field, double high, std::string help) {
  return {std::move(name), Kind::kValue, std::move(help), [field, high](const Values& values, Flags* flags) {
            double seconds;
            if (!absl::SimpleAtod(values[0], &seconds) || !(seconds >= 0 && seconds <= high)) {
              return Bad("is \"", values[0], "\"; allowed are seconds from 0 to ", high);
            }
            flags->*field = seconds;
            return absl::OkStatus();
          }};
}

FlagSpec HostPort(std::string name, std::string Flags::*field, std::string help) {
  return {std::move(name), Kind::kValue, std::move(help), [field](const Values& values, Flags* flags) {
            const size_t colon = values[0].rfind(':');
            uint32_t port;
            const std::string host = values[0].substr(0, colon);
            const bool bracketed = absl::StartsWith(host, "[") && absl::EndsWith(host, "]");
            if (colon == std::string::npos || host.empty() || !absl::SimpleAtoi(values[0].substr(colon + 1), &port) ||
                port > 65535 || (!bracketed && absl::StrContains(host, ':'))) {
              return Bad("is \"", values[0], "\"; it is HOST:PORT or [IPV6]:PORT, port 0 to 65535 (0: any free one)");
            }
            flags->*field = values[0];
            return absl::OkStatus();
          }};
}

FlagSpec Device() {
  return {"device", Kind::kValue, "auto, cpu, cuda or cuda:N. auto: the first CUDA device, else the CPU",
          [](const Values& values, Flags* flags) {
            absl::string_view number = values[0];
            uint32_t index;
            const bool numbered = absl::ConsumePrefix(&number, "cuda:") && absl::SimpleAtoi(number, &index);
            if (!numbered && values[0] != "auto" && values[0] != "cpu" && values[0] != "cuda") {
              return Bad("is \"", values[0], "\"; allowed are auto, cpu, cuda, cuda:N");
            }
            flags->device = values[0];
            return absl::OkStatus();
          }};
}

FlagSpec Pin() {
  return {"pin", Kind::kList, "NAME of an adapter to load at start and never evict (repeatable)",
          [](const Values& values, Flags* flags) {
            if (std::find(values.begin(), values.end(), "") != values.end()) {
              return Bad("has an empty name");
            }
            flags->pin = values;
            return absl::OkStatus();
          }};
}

FlagSpec BaseAdapter() {
  return {"base-adapter", Kind::kList, "NAME:WEIGHT of an adapter to merge into the base at start (repeatable)",
          [](const Values& values, Flags* flags) {
            flags->base_adapters.clear();
            for (const std::string& value : values) {
              const size_t colon = value.rfind(':');
              BaseAdapterFlag adapter{value.substr(0, colon), 0.0};
              if (colon == std::string::npos || adapter.name.empty() ||
                  !absl::SimpleAtod(value.substr(colon + 1), &adapter.weight) ||
                  !(std::abs(adapter.weight) <= kMaxAdapterWeight)) {
                return Bad("is \"", value, "\"; it is NAME:WEIGHT with a weight from -", kMaxAdapterWeight, " to ",
                           kMaxAdapterWeight);
              }
              flags->base_adapters.push_back(std::move(adapter));
            }
            return absl::OkStatus();
          }};
}

const std::vector<FlagSpec>& Specs() {
  static const auto* const specs = new std::vector<FlagSpec>{
      Text("model", &Flags::model,
           "SDXL checkpoint: diffusers-layout folder, or .safetensors file in SGM names (needed)"),
      Text("model-config", &Flags::model_config,
           "diffusers-layout folder whose configs a single-file checkpoint gets; stock SDXL's without it"),
      Text("vae", &Flags::vae, "folder or .safetensors file of another VAE in place of the checkpoint's"),
      Text("adapters", &Flags::adapters, "folder of adapters, found by name on demand"),
      Switch("adapters-follow-links", &Flags::adapters_follow_links, "allow links that leave the folder of adapters"),
      Text("embeddings", &Flags::embeddings, "folder of textual-inversion embeddings, found by name on demand"),
      Switch("embeddings-follow-links", &Flags::embeddings_follow_links,
             "allow links that leave the folder of embeddings"),
      OneOf("apply", &Flags::apply, {"auto", "merged", "side"},
            "how adapters take effect: auto, merged into the weights, or beside them (side)"),
      HostPort("listen", &Flags::listen, "HOST:PORT for gRPC, 127.0.0.1:50051; port 0 picks a free one"),
      HostPort("metrics-listen", &Flags::metrics_listen, "HOST:PORT for GET /metrics, 127.0.0.1:9464"),
      Device(),
      OneOf("dtype", &Flags::dtype, {"auto", "float32", "bfloat16", "float16"}, "auto, float32, bfloat16 or float16"),
      Count("max-batch", &Flags::max_batch, 1, 256, "rows per denoising step, 4"),
      Count("max-queue", &Flags::max_queue, 1, 1'000'000, "waiting requests beyond which callers are turned away, 64"),
      Bytes("adapter-device-bytes", &Flags::adapter_device_bytes, 0, uint64_t{INT64_MAX},
            "storage of adapters on the device, allocated at start, 2GiB"),
      Bytes("adapter-host-bytes", &Flags::adapter_host_bytes, 0, uint64_t{INT64_MAX},
            "budget of adapters in host memory, 4GiB"),
      Pin(),
      BaseAdapter(),
      Switch("allow-unmatched-keys", &Flags::allow_unmatched_keys,
             "load adapters that have keys of modules this model lacks"),
      OneOf("dora-weighting", &Flags::dora_weighting, {"peft", "interpolated"},
            "at a DoRA's weight: scale its change before the norm, peft; or interpolate, interpolated"),
      Seconds("max-request-seconds", &Flags::max_request_seconds, 1e6,
              "longest time a request may take, 0 for no limit; 300 on CUDA, 0 on the CPU"),
      Bytes("max-message-bytes", &Flags::max_message_bytes, 65536, uint64_t{1} << 30,
            "largest message to receive, 32MiB"),
      TlsPath("tls-cert", &TlsFiles::cert, "PEM file of the certificate chain; turns TLS on"),
      TlsPath("tls-key", &TlsFiles::key, "PEM file of its key"),
      TlsPath("tls-client-ca", &TlsFiles::client_ca, "PEM file of the authority that callers' certificates need"),
      Text("tokens-file", &Flags::tokens_file,
           "bearer tokens: a line each, TOKEN SCOPE[,SCOPE], scopes generate, adapters.read, "
           "adapters.write, admin"),
      OneOf("uploads", &Flags::uploads, {"on", "off"},
            "serve UploadAdapter and DeleteAdapter: on or off; on by default if --listen is loopback, or with "
            "--tokens-file or --tls-client-ca"),
      Count("upload-quota-files", &Flags::upload_quota_files, 0, 1'000'000'000,
            "files that one caller may upload within an hour, 0 for any number; 1000"),
      Bytes("upload-quota-bytes", &Flags::upload_quota_bytes, 0, uint64_t{INT64_MAX},
            "bytes that one caller may upload within an hour, 0 for any number; 256GiB"),
      Switch("reflection", &Flags::reflection, "server reflection (it asks for no token)"),
      Text("ready-file", &Flags::ready_file, "file to write once requests are accepted: ports and pid as JSON"),
      Switch("check", &Flags::check, "validate model and adapters, print the memory plan, exit"),
      Seconds("drain-timeout", &Flags::drain_timeout, 86400, "seconds that SIGTERM leaves to what runs, 30"),
      OneOf("log-level", &Flags::log_level, {"debug", "info", "warning", "error"},
            "debug, info, warning or error; info"),
      Text("access-log", &Flags::access_log,
           "file to append a line of JSON to for each call, or - for standard output"),
      Text("fault-file", &Flags::fault_file,
           "to try alerts: while this file is there, each step takes as many seconds longer as it says"),
  };
  return *specs;
}

std::string VariableOf(absl::string_view flag) {
  return absl::StrCat(kPrefix, absl::AsciiStrToUpper(absl::StrReplaceAll(flag, {{"-", "_"}})));
}

std::string KeyOf(absl::string_view flag) { return absl::StrReplaceAll(flag, {{"-", "_"}}); }

// Settings on the command line; `config` is taken out of them.
absl::StatusOr<Settings> ReadArguments(std::vector<std::string> arguments, std::string* config,
                                       std::optional<std::string>* answer) {
  CLI::App app(
      "hotlora-server: SDXL over gRPC with adapters that change from request to request.\n"
      "Each flag is also HOTLORA_<FLAG> in the environment and a key of the --config file.",
      "hotlora-server");
  app.set_version_flag("--version", std::string("hotlora-server ") + HOTLORA_VERSION, "print the version");
  app.set_help_flag("--help", "print this text");
  Settings given;
  std::vector<std::string> configs;
  for (const FlagSpec& spec : Specs()) {
    CLI::Option* option = spec.kind == Kind::kSwitch
                              ? app.add_flag("--" + spec.name, given[spec.name], spec.help)
                              : app.add_option("--" + spec.name, given[spec.name], spec.help)->allow_extra_args(false);
    option->type_name(spec.kind == Kind::kSwitch ? "" : "VALUE");
  }
  app.add_option("--config", configs, "TOML file of these settings")->allow_extra_args(false)->type_name("VALUE");
  try {
    std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
    app.parse(std::move(arguments));
  } catch (const CLI::CallForHelp&) {
    *answer = app.help();
  } catch (const CLI::CallForVersion&) {
    *answer = app.version() + "\n";
  } catch (const CLI::ParseError& error) {
    return Bad(error.what());
  }
  for (auto it = given.begin(); it != given.end();) {
    it = it->second.empty() ? given.erase(it) : std::next(it);
  }
  if (configs.size() > 1) {
    return Bad("--config is given more than once");
  }
  *config = configs.empty() ? "" : configs[0];
  return given;
}

// Variables with our prefix that are no settings: where builds cache LibTorch, what tests use, what
// the client reads, and what Kubernetes sets in every pod beside a Service named hotlora.
bool IsForeignVariable(absl::string_view name) {
  return name == "HOTLORA_CACHE" || absl::StartsWith(name, "HOTLORA_TEST_") || name == "HOTLORA_SERVER" ||
         name == "HOTLORA_TOKEN" || name == "HOTLORA_PORT" || absl::StartsWith(name, "HOTLORA_PORT_") ||
         absl::StartsWith(name, "HOTLORA_SERVICE_");
}

absl::StatusOr<Settings> ReadVariables(const std::map<std::string, std::string>& environment, std::string* config) {
  std::map<std::string, const FlagSpec*> known;
  for (const FlagSpec& spec : Specs()) {
    known[VariableOf(spec.name)] = &spec;
  }
  Settings given;
  for (const auto& [name, value] : environment) {
    if (!absl::StartsWith(name, kPrefix) || IsForeignVariable(name)) {
      continue;
    }
    const auto found = known.find(name);
    if (name == VariableOf("config")) {
      *config = value;
    } else if (found == known.end()) {
      return Bad("environment variable ", name, " is no setting of hotlora-server");
    } else if (found->second->kind == Kind::kList) {
      for (const absl::string_view item : absl::StrSplit(value, ',')) {
        const absl::StatusOr<std::string> text = DecodeName(item);
        if (!text.ok()) {
          return Bad(name, " ", text.status().message());
        }
        given[found->second->name].push_back(*text);
      }
    } else {
      given[found->second->name] = {value};
    }
  }
  return given;
}

absl::StatusOr<std::string> TomlText(const toml::node& node) {
  if (const auto* text = node.as_string()) {
    return text->get();
  }
  if (const auto* number = node.as_integer()) {
    return absl::StrCat(number->get());
  }
  if (const auto* real = node.as_floating_point()) {
    return absl::StrCat(real->get());
  }
  if (const auto* truth = node.as_boolean()) {
    return std::string(truth->get() ? "true" : "false");
  }
  return Bad("is neither text, number nor truth value");
}

absl::StatusOr<Settings> ReadFile(const std::string& path) {
  toml::table table;
  try {
    table = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    return Bad("--config ", path, " line ", error.source().begin.line, ": ", std::string(error.description()));
  }
  std::map<std::string, const FlagSpec*> known;
  for (const FlagSpec& spec : Specs()) {
    known[KeyOf(spec.name)] = &spec;
  }
  Settings given;
  for (const auto& [key, node] : table) {
    const auto found = known.find(std::string(key.str()));
    if (found == known.end()) {
      return Bad("--config ", path, " line ", node.source().begin.line, ": \"", std::string(key.str()),
                 "\" is no setting of hotlora-server");
    }
    Values& values = given[found->second->name];
    const toml::array* const array = node.as_array();
    if (array != nullptr && found->second->kind != Kind::kList) {
      return Bad("--config ", path, ": ", std::string(key.str()), " takes one value, not an array");
    }
    for (size_t i = 0; i < (array == nullptr ? 1 : array->size()); ++i) {
      auto text = TomlText(array == nullptr ? node : *array->get(i));
      if (!text.ok()) {
        return Bad("--config ", path, ": ", std::string(key.str()), " ", text.status().message());
      }
      values.push_back(*std::move(text));
    }
  }
  return given;
}

// What only two flags together can get wrong.
absl::Status CheckTogether(const Flags& flags) {
  if (flags.model.empty()) {
    return Bad("--model is needed: the folder or file of an SDXL checkpoint");
  }
  if (flags.tls.cert.empty() != flags.tls.key.empty()) {
    return Bad("--tls-cert and --tls-key are needed together");
  }
  if (!flags.tls.client_ca.empty() && flags.tls.cert.empty()) {
    return Bad("--tls-client-ca needs --tls-cert and --tls-key");
  }
  if (!flags.pin.empty() && flags.adapters.empty()) {
    return Bad("--pin needs --adapters");
  }
  if (!flags.base_adapters.empty() && flags.adapters.empty()) {
    return Bad("--base-adapter needs --adapters");
  }
  return absl::OkStatus();
}

// Whether HOST:PORT is an address of this machine alone.
bool IsLoopback(absl::string_view listen) {
  const absl::string_view host = listen.substr(0, listen.rfind(':'));
  in_addr address;
  return host == "localhost" || host == "[::1]" ||
         (inet_pton(AF_INET, std::string(host).c_str(), &address) == 1 && (ntohl(address.s_addr) >> 24) == 127);
}

absl::Status CheckReadable(absl::string_view flag, const std::string& path) {
  if (!path.empty() && access(path.c_str(), R_OK) != 0) {
    return Bad("--", flag, " ", path, ": ", std::strerror(errno));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Flags> ParseFlags(const std::vector<std::string>& arguments,
                                 const std::map<std::string, std::string>& environment) {
  Flags flags;
  std::string config_variable;
  std::string config;
  ABSL_ASSIGN_OR_RETURN(const Settings from_arguments, ReadArguments(arguments, &config, &flags.answer));
  if (flags.answer.has_value()) {
    return flags;
  }
  ABSL_ASSIGN_OR_RETURN(const Settings from_variables, ReadVariables(environment, &config_variable));
  config = config.empty() ? config_variable : config;
  Settings from_file;
  if (!config.empty()) {
    ABSL_ASSIGN_OR_RETURN(from_file, ReadFile(config));
  }
  for (const FlagSpec& spec : Specs()) {
    const std::pair<const Settings*, std::string> sources[] = {
        {&from_arguments, "--" + spec.name},
        {&from_variables, VariableOf(spec.name)},
        {&from_file, absl::StrCat("--config ", config, ": ", KeyOf(spec.name))}};
    for (const auto& [settings, origin] : sources) {
      const auto found = settings->find(spec.name);
      if (found == settings->end()) {
        continue;
      }
      if (spec.kind != Kind::kList && found->second.size() > 1) {
        return Bad(origin, " is given more than once");
      }
      if (absl::Status status = spec.set(found->second, &flags); !status.ok()) {
        return Bad(origin, " ", status.message());
      }
      break;
    }
  }
  ABSL_RETURN_IF_ERROR(CheckTogether(flags));
  return flags;
}

bool ServesUploads(const Flags& flags) {
  if (!flags.uploads.empty()) {
    return flags.uploads == "on";
  }
  return IsLoopback(flags.listen) || !flags.tokens_file.empty() || !flags.tls.client_ca.empty();
}

absl::Status CheckPaths(const Flags& flags) {
  std::error_code error;
  if (!std::filesystem::exists(flags.model, error)) {
    return Bad("--model ", flags.model, ": no such file or folder");
  }
  if (!flags.model_config.empty()) {
    if (std::filesystem::is_directory(flags.model, error)) {
      return Bad("--model-config is for single-file checkpoints; --model ", flags.model, " is a folder");
    }
    if (!std::filesystem::is_directory(flags.model_config, error)) {
      return Bad("--model-config ", flags.model_config, ": no such folder");
    }
  }
  if (!flags.vae.empty() && !std::filesystem::exists(flags.vae, error)) {
    return Bad("--vae ", flags.vae, ": no such file or folder");
  }
  if (!flags.adapters.empty() && !std::filesystem::is_directory(flags.adapters, error)) {
    return Bad("--adapters ", flags.adapters, ": no such folder");
  }
  if (!flags.embeddings.empty() && !std::filesystem::is_directory(flags.embeddings, error)) {
    return Bad("--embeddings ", flags.embeddings, ": no such folder");
  }
  ABSL_RETURN_IF_ERROR(CheckReadable("tls-cert", flags.tls.cert));
  ABSL_RETURN_IF_ERROR(CheckReadable("tls-key", flags.tls.key));
  ABSL_RETURN_IF_ERROR(CheckReadable("tls-client-ca", flags.tls.client_ca));
  ABSL_RETURN_IF_ERROR(CheckReadable("tokens-file", flags.tokens_file));
  const std::string folder = std::filesystem::path(flags.ready_file).parent_path();
  if (!folder.empty() && !std::filesystem::is_directory(folder, error)) {
    return Bad("--ready-file ", flags.ready_file, ": its folder does not exist");
  }
  return absl::OkStatus();
}

std::map<std::string, std::string> ReadEnvironment() {
  std::map<std::string, std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::pair<std::string, std::string> pair = absl::StrSplit(*entry, absl::MaxSplits('=', 1));
    variables.insert(pair);
  }
  return variables;
}

}  // namespace hotlora
