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

void PrintJson(const nlohmann::json& json) {
  std::printf("%s\n", json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

int Fail(const Arguments& arguments, const CallResult& result) {
  const ErrorReport report = MakeErrorReport(result.status, result.request_id);
  if (arguments.json) {
    PrintJson(ToJson(report));
  } else {
    std::fputs(ToText(report).c_str(), stderr);
  }
  return kExitFailed;
}

// An error of ours, not of a call.
int Fail(bool json, const absl::Status& status, int code) {
  const std::string message(status.message());
  if (json) {
    PrintJson({{"error", {{"code", code == kExitUsage ? "USAGE" : "LOCAL"}, {"message", message}}}});
  } else {
    std::fprintf(stderr, "hotlora: %s\n", message.c_str());
  }
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
        &images);
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
  if (arguments.json) {
    PrintJson(GenerationJson(images, files));
  } else {
    // Beside an image on standard output the words go to standard error.
    std::fputs(GenerationText(images, files).c_str(), to_stdout ? stderr : stdout);
  }
  return 0;
}

int ListAdapters(ImageClient& client, const Arguments& arguments) {
  std::vector<v1::Adapter> adapters;
  if (const CallResult result = client.ListAdapters(&adapters); !result.status.ok()) {
    return Fail(arguments, result);
  }
  if (arguments.json) {
    nlohmann::json json = {{"adapters", nlohmann::json::array()}};
    for (const v1::Adapter& adapter : adapters) {
      json["adapters"].push_back(AdapterJson(adapter));
    }
    PrintJson(json);
  } else {
    std::fputs(AdaptersText(adapters).c_str(), stdout);
  }
  return 0;
}

void ShowAdapter(const Arguments& arguments, const v1::Adapter& adapter) {
  if (arguments.json) {
    PrintJson(AdapterJson(adapter));
  } else {
    std::fputs(AdapterText(adapter).c_str(), stdout);
  }
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
  ShowAdapter(arguments, adapter);
  return 0;
}

int DeleteAdapter(ImageClient& client, const Arguments& arguments) {
  if (const CallResult result = client.DeleteAdapter(arguments.adapter); !result.status.ok()) {
    return Fail(arguments, result);
  }
  if (arguments.json) {
    PrintJson({{"deleted", arguments.adapter}});
  } else {
    std::printf("%s deleted\n", arguments.adapter.c_str());
  }
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
  ShowAdapter(arguments, adapter);
  return 0;
}

int Health(ImageClient& client, const Arguments& arguments) {
  bool serving = false;
  if (const CallResult result = client.IsServing(&serving); !result.status.ok()) {
    return Fail(arguments, result);
  }
  if (arguments.json) {
    PrintJson({{"serving", serving}});
  } else {
    std::puts(serving ? "serving" : "not serving");
  }
  return serving ? 0 : kExitFailed;
}

int Info(ImageClient& client, const Arguments& arguments) {
  v1::ServerInfo info;
  if (const CallResult result = client.GetServerInfo(&info); !result.status.ok()) {
    return Fail(arguments, result);
  }
  if (arguments.json) {
    PrintJson(ServerInfoJson(info));
  } else {
    std::fputs(ServerInfoText(info).c_str(), stdout);
  }
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
  if (arguments.json) {
    PrintJson({{"level", LevelWord(response.level())}, {"previous", LevelWord(response.previous())}});
  } else {
    std::puts(LevelWord(response.level()).c_str());
  }
  return 0;
}

int Statistics(ImageClient& client, const Arguments& arguments) {
  v1::Statistics statistics;
  if (const CallResult result = client.GetStatistics(&statistics); !result.status.ok()) {
    return Fail(arguments, result);
  }
  if (arguments.json) {
    PrintJson(StatisticsJson(statistics));
  } else {
    std::fputs(StatisticsText(statistics).c_str(), stdout);
  }
  return 0;
}

int Verify(ImageClient& client, const Arguments& arguments) {
  v1::BaseIntegrity integrity;
  if (const CallResult result = client.VerifyBase(&integrity); !result.status.ok()) {
    return Fail(arguments, result);
  }
  if (arguments.json) {
    PrintJson(IntegrityJson(integrity));
  } else {
    std::fputs(IntegrityText(integrity).c_str(), stdout);
  }
  return integrity.intact() ? 0 : kExitFailed;
}

int Bench(ImageClient& client, const Arguments& arguments) {
  const absl::StatusOr<BenchReport> report = RunBench(client, arguments);
  if (!report.ok()) {
    return Fail(arguments.json, report.status(), kExitFailed);
  }
  if (arguments.json) {
    PrintJson(report->json);
  } else {
    std::fputs(report->text.c_str(), stdout);
  }
  return report->passed ? 0 : kExitFailed;
}

int Sheet(const Arguments& arguments) {
  if (absl::Status status = WriteContactSheet(arguments.pictures, arguments.columns, arguments.out); !status.ok()) {
    return Fail(arguments.json, status, kExitFailed);
  }
  if (arguments.json) {
    PrintJson({{"file", arguments.out}});
  } else {
    std::puts(arguments.out.c_str());
  }
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
  if (arguments.json) {
    PrintJson(InspectionJson(*inspection, arguments.file, model));
  } else {
    std::fputs(InspectionText(*inspection, arguments.file, model).c_str(), stdout);
  }
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
