#include "client/arguments.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include <CLI/CLI.hpp>

#include "client/input_files.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

// The number of SAMPLER_EULER from "euler", or from "dpmpp-2m": the enum's names without prefix, in
// lower case.
template <typename Enum>
absl::StatusOr<Enum> ParseEnum(absl::string_view flag, absl::string_view prefix, const std::string& text) {
  const google::protobuf::EnumDescriptor* const names = google::protobuf::GetEnumDescriptor<Enum>();
  std::string wanted = absl::AsciiStrToUpper(absl::StrReplaceAll(text, {{"-", "_"}}));
  const auto* found = names->FindValueByName(absl::StrCat(prefix, wanted));
  if (found != nullptr && found->number() != 0) {
    return static_cast<Enum>(found->number());
  }
  std::string allowed;
  for (int i = 1; i < names->value_count(); ++i) {
    absl::string_view name = names->value(i)->name();
    absl::ConsumePrefix(&name, prefix);
    absl::StrAppend(&allowed, i == 1 ? "" : ", ", absl::StrReplaceAll(absl::AsciiStrToLower(name), {{"_", "-"}}));
  }
  return Bad(flag, " is \"", text, "\"; allowed are ", allowed);
}

// What a file's ending says; UNSPECIFIED if it says nothing.
v1::ImageFormat FormatOfEnding(absl::string_view file) {
  static constexpr std::pair<absl::string_view, v1::ImageFormat> kEndings[] = {{".png", v1::IMAGE_FORMAT_PNG},
                                                                               {".jpg", v1::IMAGE_FORMAT_JPEG},
                                                                               {".jpeg", v1::IMAGE_FORMAT_JPEG},
                                                                               {".webp", v1::IMAGE_FORMAT_WEBP},
                                                                               {".rgb", v1::IMAGE_FORMAT_RAW_RGB8}};
  for (const auto& [ending, format] : kEndings) {
    if (absl::EndsWithIgnoreCase(file, ending)) {
      return format;
    }
  }
  return v1::IMAGE_FORMAT_UNSPECIFIED;
}

// Options as the command line has them, before they become a message. Numbers are the server's to
// judge, so only their form is checked here.
struct Given {
  std::string token_file;
  std::string prompt;
  std::optional<std::string> negative, prompt_2, negative_2;
  std::vector<std::string> adapters, embeddings;
  std::optional<uint32_t> width, height, steps, images, clip_skip, quality;
  std::optional<double> strength, guidance, guidance_rescale, guidance_start, guidance_end;
  std::optional<uint64_t> seed;
  std::optional<int32_t> priority;
  bool weighted = false, long_prompts = false, lora_tags = false;
  std::string init, mask;
  std::optional<uint32_t> preview_every;
  std::string sampler, schedule, format, request_id;
};

void AddConnection(CLI::App& app, ConnectionOptions& connection, Given& given) {
  app.add_option("--server", connection.server, "HOST:PORT of the server, 127.0.0.1:50051 (HOTLORA_SERVER)");
  app.add_flag("--tls", connection.tls, "use TLS");
  app.add_option("--tls-ca", connection.tls_ca, "PEM file of the authority to trust (implies --tls)");
  app.add_option("--tls-cert", connection.tls_cert, "PEM file of our certificate, for mutual TLS");
  app.add_option("--tls-key", connection.tls_key, "PEM file of its key");
  app.add_option("--tls-server-name", connection.tls_server_name, "name to expect in the server's certificate");
  app.add_option("--token", connection.token, "bearer token (HOTLORA_TOKEN); others may see it in `ps`");
  app.add_option("--token-file", given.token_file, "file with the bearer token");
  app.add_option("--timeout", connection.timeout_seconds, "seconds after which to give up, 0 for never")
      ->check(CLI::Range(0.0, 1e6));
}

void AddGenerate(CLI::App& app, Given& given, Arguments& arguments) {
  app.add_option("prompt", given.prompt, "what to paint")->required();
  app.add_option("--negative", given.negative, "what to keep out");
  app.add_option("--prompt-2", given.prompt_2, "prompt of the second text encoder");
  app.add_option("--negative-2", given.negative_2, "negative prompt of the second text encoder");
  app.add_flag("--weighted", given.weighted, "read (emphasis:1.2) and [its opposite] in the prompts");
  app.add_flag("--long-prompts", given.long_prompts, "take prompts over 75 tokens in chunks; BREAK begins one");
  app.add_option("--adapter", given.adapters,
                 "NAME[:WEIGHT[:TEXT_ENCODER_WEIGHT]] (repeatable; --adapter=-NAME if it begins with -)")
      ->allow_extra_args(false);
  app.add_flag("--lora-tags", given.lora_tags, "read <lora:NAME:WEIGHT> in the prompts");
  app.add_option("--embedding", given.embeddings, "NAME[=TOKEN] of a textual-inversion embedding (repeatable)")
      ->allow_extra_args(false);
  app.add_option("--out", arguments.out, "file to write, - for standard output; several images: FILE-0.png, ...")
      ->required();
  app.add_option("--width", given.width, "pixels, a multiple of 8");
  app.add_option("--height", given.height, "pixels, a multiple of 8");
  app.add_option("--steps", given.steps, "denoising steps");
  app.add_option("--guidance", given.guidance, "classifier-free guidance, 1 for none");
  app.add_option("--guidance-rescale", given.guidance_rescale, "0 to 1");
  app.add_option("--guidance-start", given.guidance_start, "fraction of the steps from which on guidance runs, 0 to 1");
  app.add_option("--guidance-end", given.guidance_end, "fraction of the steps at which guidance ends, 0 to 1");
  app.add_option("--init", given.init, "picture to begin with (PNG, JPEG, WebP), - for standard input");
  app.add_option("--mask", given.mask, "picture of what to repaint of it: white is repainted, black stays");
  app.add_option("--strength", given.strength, "how much of --init may change, above 0 to 1; 0.3, with --mask 0.9999");
  app.add_option("--preview-out", arguments.preview_out, "write rough previews: FILE-STEP.jpg (FILE-IMAGE-STEP.jpg)");
  app.add_option("--preview-every", given.preview_every, "steps between previews, 1");
  app.add_option("--seed", given.seed, "image i uses SEED + i")
      ->check([](const std::string& text) {  // CLI11 takes -1 for 2^64 - 1
        uint64_t seed;
        return absl::SimpleAtoi(text, &seed) ? ""
                                             : absl::StrCat("\"", text, "\" is not a whole number from 0 to 2^64 - 1");
      });
  app.add_option("--images", given.images, "how many");
  app.add_option("--clip-skip", given.clip_skip, "text encoder layers to leave out");
  app.add_option("--sampler", given.sampler,
                 "euler, euler-ancestral, heun, ddim, dpmpp-2m, dpmpp-2m-sde, unipc or lcm");
  app.add_option("--schedule", given.schedule, "default, karras, exponential or trailing");
  app.add_option("--format", given.format, "png, jpeg, webp or raw-rgb8; else by the file's ending");
  app.add_option("--quality", given.quality, "of jpeg and webp, 1 to 100");
  app.add_option("--priority", given.priority, "higher first");
  app.add_option("--request-id", given.request_id, "name of the request in logs and answers");
}

absl::Status ReadToken(const std::string& path, std::string* token) {
  std::ifstream file(path);
  if (!file) {
    return Bad("--token-file ", path, ": cannot be read");
  }
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  *token = std::string(absl::StripAsciiWhitespace(text));
  if (token->empty()) {
    return Bad("--token-file ", path, ": is empty");
  }
  return absl::OkStatus();
}

absl::Status FinishConnection(const Given& given, const CLI::App& app,
                              const std::function<std::optional<std::string>(const char*)>& environment,
                              ConnectionOptions* connection) {
  if (const std::string server = environment("HOTLORA_SERVER").value_or("");
      app.count("--server") == 0 && !server.empty()) {
    connection->server = server;
  }
  if (!given.token_file.empty() && !connection->token.empty()) {
    return Bad("--token and --token-file are two ways of one thing: give one");
  }
  if (!given.token_file.empty()) {
    ABSL_RETURN_IF_ERROR(ReadToken(given.token_file, &connection->token));
  } else if (connection->token.empty()) {
    connection->token = environment("HOTLORA_TOKEN").value_or("");
  }
  // gRPC ends the process over a header value that is none.
  if (!std::all_of(connection->token.begin(), connection->token.end(), absl::ascii_isgraph)) {
    return Bad("the token has a character that is not printable ASCII");
  }
  if (connection->tls_cert.empty() != connection->tls_key.empty()) {
    return Bad("--tls-cert and --tls-key are needed together");
  }
  connection->tls = connection->tls || !connection->tls_ca.empty() || !connection->tls_cert.empty() ||
                    !connection->tls_server_name.empty();
  return absl::OkStatus();
}

absl::Status FinishPictures(const Given& given, Arguments* arguments) {
  v1::GenerateImagesRequest& request = arguments->request;
  if (given.init == "-" && given.mask == "-") {
    return Bad("--init and --mask cannot both be standard input");
  }
  if (!given.init.empty()) {
    ABSL_ASSIGN_OR_RETURN(*request.mutable_init_image(), ReadPicture("--init", given.init));
  }
  if (!given.mask.empty()) {
    ABSL_ASSIGN_OR_RETURN(*request.mutable_mask_image(), ReadPicture("--mask", given.mask));
  }
  if (given.strength) request.set_strength(*given.strength);
  if (given.preview_every && arguments->preview_out.empty()) {
    return Bad("--preview-every makes previews that go nowhere: give --preview-out");
  }
  if (arguments->preview_out == "-") {
    return Bad("--preview-out - would mix previews on standard output: give a file");
  }
  if (!arguments->preview_out.empty()) {
    request.set_preview_every(given.preview_every.value_or(1));
  }
  return absl::OkStatus();
}

absl::Status FinishGenerate(const Given& given, Arguments* arguments) {
  v1::GenerateImagesRequest& request = arguments->request;
  request.set_prompt(given.prompt);
  request.set_request_id(given.request_id);
  if (given.negative) request.set_negative_prompt(*given.negative);
  if (given.prompt_2) request.set_prompt_2(*given.prompt_2);
  if (given.negative_2) request.set_negative_prompt_2(*given.negative_2);
  if (given.weighted) request.set_prompt_syntax(v1::PROMPT_SYNTAX_WEIGHTED);
  if (given.long_prompts) request.set_long_prompts(true);
  if (given.lora_tags) request.set_lora_tags(true);
  for (const std::string& embedding : given.embeddings) {
    const size_t equals = embedding.find('=');
    v1::EmbeddingRef* const ref = request.add_embeddings();
    ref->set_name(embedding.substr(0, equals));
    if (equals != std::string::npos) ref->set_token(embedding.substr(equals + 1));
  }
  if (given.width) request.set_width(*given.width);
  if (given.height) request.set_height(*given.height);
  if (given.steps) request.set_steps(*given.steps);
  if (given.guidance) request.set_guidance_scale(*given.guidance);
  if (given.guidance_rescale) request.set_guidance_rescale(*given.guidance_rescale);
  if (given.guidance_start) request.set_guidance_start(*given.guidance_start);
  if (given.guidance_end) request.set_guidance_end(*given.guidance_end);
  if (given.seed) request.set_seed(*given.seed);
  if (given.images) request.set_num_images(*given.images);
  if (given.clip_skip) request.set_clip_skip(*given.clip_skip);
  if (given.quality) request.set_quality(*given.quality);
  if (given.priority) request.set_priority(*given.priority);
  ABSL_RETURN_IF_ERROR(FinishPictures(given, arguments));
  for (const std::string& adapter : given.adapters) {
    ABSL_ASSIGN_OR_RETURN(*request.add_adapters(), ParseAdapter(adapter));
  }
  if (!given.sampler.empty()) {
    ABSL_ASSIGN_OR_RETURN(const auto sampler, ParseEnum<v1::Sampler>("--sampler", "SAMPLER_", given.sampler));
    request.set_sampler(sampler);
  }
  if (!given.schedule.empty()) {
    ABSL_ASSIGN_OR_RETURN(const auto schedule,
                          ParseEnum<v1::NoiseSchedule>("--schedule", "NOISE_SCHEDULE_", given.schedule));
    request.set_schedule(schedule);
  }
  const bool to_stdout = arguments->out == "-";
  v1::ImageFormat format = to_stdout ? v1::IMAGE_FORMAT_PNG : FormatOfEnding(arguments->out);
  if (!given.format.empty()) {
    ABSL_ASSIGN_OR_RETURN(format, ParseEnum<v1::ImageFormat>("--format", "IMAGE_FORMAT_", given.format));
  }
  if (format == v1::IMAGE_FORMAT_UNSPECIFIED) {
    return Bad("--out ", arguments->out, " ends in none of .png, .jpg, .jpeg, .webp, .rgb: give --format");
  }
  request.set_format(format);
  if (to_stdout && given.images.value_or(1) != 1) {
    return Bad("--out - takes one image, --images is ", *given.images);
  }
  if (to_stdout && arguments->json) {
    return Bad("--out - and --json both write to standard output");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::AdapterRef> ParseAdapter(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  v1::AdapterRef adapter;
  double weight = 0;
  double text_encoder_weight = 0;
  if (parts[0].empty() || parts.size() > 3 || (parts.size() > 1 && !absl::SimpleAtod(parts[1], &weight)) ||
      (parts.size() > 2 && !absl::SimpleAtod(parts[2], &text_encoder_weight))) {
    return Bad("--adapter is \"", text, "\"; it is NAME[:WEIGHT[:TEXT_ENCODER_WEIGHT]]");
  }
  adapter.set_name(parts[0]);
  if (parts.size() > 1) adapter.set_weight(weight);
  if (parts.size() > 2) adapter.set_text_encoder_weight(text_encoder_weight);
  return adapter;
}

absl::StatusOr<Arguments> ParseArguments(const std::vector<std::string>& words,
                                         const std::function<std::optional<std::string>(const char*)>& environment) {
  Arguments arguments;
  Given given;
  CLI::App app("hotlora: asks a hotlora-server for images and looks after its adapters.", "hotlora");
  app.set_version_flag("--version", std::string("hotlora ") + HOTLORA_VERSION, "print the version");
  app.set_help_flag("--help", "print this text");
  app.require_subcommand(1);
  app.fallthrough();  // --json and the connection may stand behind the command too
  app.add_flag("--json", arguments.json, "print one JSON object, errors too");
  AddConnection(app, arguments.connection, given);

  CLI::App* const generate = app.add_subcommand("generate", "paint images");
  AddGenerate(*generate, given, arguments);
  CLI::App* const adapters =
      app.add_subcommand("adapters", "list, get, load, unload, upload, delete and inspect adapters");
  adapters->require_subcommand(1);
  const auto add_command = [&](CLI::App& parent, const char* name, const char* help, Command command) {
    CLI::App* const added = parent.add_subcommand(name, help);
    added->callback([&arguments, command] { arguments.command = command; });
    return added;
  };
  generate->callback([&] { arguments.command = Command::kGenerate; });
  add_command(*adapters, "list", "list the server's adapters", Command::kListAdapters);
  CLI::App* const get = add_command(*adapters, "get", "show one adapter", Command::kGetAdapter);
  CLI::App* const load = add_command(*adapters, "load", "load an adapter before its first use", Command::kLoadAdapter);
  CLI::App* const unload = add_command(*adapters, "unload", "drop an adapter from memory", Command::kUnloadAdapter);
  CLI::App* const remove = add_command(*adapters, "delete", "delete an adapter's file", Command::kDeleteAdapter);
  CLI::App* const upload =
      add_command(*adapters, "upload", "send an adapter file to the server", Command::kUploadAdapter);
  upload->add_option("file", arguments.file, ".safetensors file")->required();
  upload->add_option("--name", arguments.adapter, "name of the adapter; else the file's, without .safetensors");
  upload->add_flag("--replace", arguments.replace, "take the place of an adapter of that name");
  for (CLI::App* const command : {get, load, unload, remove}) {
    command->add_option("name", arguments.adapter, "name of the adapter")->required();
  }
  load->add_flag("--pin", arguments.pin, "never evict it");
  CLI::App* const inspect =
      add_command(*adapters, "inspect", "say what an adapter on this machine is and whether it fits; needs no server",
                  Command::kInspectAdapter);
  inspect->add_option("file", arguments.file, ".safetensors file or PEFT folder")->required();
  inspect->add_option("--model-config", arguments.model_config,
                      "diffusers-layout folder whose configs say what the model is; else stock SDXL");
  CLI::App* const sheet =
      add_command(app, "sheet", "put PNG files side by side as one PNG; needs no server", Command::kSheet);
  sheet->add_option("pictures", arguments.pictures, "PNG files of one size, row by row")->required();
  sheet->add_option("--columns", arguments.columns, "pictures in a row")->required()->check(CLI::Range(1, 64));
  sheet->add_option("--out", arguments.out, "PNG file to write")->required();
  add_command(app, "health", "ask whether the server is ready", Command::kHealth);
  add_command(app, "info", "show model and limits", Command::kInfo);
  add_command(app, "statistics", "show memory, tiers and each adapter's figures", Command::kStatistics);
  add_command(app, "verify", "check the base weights in the server's memory", Command::kVerify);
  const std::map<std::string, v1::LogLevel> levels = {{"debug", v1::LOG_LEVEL_DEBUG},
                                                      {"info", v1::LOG_LEVEL_INFO},
                                                      {"warning", v1::LOG_LEVEL_WARNING},
                                                      {"error", v1::LOG_LEVEL_ERROR}};
  add_command(app, "log-level", "show or set how much the server logs", Command::kLogLevel)
      ->add_option_function<std::string>(
          "level",
          [&arguments, levels](const std::string& word) {
            const auto level = levels.find(word);
            if (level == levels.end()) {
              throw CLI::ValidationError(
                  "level", absl::StrCat("\"", word, "\" is not a level; levels are debug, info, warning, error"));
            }
            arguments.log_level = level->second;
          },
          "debug, info, warning or error; without it the level is only shown");
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
    if (app.get_subcommands().empty() && !app.remaining().empty()) {
      return Bad("\"", app.remaining().front(),
                 "\" is not a command; commands are generate, adapters, sheet, bench, health, info, statistics, "
                 "verify, log-level");
    }
    if (app.get_subcommands().empty()) {
      return Bad(
          "no command; they are generate, adapters, sheet, bench, health, info, statistics, verify, log-level (hotlora "
          "--help tells more)");
    }
    if (adapters->parsed() && adapters->get_subcommands().empty()) {
      return Bad("no command after adapters; they are list, get, load, unload, upload, delete, inspect");
    }
    if (app.got_subcommand("bench") && app.get_subcommand("bench")->get_subcommands().empty()) {
      return Bad("no command after bench; they are swap, step, soak");
    }
    return Bad(error.what());
  }
  ABSL_RETURN_IF_ERROR(FinishConnection(given, app, environment, &arguments.connection));
  if (arguments.command == Command::kUploadAdapter && arguments.adapter.empty()) {
    arguments.adapter = std::filesystem::path(arguments.file).stem();
  }
  if (arguments.command == Command::kGenerate) {
    ABSL_RETURN_IF_ERROR(FinishGenerate(given, &arguments));
  }
  return arguments;
}

}  // namespace hotlora
