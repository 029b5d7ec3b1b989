// hotlora: the command-line client.
//
// Exit codes: 0 done, 1 the call failed (`health`: not serving; `verify`: not intact; `adapters inspect`: does not
// fit; `bench soak`: a gate was not passed), 2 the command line is wrong.

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"
#include <nlohmann/json.hpp>

#include "client/arguments.h"
#include "client/bench/bench.h"
#include "client/contact_sheet.h"
#include "client/error_report.h"
#include "client/image_client.h"
#include "client/inspection_report.h"
#include "client/output_files.h"
#include "client/progress_display.h"
#include "client/report.h"
#include "src/adapter_format/adapter_inspection.h"
#include "src/sdxl/module_list.h"

namespace hotlora {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

// Prints one of the two: the JSON to standard output if `as_json`, otherwise the text to `stream`.
void Print(bool as_json, const nlohmann::json& json, const std::string& text, std::FILE* stream = stdout) {
  if (as_json) {
    std::printf("%s\n", json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  } else {
    std::fputs(text.c_str(), stream);
  }
}

int Fail(const Arguments& arguments, const CallResult& result) {
  const ErrorReport report = MakeErrorReport(result.status, result.request_id);
  Print(arguments.json, ToJson(report), ToText(report), stderr);
  return kExitFailed;
}

// An error that no call returned.
int Fail(bool json, const absl::Status& status, int code) {
  const std::string message(status.message());
  Print(json, {{"error", {{"code", code == kExitUsage ? "USAGE" : "LOCAL"}, {"message", message}}}},
        "hotlora: " + message + "\n", stderr);
  return code;
}

absl::Status WritePreview(const Arguments& arguments, const v1::Progress& progress) {
  if (arguments.preview_out.empty() || progress.preview().empty()) {
    return absl::OkStatus();
  }
  const v1::GenerateImagesRequest& request = arguments.request;
  return WriteFile(PreviewName(arguments.preview_out, progress.image_index(), std::max(1u, request.num_images()),
                               progress.step(), progress.total_steps()),
                   progress.preview());
}

int Generate(ImageClient& client, const Arguments& arguments) {
  const bool to_stdout = arguments.out == "-";
  if (!to_stdout) {
    if (absl::Status status = CheckWritable("--out", arguments.out); !status.ok()) {
      return Fail(arguments.json, status, kExitUsage);
    }
  }
  if (!arguments.preview_out.empty()) {
    if (absl::Status status = CheckWritable("--preview-out", arguments.preview_out); !status.ok()) {
      return Fail(arguments.json, status, kExitUsage);
    }
  }
  absl::Status previews;
  GeneratedImages images;
  CallResult result;
  {
    const auto style = arguments.json          ? ProgressDisplay::Style::kQuiet
                       : isatty(STDERR_FILENO) ? ProgressDisplay::Style::kBar
                                               : ProgressDisplay::Style::kLines;
    ProgressDisplay display(style, stderr);
    result = client.Generate(
        arguments.request,
        [&](const v1::GenerateImagesEvent& event) {
          display.Show(event);
          previews.Update(WritePreview(arguments, event.progress()));
        },
        images);
  }
  if (!result.status.ok()) {
    return Fail(arguments, result);
  }
  const std::vector<std::string> files = OutputNames(arguments.out, images.images.size());
  for (size_t i = 0; i < files.size(); ++i) {
    const std::string& data = images.images[i].data();
    if (to_stdout) {
      std::fwrite(data.data(), 1, data.size(), stdout);
      if (std::fflush(stdout) != 0) {
        return Fail(arguments.json, absl::InternalError("standard output cannot be written"), kExitFailed);
      }
    } else if (absl::Status status = WriteFile(files[i], data); !status.ok()) {
      return Fail(arguments.json, status, kExitFailed);
    }
  }
  if (!previews.ok()) {
    return Fail(arguments.json, previews, kExitFailed);
  }
  // If the image goes to standard output, the text goes to standard error.
  Print(arguments.json, GenerationJson(images, files), GenerationText(images, files), to_stdout ? stderr : stdout);
  return 0;
}

int ListAdapters(ImageClient& client, const Arguments& arguments) {
  std::vector<v1::Adapter> adapters;
  if (const CallResult result = client.ListAdapters(&adapters); !result.status.ok()) {
    return Fail(arguments, result);
  }
  Print(arguments.json, AdaptersJson(adapters), AdaptersText(adapters));
  return 0;
}

int UploadAdapter(ImageClient& client, const Arguments& arguments) {
  const auto header = MakeUploadHeader(arguments.file, arguments.adapter, arguments.replace);
  if (!header.ok()) {
    return Fail(arguments.json, header.status(), kExitUsage);
  }
  v1::Adapter adapter;
  if (const CallResult result = client.UploadAdapter(*header, arguments.file, &adapter); !result.status.ok()) {
    return Fail(arguments, result);
  }
  Print(arguments.json, AdapterJson(adapter), AdapterText(adapter));
  return 0;
}

int DeleteAdapter(ImageClient& client, const Arguments& arguments) {
  if (const CallResult result = client.DeleteAdapter(arguments.adapter); !result.status.ok()) {
    return Fail(arguments, result);
  }
  Print(arguments.json, {{"deleted", arguments.adapter}}, arguments.adapter + " deleted\n");
  return 0;
}

int OneAdapter(ImageClient& client, const Arguments& arguments) {
  v1::Adapter adapter;
  const CallResult result = arguments.command == Command::kGetAdapter ? client.GetAdapter(arguments.adapter, &adapter)
                            : arguments.command == Command::kLoadAdapter
                                ? client.LoadAdapter(arguments.adapter, arguments.pin, &adapter)
                                : client.UnloadAdapter(arguments.adapter, &adapter);
  if (!result.status.ok()) {
    return Fail(arguments, result);
  }
  Print(arguments.json, AdapterJson(adapter), AdapterText(adapter));
  return 0;
}

int Health(ImageClient& client, const Arguments& arguments) {
  bool serving = false;
  if (const CallResult result = client.IsServing(&serving); !result.status.ok()) {
    return Fail(arguments, result);
  }
  Print(arguments.json, {{"serving", serving}}, serving ? "serving\n" : "not serving\n");
  return serving ? 0 : kExitFailed;
}

int Info(ImageClient& client, const Arguments& arguments) {
  v1::ServerInfo info;
  if (const CallResult result = client.GetServerInfo(&info); !result.status.ok()) {
    return Fail(arguments, result);
  }
  Print(arguments.json, ServerInfoJson(info), ServerInfoText(info));
  return 0;
}

// "LOG_LEVEL_DEBUG" as "debug".
std::string LevelWord(v1::LogLevel level) {
  return absl::AsciiStrToLower(absl::StripPrefix(v1::LogLevel_Name(level), "LOG_LEVEL_"));
}

int LogLevel(ImageClient& client, const Arguments& arguments) {
  v1::SetLogLevelResponse response;
  if (const CallResult result = client.SetLogLevel(arguments.log_level, &response); !result.status.ok()) {
    return Fail(arguments, result);
  }
  Print(arguments.json, {{"level", LevelWord(response.level())}, {"previous", LevelWord(response.previous())}},
        LevelWord(response.level()) + "\n");
  return 0;
}

int Statistics(ImageClient& client, const Arguments& arguments) {
  v1::Statistics statistics;
  if (const CallResult result = client.GetStatistics(&statistics); !result.status.ok()) {
    return Fail(arguments, result);
  }
  Print(arguments.json, StatisticsJson(statistics), StatisticsText(statistics));
  return 0;
}

int Verify(ImageClient& client, const Arguments& arguments) {
  v1::BaseIntegrity integrity;
  if (const CallResult result = client.VerifyBase(&integrity); !result.status.ok()) {
    return Fail(arguments, result);
  }
  Print(arguments.json, IntegrityJson(integrity), IntegrityText(integrity));
  return integrity.intact() ? 0 : kExitFailed;
}

int Bench(ImageClient& client, const Arguments& arguments) {
  const absl::StatusOr<BenchReport> report = RunBench(client, arguments);
  if (!report.ok()) {
    return Fail(arguments.json, report.status(), kExitFailed);
  }
  Print(arguments.json, report->json, report->text);
  return report->passed ? 0 : kExitFailed;
}

int Sheet(const Arguments& arguments) {
  if (absl::Status status = WriteContactSheet(arguments.pictures, arguments.columns, arguments.out); !status.ok()) {
    return Fail(arguments.json, status, kExitFailed);
  }
  Print(arguments.json, {{"file", arguments.out}}, arguments.out + "\n");
  return 0;
}

int Inspect(const Arguments& arguments) {
  const absl::StatusOr<ModuleTable> table = ReadModuleList(arguments.model_config);
  if (!table.ok()) {
    return Fail(arguments.json, table.status(), kExitFailed);
  }
  const absl::StatusOr<AdapterInspection> inspection = InspectAdapter(arguments.file, *table);
  if (!inspection.ok()) {
    return Fail(arguments.json, inspection.status(), kExitFailed);
  }
  const std::string model = arguments.model_config.empty() ? "stock SDXL" : arguments.model_config;
  Print(arguments.json, InspectionJson(*inspection, arguments.file, model),
        InspectionText(*inspection, arguments.file, model));
  return inspection->verdict.ok() ? 0 : kExitFailed;
}

int Main(const std::vector<std::string>& words) {
  const auto arguments = ParseArguments(words, [](const char* name) -> std::optional<std::string> {
    const char* const value = std::getenv(name);
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  });
  if (!arguments.ok()) {
    const bool json = std::find(words.begin(), words.end(), "--json") != words.end();
    return Fail(json, arguments.status(), kExitUsage);
  }
  if (arguments->answer.has_value()) {
    std::fputs(arguments->answer->c_str(), stdout);
    return 0;
  }
  if (arguments->command == Command::kSheet) {
    return Sheet(*arguments);
  }
  if (arguments->command == Command::kInspectAdapter) {
    return Inspect(*arguments);
  }
  const auto client = ImageClient::Create(arguments->connection);
  if (!client.ok()) {
    return Fail(arguments->json, client.status(), kExitUsage);
  }
  switch (arguments->command) {
    case Command::kGenerate:
      return Generate(**client, *arguments);
    case Command::kListAdapters:
      return ListAdapters(**client, *arguments);
    case Command::kGetAdapter:
    case Command::kLoadAdapter:
    case Command::kUnloadAdapter:
      return OneAdapter(**client, *arguments);
    case Command::kUploadAdapter:
      return UploadAdapter(**client, *arguments);
    case Command::kDeleteAdapter:
      return DeleteAdapter(**client, *arguments);
    case Command::kHealth:
      return Health(**client, *arguments);
    case Command::kInfo:
      return Info(**client, *arguments);
    case Command::kLogLevel:
      return LogLevel(**client, *arguments);
    case Command::kStatistics:
      return Statistics(**client, *arguments);
    case Command::kVerify:
      return Verify(**client, *arguments);
    case Command::kBench:
      return Bench(**client, *arguments);
    case Command::kInspectAdapter:
    case Command::kSheet:
      break;  // done above, without a server
  }
  return kExitUsage;
}

}  // namespace
}  // namespace hotlora

int main(int argc, char** argv) { return hotlora::Main(std::vector<std::string>(argv + 1, argv + argc)); }
