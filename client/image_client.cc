#include "client/image_client.h"

#include <chrono>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include "grpc/health/v1/health.grpc.pb.h"
#include "src/base/resource_name.h"
#include "src/base/sha256.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

constexpr int kReconnectBackoffMs = 100;
constexpr std::chrono::seconds kConnectPatience{1};
constexpr int kMaxAnswerBytes = 256 << 20;  // images arrive in parts, other answers are small
constexpr uint32_t kPageSize = 1000;
constexpr size_t kChunkBytes = size_t{1} << 20;

absl::StatusOr<std::string> ReadPem(absl::string_view flag, const std::string& path) {
  if (path.empty()) {
    return std::string();
  }
  std::ifstream file(path);
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!file || text.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(flag, " ", path, ": cannot be read"));
  }
  return text;
}

// Passes the file to `take` in chunks, and ends early if `take` returns false. True if the whole file was read.
bool ReadChunks(const std::string& path, const std::function<bool(std::string)>& take) {
  std::ifstream file(path, std::ios::binary);
  while (file) {
    std::string chunk(kChunkBytes, '\0');
    file.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    chunk.resize(static_cast<size_t>(file.gcount()));
    if (!chunk.empty() && !take(std::move(chunk))) {
      return false;
    }
  }
  return file.eof();
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeCredentials(const ConnectionOptions& options) {
  if (!options.tls) {
    return grpc::InsecureChannelCredentials();
  }
  grpc::SslCredentialsOptions ssl;
  ABSL_ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadPem("--tls-ca", options.tls_ca));
  ABSL_ASSIGN_OR_RETURN(ssl.pem_cert_chain, ReadPem("--tls-cert", options.tls_cert));
  ABSL_ASSIGN_OR_RETURN(ssl.pem_private_key, ReadPem("--tls-key", options.tls_key));
  return grpc::SslCredentials(ssl);
}

std::string RequestId(const grpc::ClientContext& context) {
  const auto found = context.GetServerTrailingMetadata().find("x-request-id");
  return found == context.GetServerTrailingMetadata().end() ? std::string()
                                                            : std::string(found->second.data(), found->second.size());
}

// Appends a part of an image to the parts that came before.
grpc::Status AddPart(v1::Image&& part, std::vector<v1::Image>& images) {
  if (part.index() >= 1000) {
    return grpc::Status(grpc::StatusCode::DATA_LOSS, absl::StrCat("an image of index ", part.index(), " came"));
  }
  if (part.index() >= images.size()) {
    images.resize(part.index() + 1);
  }
  v1::Image& image = images[part.index()];
  if (image.has_index()) {
    image.mutable_data()->append(part.data());
  } else {
    image = std::move(part);
  }
  return grpc::Status::OK;
}

grpc::Status CheckWhole(const GeneratedImages& answer, size_t asked) {
  if (answer.summary.server_version().empty()) {
    return grpc::Status(grpc::StatusCode::DATA_LOSS, "the stream ended without a summary");
  }
  if (answer.images.size() != asked) {
    return grpc::Status(grpc::StatusCode::DATA_LOSS, absl::StrCat(answer.images.size(), " of ", asked, " images came"));
  }
  for (size_t i = 0; i < answer.images.size(); ++i) {
    const v1::Image& image = answer.images[i];
    if (!image.has_index() || image.data().size() != image.total_bytes()) {
      return grpc::Status(grpc::StatusCode::DATA_LOSS, absl::StrCat("image ", i, " came with ", image.data().size(),
                                                                    " of ", image.total_bytes(), " bytes"));
    }
  }
  return grpc::Status::OK;
}

}  // namespace

std::string AdapterKey(const v1::GenerateImagesRequest& request) {
  std::vector<std::string> names;
  for (const v1::AdapterRef& adapter : request.adapters()) {
    names.push_back(NormalizeName(adapter.name()).value_or(adapter.name()));
  }
  const auto encode = [](std::string* key, const std::string& name) { key->append(EncodeName(name)); };
  return names.empty() ? "base" : absl::StrJoin(names, ",", encode);
}

absl::StatusOr<v1::UploadHeader> MakeUploadHeader(const std::string& file, const std::string& name, bool replace) {
  v1::UploadHeader header;
  header.set_name(name);
  header.set_replace(replace);
  Sha256 hash;
  uint64_t size = 0;
  const bool read = ReadChunks(file, [&](const std::string& chunk) {
    hash.Update(chunk.data(), chunk.size());
    size += chunk.size();
    return true;
  });
  if (!read) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": cannot be read"));
  }
  header.set_size(size);
  header.set_sha256(hash.HexDigest());
  return header;
}

absl::StatusOr<std::unique_ptr<ImageClient>> ImageClient::Create(const ConnectionOptions& options) {
  ABSL_ASSIGN_OR_RETURN(const auto credentials, MakeCredentials(options));
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxAnswerBytes);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectBackoffMs);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kReconnectBackoffMs);
  if (!options.tls_server_name.empty()) {
    arguments.SetSslTargetNameOverride(options.tls_server_name);
  }
  const std::shared_ptr<grpc::Channel> channel = grpc::CreateCustomChannel(options.server, credentials, arguments);
  // The first attempt to connect sometimes fails on a busy machine. If the server is not there, the call says so.
  channel->WaitForConnected(std::chrono::system_clock::now() + kConnectPatience);
  return std::unique_ptr<ImageClient>(new ImageClient(options, channel));
}

ImageClient::ImageClient(ConnectionOptions options, std::shared_ptr<grpc::Channel> channel)
    : options_(std::move(options)), channel_(std::move(channel)) {}

void ImageClient::Prepare(grpc::ClientContext* context) const {
  if (options_.timeout_seconds > 0) {
    context->set_deadline(std::chrono::system_clock::now() +
                          std::chrono::microseconds(static_cast<int64_t>(options_.timeout_seconds * 1e6)));
  }
  if (!options_.token.empty()) {
    context->AddMetadata("authorization", "Bearer " + options_.token);
  }
}

CallResult ImageClient::Generate(const v1::GenerateImagesRequest& request,
                                 const std::function<void(const v1::GenerateImagesEvent&)>& on_event,
                                 GeneratedImages& images) {
  grpc::ClientContext context;
  Prepare(&context);
  context.AddMetadata("x-adapter-key", AdapterKey(request));
  const auto reader = v1::ImageService::NewStub(channel_)->StreamGenerateImages(&context, request);
  v1::GenerateImagesEvent event;
  grpc::Status parts = grpc::Status::OK;
  while (reader->Read(&event)) {
    if (event.has_image()) {
      parts = parts.ok() ? AddPart(std::move(*event.mutable_image()), images.images) : parts;
      continue;
    }
    if (event.has_accepted()) {
      images.accepted = event.accepted();
    } else if (event.has_summary()) {
      images.summary = event.summary();
    }
    if (on_event != nullptr) {
      on_event(event);
    }
  }
  CallResult result{reader->Finish(), RequestId(context)};
  if (result.request_id.empty()) {
    result.request_id = images.accepted.request_id();  // if our own deadline ends the call, there are no trailers
  }
  if (result.status.ok()) {
    result.status = parts.ok() ? CheckWhole(images, request.has_num_images() ? request.num_images() : 1) : parts;
  }
  return result;
}

CallResult ImageClient::GenerateUntil(const v1::GenerateImagesRequest& request,
                                      const std::function<bool(const v1::GenerateImagesEvent&)>& stop) {
  grpc::ClientContext context;
  Prepare(&context);
  context.AddMetadata("x-adapter-key", AdapterKey(request));
  const auto reader = v1::ImageService::NewStub(channel_)->StreamGenerateImages(&context, request);
  v1::GenerateImagesEvent event;
  while (reader->Read(&event)) {
    if (stop(event)) {
      context.TryCancel();
    }
  }
  const grpc::Status status = reader->Finish();
  return {status, RequestId(context)};
}

template <typename Stub, typename Request, typename Response>
CallResult ImageClient::Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                             const Request& request, Response* response) {
  grpc::ClientContext context;
  Prepare(&context);
  Stub stub(channel_);
  const grpc::Status status = (stub.*method)(&context, request, response);
  return {status, RequestId(context)};
}

CallResult ImageClient::ListAdapters(std::vector<v1::Adapter>* adapters) {
  v1::ListAdaptersRequest request;
  request.set_page_size(kPageSize);
  while (true) {
    v1::ListAdaptersResponse response;
    CallResult result = Call(&v1::AdapterService::Stub::ListAdapters, request, &response);
    adapters->insert(adapters->end(), response.adapters().begin(), response.adapters().end());
    if (!result.status.ok() || response.next_page_token().empty()) {
      return result;
    }
    request.set_page_token(response.next_page_token());
  }
}

CallResult ImageClient::GetAdapter(const std::string& name, v1::Adapter* adapter) {
  v1::GetAdapterRequest request;
  request.set_name(name);
  return Call(&v1::AdapterService::Stub::GetAdapter, request, adapter);
}

CallResult ImageClient::LoadAdapter(const std::string& name, bool pin, v1::Adapter* adapter, v1::AdapterTier tier) {
  v1::LoadAdapterRequest request;
  request.set_name(name);
  request.set_tier(tier);
  request.set_pin(pin);
  return Call(&v1::AdapterService::Stub::LoadAdapter, request, adapter);
}

CallResult ImageClient::UnloadAdapter(const std::string& name, v1::Adapter* adapter) {
  v1::UnloadAdapterRequest request;
  request.set_name(name);
  return Call(&v1::AdapterService::Stub::UnloadAdapter, request, adapter);
}

CallResult ImageClient::UploadAdapter(const v1::UploadHeader& header, const std::string& file, v1::Adapter* adapter) {
  grpc::ClientContext context;
  Prepare(&context);
  const auto writer = v1::AdapterService::NewStub(channel_)->UploadAdapter(&context, adapter);
  v1::UploadAdapterRequest message;
  *message.mutable_header() = header;
  // If the server refuses the file, writing ends early and Finish returns the reason.
  bool open = writer->Write(message);
  const bool whole = ReadChunks(file, [&](std::string chunk) {
    message.set_chunk(std::move(chunk));
    open = open && writer->Write(message);
    return open;
  });
  if (open && !whole) {
    context.TryCancel();  // the server must not take a part for the whole
    writer->Finish();
    return {grpc::Status(grpc::StatusCode::DATA_LOSS, absl::StrCat(file, " cannot be read any more")), ""};
  }
  writer->WritesDone();
  const grpc::Status status = writer->Finish();
  return {status, RequestId(context)};
}

CallResult ImageClient::DeleteAdapter(const std::string& name) {
  v1::DeleteAdapterRequest request;
  request.set_name(name);
  google::protobuf::Empty nothing;
  return Call(&v1::AdapterService::Stub::DeleteAdapter, request, &nothing);
}

CallResult ImageClient::GetServerInfo(v1::ServerInfo* info) {
  return Call(&v1::ServerService::Stub::GetServerInfo, {}, info);
}

CallResult ImageClient::SetLogLevel(v1::LogLevel level, v1::SetLogLevelResponse* response) {
  v1::SetLogLevelRequest request;
  request.set_level(level);
  return Call(&v1::ServerService::Stub::SetLogLevel, request, response);
}

CallResult ImageClient::GetStatistics(v1::Statistics* statistics) {
  return Call(&v1::ServerService::Stub::GetStatistics, {}, statistics);
}

CallResult ImageClient::VerifyBase(v1::BaseIntegrity* integrity) {
  return Call(&v1::ServerService::Stub::VerifyBase, {}, integrity);
}

CallResult ImageClient::IsServing(bool* serving) {
  grpc::health::v1::HealthCheckResponse response;
  CallResult result = Call(&grpc::health::v1::Health::Stub::Check, {}, &response);
  *serving = response.status() == grpc::health::v1::HealthCheckResponse::SERVING;
  return result;
}

}  // namespace hotlora
