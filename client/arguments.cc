#include "client/arguments.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include <CLI/CLI.hpp>

#include "client/generate_arguments.h"
#include "src/base/invalid_argument.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

void AddConnection(CLI::App& app, ConnectionOptions& connection, std::string& token_file) {
  app.add_option("--server", connection.server, "HOST:PORT of the server, 127.0.0.1:50051 (HOTLORA_SERVER)");
  app.add_flag("--tls", connection.tls, "use TLS");
  app.add_option("--tls-ca", connection.tls_ca, "PEM file of the authority to trust (implies --tls)");
  app.add_option("--tls-cert", connection.tls_cert, "PEM file of our certificate, for mutual TLS");
  app.add_option("--tls-key", connection.tls_key, "PEM file of its key");
  app.add_option("--tls-server-name", connection.tls_server_name, "name to expect in the server's certificate");
  app.add_option("--token", connection.token, "bearer token (HOTLORA_TOKEN); others may see it in `ps`");
  app.add_option("--token-file", token_file, "file with the bearer token");
  app.add_option("--timeout", connection.timeout_seconds, "seconds after which to give up, 0 for never")
      ->check(CLI::Range(0.0, 1e6));
}

absl::Status ReadToken(const std::string& path, std::string* token) {
  std::ifstream file(path);
  if (!file) {
    return InvalidArgument("--token-file ", path, ": cannot be read");
  }
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  *token = std::string(absl::StripAsciiWhitespace(text));
  if (token->empty()) {
    return InvalidArgument("--token-file ", path, ": is empty");
  }
  return absl::OkStatus();
}

absl::Status FinishConnection(const std::string& token_file, const CLI::App& app,
                              const std::function<std::optional<std::string>(const char*)>& environment,
                              ConnectionOptions* connection) {
  if (const std::string server = environment("HOTLORA_SERVER").value_or("");
      app.count("--server") == 0 && !server.empty()) {
    connection->server = server;
  }
  if (!token_file.empty() && !connection->token.empty()) {
    return InvalidArgument("--token and --token-file are mutually exclusive");
  }
  if (!token_file.empty()) {
    ABSL_RETURN_IF_ERROR(ReadToken(token_file, &connection->token));
  } else if (connection->token.empty()) {
    connection->token = environment("HOTLORA_TOKEN").value_or("");
  }
  // gRPC ends the process if a header's value is not valid.
  if (!std::all_of(connection->token.begin(), connection->token.end(), absl::ascii_isgraph)) {
    return InvalidArgument("the token has a character that is not printable ASCII");
  }
  if (connection->tls_cert.empty() != connection->tls_key.empty()) {
    return InvalidArgument("--tls-cert and --tls-key are needed together");
  }
  connection->tls = connection->tls || !connection->tls_ca.empty() || !connection->tls_cert.empty() ||
                    !connection->tls_server_name.empty();
  return absl::OkStatus();
}

// A command without options; if it is given, it becomes that of `arguments`.
CLI::App& AddCommand(CLI::App& parent, const char* name, const char* help, Command command, Arguments& arguments) {
  CLI::App* const added = parent.add_subcommand(name, help);
  added->callback([&arguments, command] { arguments.command = command; });
  return *added;
}

// A command about one adapter of the server.
CLI::App& AddNamed(CLI::App& parent, const char* name, const char* help, Command command, Arguments& arguments) {
  CLI::App& added = AddCommand(parent, name, help, command, arguments);
  added.add_option("name", arguments.adapter, "name of the adapter")->required();
  return added;
}

void AddUpload(CLI::App& parent, Arguments& arguments) {
  CLI::App& upload =
      AddCommand(parent, "upload", "send an adapter file to the server", Command::kUploadAdapter, arguments);
  upload.add_option("file", arguments.file, ".safetensors file")->required();
  upload.add_option("--name", arguments.adapter,
                    "name of the adapter; by default the file's name without .safetensors");
  upload.add_flag("--replace", arguments.replace, "replace an adapter that has this name");
}

void AddInspect(CLI::App& parent, Arguments& arguments) {
  CLI::App& inspect =
      AddCommand(parent, "inspect", "say what an adapter on this machine is and whether it fits; needs no server",
                 Command::kInspectAdapter, arguments);
  inspect.add_option("file", arguments.file, ".safetensors file or PEFT folder")->required();
  inspect.add_option("--model-config", arguments.model_config,
                     "diffusers-layout folder whose configs describe the model; by default stock SDXL");
}

void AddAdapters(CLI::App& app, Arguments& arguments) {
  CLI::App& adapters = *app.add_subcommand("adapters", "list, get, load, unload, upload, delete and inspect adapters");
  adapters.require_subcommand(1);
  AddCommand(adapters, "list", "list the server's adapters", Command::kListAdapters, arguments);
  AddNamed(adapters, "get", "show one adapter", Command::kGetAdapter, arguments);
  AddNamed(adapters, "load", "load an adapter before its first use", Command::kLoadAdapter, arguments)
      .add_flag("--pin", arguments.pin, "never evict it");
  AddNamed(adapters, "unload", "remove an adapter from memory", Command::kUnloadAdapter, arguments);
  AddNamed(adapters, "delete", "delete an adapter's file", Command::kDeleteAdapter, arguments);
  AddUpload(adapters, arguments);
  AddInspect(adapters, arguments);
}

void AddSheet(CLI::App& app, Arguments& arguments) {
  CLI::App& sheet =
      AddCommand(app, "sheet", "put PNG files side by side as one PNG; needs no server", Command::kSheet, arguments);
  sheet.add_option("pictures", arguments.pictures, "PNG files of one size, row by row")->required();
  sheet.add_option("--columns", arguments.columns, "pictures in a row")->required()->check(CLI::Range(1, 64));
  sheet.add_option("--out", arguments.out, "PNG file to write")->required();
}

void AddLogLevel(CLI::App& app, Arguments& arguments) {
  const auto read = [&arguments](const std::string& word) {
    const std::map<std::string, v1::LogLevel> levels = {{"debug", v1::LOG_LEVEL_DEBUG},
                                                        {"info", v1::LOG_LEVEL_INFO},
                                                        {"warning", v1::LOG_LEVEL_WARNING},
                                                        {"error", v1::LOG_LEVEL_ERROR}};
    const auto level = levels.find(word);
    if (level == levels.end()) {
      throw CLI::ValidationError("level",
                                 absl::StrCat("\"", word, "\" is not a level; levels are debug, info, warning, error"));
    }
    arguments.log_level = level->second;
  };
  AddCommand(app, "log-level", "show or set how much the server logs", Command::kLogLevel, arguments)
      .add_option_function<std::string>("level", read,
                                        "debug, info, warning or error; without it the level is only shown");
}

// What is wrong with a command line that CLI11 cannot read: its own words, or the commands if one is missing.
absl::Status ParseProblem(const CLI::App& app, const CLI::ParseError& error) {
  static constexpr absl::string_view kCommands =
      "generate, adapters, sheet, bench, health, info, statistics, verify, log-level";
  const auto lacks_command = [](const CLI::App* command) {
    return command->parsed() && command->get_subcommands().empty();
  };
  if (app.get_subcommands().empty() && !app.remaining().empty()) {
    return InvalidArgument("\"", app.remaining().front(), "\" is not a command; commands are ", kCommands);
  }
  if (app.get_subcommands().empty()) {
    return InvalidArgument("no command; they are ", kCommands, " (hotlora --help describes them)");
  }
  if (lacks_command(app.get_subcommand("adapters"))) {
    return InvalidArgument("no command after adapters; they are list, get, load, unload, upload, delete, inspect");
  }
  if (lacks_command(app.get_subcommand("bench"))) {
    return InvalidArgument("no command after bench; they are swap, step, soak");
  }
  return InvalidArgument(error.what());
}

}  // namespace

absl::StatusOr<Arguments> ParseArguments(const std::vector<std::string>& words,
                                         const std::function<std::optional<std::string>(const char*)>& environment) {
  Arguments arguments;
  std::string token_file;
  GenerateOptions generate;
  CLI::App app("hotlora: asks a hotlora-server for images and manages its adapters.", "hotlora");
  app.set_version_flag("--version", std::string("hotlora ") + HOTLORA_VERSION, "print the version");
  app.set_help_flag("--help", "print this text");
  app.require_subcommand(1);
  app.fallthrough();  // --json and the connection may also follow the command
  app.add_flag("--json", arguments.json, "print one JSON object, for errors too");
  AddConnection(app, arguments.connection, token_file);
  AddGenerate(AddCommand(app, "generate", "paint images", Command::kGenerate, arguments), generate, arguments);
  AddAdapters(app, arguments);
  AddSheet(app, arguments);
  AddCommand(app, "health", "ask whether the server is ready", Command::kHealth, arguments);
  AddCommand(app, "info", "show model and limits", Command::kInfo, arguments);
  AddCommand(app, "statistics", "show memory, tiers and each adapter's figures", Command::kStatistics, arguments);
  AddCommand(app, "verify", "check the base weights in the server's memory", Command::kVerify, arguments);
  AddLogLevel(app, arguments);
  AddBench(app, arguments.bench, [&arguments] { arguments.command = Command::kBench; });
  try {
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 takes them from the back
  } catch (const CLI::CallForHelp&) {
    const CLI::App* asked = &app;
    while (!asked->get_subcommands().empty()) {
      asked = asked->get_subcommands().front();
    }
    arguments.answer = asked->help();
    return arguments;
  } catch (const CLI::CallForVersion&) {
    arguments.answer = app.version() + "\n";
    return arguments;
  } catch (const CLI::ParseError& error) {
    return ParseProblem(app, error);
  }
  ABSL_RETURN_IF_ERROR(FinishConnection(token_file, app, environment, &arguments.connection));
  if (arguments.command == Command::kUploadAdapter && arguments.adapter.empty()) {
    arguments.adapter = std::filesystem::path(arguments.file).stem();
  }
  if (arguments.command == Command::kGenerate) {
    ABSL_RETURN_IF_ERROR(FinishGenerate(generate, arguments));
  }
  return arguments;
}

}  // namespace hotlora
