#include "server/flags.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include <CLI/CLI.hpp>

#include "server/config_file.h"
#include "server/flag_table.h"
#include "src/base/invalid_argument.h"
#include "src/base/resource_name.h"
#include "src/base/status_macros.h"
#include "toml++/toml.h"

namespace hotlora {
namespace {

constexpr char kPrefix[] = "HOTLORA_";

// By flag name, without dashes in front: what one source says, as text.
using Values = std::vector<std::string>;
using Settings = std::map<std::string, Values>;
using Kind = FlagSpec::Kind;

std::string VariableOf(absl::string_view flag) {
  return absl::StrCat(kPrefix, absl::AsciiStrToUpper(absl::StrReplaceAll(flag, {{"-", "_"}})));
}

std::string KeyOf(absl::string_view flag) { return absl::StrReplaceAll(flag, {{"-", "_"}}); }

// Settings on the command line; `config` is taken out of them.
absl::StatusOr<Settings> ReadArguments(std::vector<std::string> arguments, std::string& config,
                                       std::optional<std::string>& answer) {
  CLI::App app(
      "hotlora-server: SDXL over gRPC with adapters that change from request to request.\n"
      "Each flag is also HOTLORA_<FLAG> in the environment and a key of the --config file.",
      "hotlora-server");
  app.set_version_flag("--version", std::string("hotlora-server ") + HOTLORA_VERSION, "print the version");
  app.set_help_flag("--help", "print this text");
  Settings given;
  std::vector<std::string> configs;
  for (const FlagSpec& spec : FlagTable()) {
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
    answer = app.help();
  } catch (const CLI::CallForVersion&) {
    answer = app.version() + "\n";
  } catch (const CLI::ParseError& error) {
    return InvalidArgument(error.what());
  }
  for (auto it = given.begin(); it != given.end();) {
    it = it->second.empty() ? given.erase(it) : std::next(it);
  }
  if (configs.size() > 1) {
    return InvalidArgument("--config is given more than once");
  }
  config = configs.empty() ? "" : configs[0];
  return given;
}

// Variables with our prefix that are no settings: where builds cache LibTorch, what tests use, what
// the client reads, and what Kubernetes sets in every pod beside a Service named hotlora.
bool IsForeignVariable(absl::string_view name) {
  return name == "HOTLORA_CACHE" || absl::StartsWith(name, "HOTLORA_TEST_") || name == "HOTLORA_SERVER" ||
         name == "HOTLORA_TOKEN" || name == "HOTLORA_PORT" || absl::StartsWith(name, "HOTLORA_PORT_") ||
         absl::StartsWith(name, "HOTLORA_SERVICE_");
}

absl::StatusOr<Settings> ReadVariables(const std::map<std::string, std::string>& environment, std::string& config) {
  std::map<std::string, const FlagSpec*> known;
  for (const FlagSpec& spec : FlagTable()) {
    known[VariableOf(spec.name)] = &spec;
  }
  Settings given;
  for (const auto& [name, value] : environment) {
    if (!absl::StartsWith(name, kPrefix) || IsForeignVariable(name)) {
      continue;
    }
    const auto found = known.find(name);
    if (name == VariableOf("config")) {
      config = value;
    } else if (found == known.end()) {
      return InvalidArgument("environment variable ", name, " is not a setting of hotlora-server");
    } else if (found->second->kind == Kind::kList) {
      for (const absl::string_view item : absl::StrSplit(value, ',')) {
        const absl::StatusOr<std::string> text = DecodeName(item);
        if (!text.ok()) {
          return InvalidArgument(name, " ", text.status().message());
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
  return InvalidArgument("is neither text, number nor truth value");
}

absl::StatusOr<Settings> ReadFile(const std::string& path) {
  const absl::StatusOr<toml::table> table = ReadTomlFile(path);
  if (!table.ok()) {
    return InvalidArgument("--config ", path, " ", table.status().message());
  }
  std::map<std::string, const FlagSpec*> known;
  for (const FlagSpec& spec : FlagTable()) {
    known[KeyOf(spec.name)] = &spec;
  }
  Settings given;
  for (const auto& [key, node] : *table) {
    const auto found = known.find(std::string(key.str()));
    if (found == known.end()) {
      return InvalidArgument("--config ", path, " line ", node.source().begin.line, ": \"", std::string(key.str()),
                             "\" is not a setting of hotlora-server");
    }
    Values& values = given[found->second->name];
    const toml::array* const array = node.as_array();
    if (array != nullptr && found->second->kind != Kind::kList) {
      return InvalidArgument("--config ", path, ": ", std::string(key.str()), " takes one value, not an array");
    }
    for (size_t i = 0; i < (array == nullptr ? 1 : array->size()); ++i) {
      auto text = TomlText(array == nullptr ? node : *array->get(i));
      if (!text.ok()) {
        return InvalidArgument("--config ", path, ": ", std::string(key.str()), " ", text.status().message());
      }
      values.push_back(*std::move(text));
    }
  }
  return given;
}

// What only two flags together can get wrong.
absl::Status CheckTogether(const Flags& flags) {
  if (flags.model.empty()) {
    return InvalidArgument("--model is needed: the folder or file of an SDXL checkpoint");
  }
  if (flags.tls.cert.empty() != flags.tls.key.empty()) {
    return InvalidArgument("--tls-cert and --tls-key are needed together");
  }
  if (!flags.tls.client_ca.empty() && flags.tls.cert.empty()) {
    return InvalidArgument("--tls-client-ca needs --tls-cert and --tls-key");
  }
  if (!IsLoopback(flags.listen) && flags.tokens_file.empty() && flags.tls.client_ca.empty() && !flags.insecure) {
    return InvalidArgument(
        "--listen ", flags.listen, " is open to other machines, and every caller could do everything: give ",
        "--tokens-file or --tls-client-ca so that callers show who they are, or --insecure if the network alone ",
        "decides who can call");
  }
  if (!flags.pin.empty() && flags.adapters.empty()) {
    return InvalidArgument("--pin needs --adapters");
  }
  if (!flags.pin_control.empty() && flags.controls.empty() && flags.image_prompts.empty()) {
    return InvalidArgument("--pin-control needs --controls or --image-prompts");
  }
  if (!flags.base_adapters.empty() && flags.adapters.empty()) {
    return InvalidArgument("--base-adapter needs --adapters");
  }
  return absl::OkStatus();
}

absl::Status CheckReadable(absl::string_view flag, const std::string& path) {
  if (!path.empty() && access(path.c_str(), R_OK) != 0) {
    return InvalidArgument("--", flag, " ", path, ": ", std::strerror(errno));
  }
  return absl::OkStatus();
}

}  // namespace

bool IsLoopback(absl::string_view listen) {
  const absl::string_view host = listen.substr(0, listen.rfind(':'));
  in_addr address;
  return host == "localhost" || host == "[::1]" ||
         (inet_pton(AF_INET, std::string(host).c_str(), &address) == 1 && (ntohl(address.s_addr) >> 24) == 127);
}

absl::StatusOr<Flags> ParseFlags(const std::vector<std::string>& arguments,
                                 const std::map<std::string, std::string>& environment) {
  Flags flags;
  std::string config_variable;
  std::string config;
  ABSL_ASSIGN_OR_RETURN(const Settings from_arguments, ReadArguments(arguments, config, flags.answer));
  if (flags.answer.has_value()) {
    return flags;
  }
  ABSL_ASSIGN_OR_RETURN(const Settings from_variables, ReadVariables(environment, config_variable));
  config = config.empty() ? config_variable : config;
  Settings from_file;
  if (!config.empty()) {
    ABSL_ASSIGN_OR_RETURN(from_file, ReadFile(config));
  }
  for (const FlagSpec& spec : FlagTable()) {
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
        return InvalidArgument(origin, " is given more than once");
      }
      if (absl::Status status = spec.set(found->second, flags); !status.ok()) {
        return InvalidArgument(origin, " ", status.message());
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
  // ParseFlags lets no other listener pass.
  return IsLoopback(flags.listen) || !flags.tokens_file.empty() || !flags.tls.client_ca.empty() || flags.insecure;
}

absl::Status CheckPaths(const Flags& flags) {
  std::error_code error;
  if (!std::filesystem::exists(flags.model, error)) {
    return InvalidArgument("--model ", flags.model, ": no such file or folder");
  }
  if (!flags.model_config.empty()) {
    if (std::filesystem::is_directory(flags.model, error)) {
      return InvalidArgument("--model-config is for single-file checkpoints; --model ", flags.model, " is a folder");
    }
    if (!std::filesystem::is_directory(flags.model_config, error)) {
      return InvalidArgument("--model-config ", flags.model_config, ": no such folder");
    }
  }
  if (!flags.vae.empty() && !std::filesystem::exists(flags.vae, error)) {
    return InvalidArgument("--vae ", flags.vae, ": no such file or folder");
  }
  for (const auto& [flag, folder] : {std::pair("--adapters ", &flags.adapters),
                                     {"--embeddings ", &flags.embeddings},
                                     {"--controls ", &flags.controls},
                                     {"--image-prompts ", &flags.image_prompts},
                                     {"--image-encoder ", &flags.image_encoder}}) {
    if (!folder->empty() && !std::filesystem::is_directory(*folder, error)) {
      return InvalidArgument(flag, *folder, ": no such folder");
    }
  }
  ABSL_RETURN_IF_ERROR(CheckReadable("tls-cert", flags.tls.cert));
  ABSL_RETURN_IF_ERROR(CheckReadable("tls-key", flags.tls.key));
  ABSL_RETURN_IF_ERROR(CheckReadable("tls-client-ca", flags.tls.client_ca));
  ABSL_RETURN_IF_ERROR(CheckReadable("tokens-file", flags.tokens_file));
  const std::string folder = std::filesystem::path(flags.ready_file).parent_path();
  if (!folder.empty() && !std::filesystem::is_directory(folder, error)) {
    return InvalidArgument("--ready-file ", flags.ready_file, ": its folder does not exist");
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
