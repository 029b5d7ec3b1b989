#include "server/flag_table.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

#include "server/peer_address.h"
#include "src/base/invalid_argument.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

using Values = std::vector<std::string>;
using Kind = FlagSpec::Kind;

FlagSpec Text(std::string name, std::string Flags::*field, std::string help) {
  return {std::move(name), Kind::kValue, std::move(help), [field](const Values& values, Flags& flags) {
            if (values[0].empty()) {
              return InvalidArgument("is empty");
            }
            flags.*field = values[0];
            return absl::OkStatus();
          }};
}

FlagSpec TlsPath(std::string name, std::string TlsFiles::*field, std::string help) {
  return {std::move(name), Kind::kValue, std::move(help), [field](const Values& values, Flags& flags) {
            if (values[0].empty()) {
              return InvalidArgument("is empty");
            }
            flags.tls.*field = values[0];
            return absl::OkStatus();
          }};
}

FlagSpec OneOf(std::string name, std::string Flags::*field, std::vector<std::string> allowed, std::string help) {
  return {std::move(name), Kind::kValue, std::move(help),
          [field, allowed = std::move(allowed)](const Values& values, Flags& flags) {
            if (std::find(allowed.begin(), allowed.end(), values[0]) == allowed.end()) {
              return InvalidArgument("is \"", values[0], "\"; allowed are ", absl::StrJoin(allowed, ", "));
            }
            flags.*field = values[0];
            return absl::OkStatus();
          }};
}

FlagSpec Switch(std::string name, bool Flags::*field, std::string help) {
  return {std::move(name), Kind::kSwitch, std::move(help), [field](const Values& values, Flags& flags) {
            if (!absl::SimpleAtob(values[0], &(flags.*field))) {
              return InvalidArgument("is \"", values[0], "\"; allowed are true and false");
            }
            return absl::OkStatus();
          }};
}

FlagSpec Count(std::string name, uint32_t Flags::*field, uint32_t low, uint32_t high, std::string help) {
  return {std::move(name), Kind::kValue, std::move(help), [field, low, high](const Values& values, Flags& flags) {
            uint32_t count;
            if (!absl::SimpleAtoi(values[0], &count) || count < low || count > high) {
              return InvalidArgument("is \"", values[0], "\"; allowed are ", low, " to ", high);
            }
            flags.*field = count;
            return absl::OkStatus();
          }};
}

// A number of bytes, plain or with KiB, MiB, GiB or TiB; nullopt if it is neither or too big for
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
  return {std::move(name), Kind::kValue, std::move(help), [field, low, high](const Values& values, Flags& flags) {
            const std::optional<uint64_t> bytes = ParseBytes(values[0]);
            if (!bytes.has_value()) {
              return InvalidArgument("is \"", values[0],
                                     "\"; a size is a whole number with nothing, KiB, MiB, GiB or TiB behind it");
            }
            if (*bytes < low || *bytes > high) {
              return InvalidArgument("is ", *bytes, " bytes; allowed are ", low, " to ", high);
            }
            flags.*field = T(*bytes);
            return absl::OkStatus();
          }};
}

template <typename T>
FlagSpec Seconds(std::string name, T Flags::*field, double high, std::string help) {
  return {std::move(name), Kind::kValue, std::move(help), [field, high](const Values& values, Flags& flags) {
            double seconds;
            if (!absl::SimpleAtod(values[0], &seconds) || !(seconds >= 0 && seconds <= high)) {
              return InvalidArgument("is \"", values[0], "\"; allowed are seconds from 0 to ", high);
            }
            flags.*field = seconds;
            return absl::OkStatus();
          }};
}

FlagSpec HostPort(std::string name, std::string Flags::*field, std::string help) {
  return {std::move(name), Kind::kValue, std::move(help), [field](const Values& values, Flags& flags) {
            const size_t colon = values[0].rfind(':');
            uint32_t port;
            const std::string host = values[0].substr(0, colon);
            const bool bracketed = absl::StartsWith(host, "[") && absl::EndsWith(host, "]");
            if (colon == std::string::npos || host.empty() || !absl::SimpleAtoi(values[0].substr(colon + 1), &port) ||
                port > 65535 || (!bracketed && absl::StrContains(host, ':'))) {
              return InvalidArgument("is \"", values[0],
                                     "\"; it is HOST:PORT or [IPV6]:PORT, port 0 to 65535 (0: any free one)");
            }
            flags.*field = values[0];
            return absl::OkStatus();
          }};
}

FlagSpec Device() {
  return {"device", Kind::kValue, "auto, cpu, cuda or cuda:N. auto: the first CUDA device, else the CPU",
          [](const Values& values, Flags& flags) {
            absl::string_view number = values[0];
            uint32_t index;
            const bool numbered = absl::ConsumePrefix(&number, "cuda:") && absl::SimpleAtoi(number, &index);
            if (!numbered && values[0] != "auto" && values[0] != "cpu" && values[0] != "cuda") {
              return InvalidArgument("is \"", values[0], "\"; allowed are auto, cpu, cuda, cuda:N");
            }
            flags.device = values[0];
            return absl::OkStatus();
          }};
}

FlagSpec Names(std::string name, std::vector<std::string> Flags::*field, std::string help) {
  return {std::move(name), Kind::kList, std::move(help), [field](const Values& values, Flags& flags) {
            if (std::find(values.begin(), values.end(), "") != values.end()) {
              return InvalidArgument("has an empty name");
            }
            flags.*field = values;
            return absl::OkStatus();
          }};
}

FlagSpec TrustedProxy() {
  return {"trusted-proxy", Kind::kList,
          "ADDRESS or ADDRESS/BITS of proxies whose x-forwarded-for names the peer; they must set that header "
          "themselves (repeatable)",
          [](const Values& values, Flags& flags) {
            flags.trusted_proxies = values;
            return TrustedProxies::Parse(values).status();
          }};
}

FlagSpec BaseAdapters() {
  return {"base-adapter", Kind::kList, "NAME:WEIGHT of an adapter to merge into the base at start (repeatable)",
          [](const Values& values, Flags& flags) {
            flags.base_adapters.clear();
            for (const std::string& value : values) {
              const size_t colon = value.rfind(':');
              BaseAdapter adapter{value.substr(0, colon), 0.0};
              if (colon == std::string::npos || adapter.name.empty() ||
                  !absl::SimpleAtod(value.substr(colon + 1), &adapter.weight) ||
                  !(std::abs(adapter.weight) <= kMaxAdapterWeight)) {
                return InvalidArgument("is \"", value, "\"; it is NAME:WEIGHT with a weight from -", kMaxAdapterWeight,
                                       " to ", kMaxAdapterWeight);
              }
              flags.base_adapters.push_back(std::move(adapter));
            }
            return absl::OkStatus();
          }};
}

}  // namespace

const std::vector<FlagSpec>& FlagTable() {
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
      OneOf("vae-dtype", &Flags::vae_dtype, {"float32", "bfloat16", "float16"},
            "dtype of the VAE: float32, bfloat16 (coarser; faster on most CPUs), float16 (on a GPU, for a VAE made for "
            "it)"),
      Count("max-batch", &Flags::max_batch, 1, 256, "most rows in a denoising step, 4"),
      Count("max-queue", &Flags::max_queue, 1, 1'000'000, "most requests that wait, 64; further ones are refused"),
      Count("client-share", &Flags::client_share, 0, 1'000'000,
            "most waiting requests of one caller, who is known by token, else by certificate or address; "
            "default 0: no limit"),
      Bytes("adapter-device-bytes", &Flags::adapter_device_bytes, 0, uint64_t{INT64_MAX},
            "storage of adapters on the device, allocated at start, 2GiB"),
      Bytes("adapter-host-bytes", &Flags::adapter_host_bytes, 0, uint64_t{INT64_MAX},
            "budget of adapters in host memory, 4GiB"),
      Bytes("conditioning-cache-bytes", &Flags::conditioning_cache_bytes, 0, uint64_t{INT64_MAX},
            "storage of encoded prompts that are kept for further requests, allocated at start, 64MiB; 0: none"),
      Names("pin", &Flags::pin, "NAME of an adapter to load at start and never evict (repeatable)"),
      Text("controls", &Flags::controls, "folder of ControlNets, found by name on demand"),
      Text("image-prompts", &Flags::image_prompts, "folder of image prompts (IP-Adapters), found by name on demand"),
      Text("image-encoder", &Flags::image_encoder,
           "CLIP image encoder that image prompts need, a folder in transformers' layout"),
      Bytes("control-device-bytes", &Flags::control_device_bytes, 0, uint64_t{INT64_MAX},
            "storage of ControlNets, image prompts and the image encoder on the device, allocated at start; what the "
            "largest of each folder take"),
      Bytes(
          "control-host-bytes", &Flags::control_host_bytes, 0, uint64_t{INT64_MAX},
          "budget of ControlNets, image prompts and the image encoder in host memory; what the largest of each folder "
          "take"),
      Names("pin-control", &Flags::pin_control,
            "NAME of a ControlNet, else of an image prompt, to load at start and never evict (repeatable)"),
      BaseAdapters(),
      Switch(
          "allow-unmatched-keys", &Flags::allow_unmatched_keys,
          "serve an adapter although the model lacks modules that its keys name; these keys are not applied, and each "
          "answer lists them"),
      OneOf("dora-weighting", &Flags::dora_weighting, {"peft", "interpolated"},
            "what the weight of a DoRA scales: its change before the norm is applied (peft), or the whole difference "
            "to the "
            "base weight (interpolated); peft"),
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
            "--tokens-file, --tls-client-ca or --insecure"),
      Count("upload-quota-files", &Flags::upload_quota_files, 0, 1'000'000'000,
            "files that one caller may upload within an hour, 0 for any number; 1000"),
      Bytes("upload-quota-bytes", &Flags::upload_quota_bytes, 0, uint64_t{INT64_MAX},
            "bytes that one caller may upload within an hour, 0 for any number; 256GiB"),
      TrustedProxy(),
      Switch("insecure", &Flags::insecure,
             "let a --listen that is not loopback do without --tokens-file and --tls-client-ca: every caller that "
             "reaches the port may do everything"),
      Switch("reflection", &Flags::reflection, "server reflection (it asks for no token)"),
      Text("ready-file", &Flags::ready_file, "file to write once requests are accepted: ports and pid as JSON"),
      Switch("check", &Flags::check, "validate model and adapters, print the memory plan, exit"),
      Seconds("drain-timeout", &Flags::drain_timeout, 86400,
              "seconds that running requests have to end after SIGTERM, 30"),
      OneOf("log-level", &Flags::log_level, {"debug", "info", "warning", "error"},
            "debug, info, warning or error; info"),
      Text("access-log", &Flags::access_log,
           "file to append a line of JSON to for each call, or - for standard output"),
      Text("fault-file", &Flags::fault_file,
           "to try alerts: while this file exists, each step takes as many seconds longer as it says, at most 60"),
  };
  return *specs;
}

}  // namespace hotlora
