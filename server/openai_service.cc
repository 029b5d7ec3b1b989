#include "server/openai_service.h"

#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/clock.h"

#include "server/generation.h"
#include "server/openai_mapping.h"
#include "server/unary_call.h"
#include "src/base/status_macros.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

using openai::v1::CreateImageRequest;
using openai::v1::CreateImageResponse;

class OpenAiGeneration final : public UnaryGeneration {
 public:
  OpenAiGeneration(ServiceContext* service, grpc::CallbackServerContext* context, CreateImageResponse* response)
      : UnaryGeneration(service, "CreateImage", context), response_(response) {}

 private:
  absl::Status InCallersWords(const absl::Status& status) const override { return InOpenAiWords(status); }

  void AddImage(FinishedImage image) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    PutImage(std::move(image), *response_);
  }

  absl::Status AddSummary(const absl::Status& status, const ImageSummary&) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    response_->set_created(static_cast<uint32_t>(absl::ToUnixSeconds(absl::Now())));
    return status;
  }

  size_t ResponseBytes() const override { return response_->ByteSizeLong(); }

  CreateImageResponse* const response_;  // gRPC's, until OnDone
};

// The model, if each adapter that it names is there.
absl::Status Retrieve(Engine& engine, const openai::v1::RetrieveModelRequest& request, openai::v1::Model& response) {
  std::vector<FieldViolation> violations;
  const std::vector<AdapterRef> adapters = ReadModel(request.model(), violations);
  if (!violations.empty()) {
    return InvalidRequest(std::move(violations));
  }
  for (const AdapterRef& adapter : adapters) {
    ABSL_RETURN_IF_ERROR(InOpenAiWords(engine.adapters().Get(adapter.name).status()));
  }
  response = ToModel(adapters);
  return absl::OkStatus();
}

}  // namespace

OpenAiService::OpenAiService(ServiceContext* service)
    : UnparsedService(openai::v1::ImagesService::service_full_name()), service_(service) {
  AddUnary("CreateImage", &OpenAiService::CreateImage);
  AddUnary("ListModels", &OpenAiService::ListModels);
  AddUnary("RetrieveModel", &OpenAiService::RetrieveModel);
}

grpc::ServerUnaryReactor* OpenAiService::CreateImage(grpc::CallbackServerContext* context,
                                                     const Unparsed<CreateImageRequest>* request,
                                                     CreateImageResponse* response) {
  const auto call = std::make_shared<OpenAiGeneration>(service_, context, response);
  call->Start(*request, [](const CreateImageRequest& message) { return FromProto(message); });
  return call.get();
}

grpc::ServerUnaryReactor* OpenAiService::ListModels(grpc::CallbackServerContext* context,
                                                    const Unparsed<openai::v1::ListModelsRequest>* request,
                                                    openai::v1::ListModelsResponse* response) {
  return AnswerFromDisk(service_, "ListModels", Scope::kAdaptersRead, context, request, response,
                        [](Engine& engine, const auto&, openai::v1::ListModelsResponse& models) -> absl::Status {
                          ABSL_ASSIGN_OR_RETURN(const std::vector<AdapterInfo> adapters,
                                                engine.adapters().List("", std::numeric_limits<size_t>::max()));
                          models = ToModels(adapters);
                          return absl::OkStatus();
                        });
}

grpc::ServerUnaryReactor* OpenAiService::RetrieveModel(grpc::CallbackServerContext* context,
                                                       const Unparsed<openai::v1::RetrieveModelRequest>* request,
                                                       openai::v1::Model* response) {
  return AnswerFromDisk(service_, "RetrieveModel", Scope::kAdaptersRead, context, request, response, Retrieve);
}

}  // namespace hotlora
