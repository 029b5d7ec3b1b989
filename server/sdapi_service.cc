#include "server/sdapi_service.h"

#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "server/generation.h"
#include "server/sdapi_controls.h"
#include "server/sdapi_lists.h"
#include "server/sdapi_options.h"
#include "server/unary_call.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/status_macros.h"
#include "src/base/steady_time.h"

namespace hotlora {
namespace {

using sdapi::v1::GenerateRequest;

// Whose requests a call means.
std::string OwnerOf(const RpcCall& call) { return call.has_tokens() ? call.caller() : ""; }

void SetJson(std::string json, google::api::HttpBody& response) {
  response.set_content_type("application/json");
  response.set_data(std::move(json));
}

class SdapiGeneration final : public UnaryGeneration {
 public:
  SdapiGeneration(ServiceContext* service, SdapiTask task, SdapiRequests* requests,
                  grpc::CallbackServerContext* context, sdapi::v1::GenerateResponse* response)
      : UnaryGeneration(service, task == SdapiTask::kTxt2Img ? "Txt2Img" : "Img2Img", context),
        task_(task),
        requests_(requests),
        model_(service->engine.load() == nullptr ? ModelInfo() : service->engine.load()->model()),
        response_(response) {}

  void Begin(const Unparsed<GenerateRequest>& request) {
    Start(request, [this](GenerateRequest message) {
      mu_.AssertHeld();
      return Map(std::move(message));
    });
  }

  void OnWaiting(const ImageWaiting& waiting) override {
    Update([&](SdapiProgress& progress) {
      progress.waits_for = waiting.stage == WaitStage::kQueue
                               ? absl::StrCat("place ", waiting.queue_position, " in the queue")
                               : "its adapters";
    });
  }
  void OnProgress(const ImageProgress& heard) override {
    UnaryGeneration::OnProgress(heard);
    Update([&](SdapiProgress& progress) {
      progress.waits_for.clear();
      progress.step = heard.step;
      progress.steps = heard.total_steps;
      ++progress.steps_done;
      if (!heard.preview.empty()) {
        progress.preview = std::make_shared<const std::string>(heard.preview);
      }
    });
  }

 private:
  MappedImageRequest Map(GenerateRequest message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    request_ = WithDefaults(std::move(message), task_);
    MappedImageRequest mapped = FromProto(request_, task_, model_);
    // To clear them would keep their memory as long as the request waits and runs.
    google::protobuf::RepeatedPtrField<std::string>().Swap(request_.mutable_init_images());
    const std::unique_ptr<std::string> mask(request_.release_mask());
    DropControlPictures(*request_.mutable_alwayson_scripts());
    images_asked_ = mapped.request.num_images.value_or(1);
    return mapped;
  }

  absl::Status InCallersWords(const absl::Status& status) const override { return InSdapiWords(status); }

  void OnAdmitted(const Admission&) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    SdapiProgress progress;
    progress.job = TaskName(task_);
    progress.job_time = begin_;
    progress.begin = steady_begin_;
    progress.images = images_asked_;
    progress.steps = static_cast<uint32_t>(request_.steps());
    // The engine's last word may come while another caller interrupts: then there is nothing left to end.
    std::weak_ptr<Generation> self = weak_from_this();
    entry_ = requests_->Add(OwnerOf(rpc_), std::move(progress), [self] {
      if (const std::shared_ptr<Generation> generation = self.lock()) {
        static_cast<SdapiGeneration&>(*generation).Interrupt();
      }
    });
  }

  void Interrupt() {
    {
      MutexLock lock(&mu_);
      interrupted_ = true;
    }
    CancelGeneration(MakeError(absl::StatusCode::kCancelled, error_reason::kCancelled,
                               "the request was interrupted before it had an image"));
  }

  // Without memory for a change, what is told lags behind.
  template <typename Change>
  void Update(Change change) {
    MutexLock lock(&mu_);
    CatchExceptions([&] {
      mu_.AssertHeld();
      if (entry_ != nullptr) {
        entry_->Update(change);
      }
      return absl::OkStatus();
    }).IgnoreError();
  }

  void AddImage(FinishedImage image) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const uint32_t index = image.index;
    images_[index] = std::move(image);
    if (entry_ != nullptr) {
      entry_->Update([](SdapiProgress& progress) { ++progress.finished_images; });
    }
  }

  absl::Status AddSummary(const absl::Status& status, const ImageSummary& summary) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    entry_ = nullptr;
    const bool partial = interrupted_ && absl::IsCancelled(status) && !images_.empty();
    if (!status.ok() && !partial) {
      return status;
    }
    std::vector<SdapiImage> told;
    for (auto& [index, image] : images_) {
      told.push_back({image.seed, image.width, image.height, std::move(image.parameters)});
      if (!request_.has_send_images() || request_.send_images()) {
        response_->add_images(std::move(image.data));
      }
    }
    *response_->mutable_parameters() = ToParameters(request_);
    response_->set_info(ToInfo(request_, task_, told, summary, model_, begin_));
    return absl::OkStatus();
  }

  size_t ResponseBytes() const override { return response_->ByteSizeLong(); }

  const SdapiTask task_;
  SdapiRequests* const requests_;  // outlives entry_
  const ModelInfo model_;          // empty if there is no engine yet; then there will be no request
  const absl::Time begin_ = absl::Now(), steady_begin_ = SteadyNow();
  sdapi::v1::GenerateResponse* const response_;   // gRPC's, until OnDone
  GenerateRequest request_ ABSL_GUARDED_BY(mu_);  // without its images
  uint32_t images_asked_ ABSL_GUARDED_BY(mu_) = 1;
  std::map<uint32_t, FinishedImage> images_ ABSL_GUARDED_BY(mu_);  // by index
  bool interrupted_ ABSL_GUARDED_BY(mu_) = false;
  std::unique_ptr<SdapiRequests::Entry> entry_ ABSL_GUARDED_BY(mu_);  // from admission to the end, memory permitting
};

}  // namespace

SdapiService::SdapiService(ServiceContext* service)
    : UnparsedService(sdapi::v1::SdapiService::service_full_name()), service_(service) {
  AddUnary("Txt2Img", &SdapiService::Txt2Img);
  AddUnary("Img2Img", &SdapiService::Img2Img);
  AddUnary("ListLoras", &SdapiService::ListLoras);
  AddUnary("ListSamplers", &SdapiService::ListSamplers);
  AddUnary("ListSchedulers", &SdapiService::ListSchedulers);
  AddUnary("ListSdModels", &SdapiService::ListSdModels);
  AddUnary("ListControlModels", &SdapiService::ListControlModels);
  AddUnary("ListControlModules", &SdapiService::ListControlModules);
  AddUnary("GetOptions", &SdapiService::GetOptions);
  AddUnary("SetOptions", &SdapiService::SetOptions);
  AddUnary("GetProgress", &SdapiService::GetProgress);
  AddUnary("Interrupt", &SdapiService::Interrupt);
}

grpc::ServerUnaryReactor* SdapiService::Txt2Img(grpc::CallbackServerContext* context,
                                                const Unparsed<GenerateRequest>* request,
                                                sdapi::v1::GenerateResponse* response) {
  const auto call = std::make_shared<SdapiGeneration>(service_, SdapiTask::kTxt2Img, &requests_, context, response);
  call->Begin(*request);
  return call.get();
}

grpc::ServerUnaryReactor* SdapiService::Img2Img(grpc::CallbackServerContext* context,
                                                const Unparsed<GenerateRequest>* request,
                                                sdapi::v1::GenerateResponse* response) {
  const auto call = std::make_shared<SdapiGeneration>(service_, SdapiTask::kImg2Img, &requests_, context, response);
  call->Begin(*request);
  return call.get();
}

grpc::ServerUnaryReactor* SdapiService::ListLoras(grpc::CallbackServerContext* context,
                                                  const Unparsed<sdapi::v1::ListLorasRequest>* request,
                                                  google::api::HttpBody* response) {
  return AnswerFromDisk(service_, "ListLoras", Scope::kAdaptersRead, context, request, response,
                        [](Engine& engine, const auto&, google::api::HttpBody& body) -> absl::Status {
                          ABSL_ASSIGN_OR_RETURN(const std::vector<AdapterInfo> adapters,
                                                engine.adapters().List("", std::numeric_limits<size_t>::max()));
                          SetJson(LorasJson(adapters), body);
                          return absl::OkStatus();
                        });
}

grpc::ServerUnaryReactor* SdapiService::ListSamplers(grpc::CallbackServerContext* context,
                                                     const Unparsed<sdapi::v1::ListSamplersRequest>* request,
                                                     google::api::HttpBody* response) {
  return AnswerNow(service_, "ListSamplers", Scope::kAny, context, request, [&](Engine&, const auto&) {
    SetJson(SamplersJson(), *response);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* SdapiService::ListSchedulers(grpc::CallbackServerContext* context,
                                                       const Unparsed<sdapi::v1::ListSchedulersRequest>* request,
                                                       google::api::HttpBody* response) {
  return AnswerNow(service_, "ListSchedulers", Scope::kAny, context, request, [&](Engine&, const auto&) {
    SetJson(SchedulersJson(), *response);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* SdapiService::ListSdModels(grpc::CallbackServerContext* context,
                                                     const Unparsed<sdapi::v1::ListSdModelsRequest>* request,
                                                     google::api::HttpBody* response) {
  return AnswerNow(service_, "ListSdModels", Scope::kAny, context, request, [&](Engine& engine, const auto&) {
    SetJson(SdModelsJson(engine.model()), *response);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* SdapiService::ListControlModels(grpc::CallbackServerContext* context,
                                                          const Unparsed<sdapi::v1::ListControlModelsRequest>* request,
                                                          google::api::HttpBody* response) {
  return AnswerFromDisk(service_, "ListControlModels", Scope::kAdaptersRead, context, request, response,
                        [](Engine& engine, const auto&, google::api::HttpBody& body) -> absl::Status {
                          constexpr size_t kAll = std::numeric_limits<size_t>::max();
                          ABSL_ASSIGN_OR_RETURN(const std::vector<AdapterInfo> nets, engine.controls().List("", kAll));
                          ABSL_ASSIGN_OR_RETURN(const std::vector<AdapterInfo> prompts,
                                                engine.image_prompts().List("", kAll));
                          SetJson(ControlModelsJson(nets, prompts), body);
                          return absl::OkStatus();
                        });
}

grpc::ServerUnaryReactor* SdapiService::ListControlModules(
    grpc::CallbackServerContext* context, const Unparsed<sdapi::v1::ListControlModulesRequest>* request,
    google::api::HttpBody* response) {
  return AnswerNow(service_, "ListControlModules", Scope::kAny, context, request, [&](Engine&, const auto&) {
    SetJson(ControlModulesJson(), *response);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* SdapiService::GetOptions(grpc::CallbackServerContext* context,
                                                   const Unparsed<sdapi::v1::GetOptionsRequest>* request,
                                                   google::api::HttpBody* response) {
  return AnswerNow(service_, "GetOptions", Scope::kAny, context, request, [&](Engine& engine, const auto&) {
    SetJson(OptionsInForce(engine.model()).Json(), *response);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* SdapiService::SetOptions(grpc::CallbackServerContext* context,
                                                   const Unparsed<sdapi::v1::SetOptionsRequest>* request,
                                                   sdapi::v1::SetOptionsResponse*) {
  return AnswerNow(service_, "SetOptions", Scope::kAny, context, request, [](Engine& engine, const auto& asked) {
    return OptionsInForce(engine.model()).Check(asked.options());
  });
}

grpc::ServerUnaryReactor* SdapiService::GetProgress(grpc::CallbackServerContext* context,
                                                    const Unparsed<sdapi::v1::GetProgressRequest>* request,
                                                    google::api::HttpBody* response) {
  return AnswerCallNow(
      service_, "GetProgress", Scope::kGenerate, context, request,
      [&](const RpcCall& call, Engine&, const auto& asked) {
        SetJson(ProgressJson(requests_.ProgressOf(OwnerOf(call)), !asked.skip_current_image(), SteadyNow()), *response);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* SdapiService::Interrupt(grpc::CallbackServerContext* context,
                                                  const Unparsed<sdapi::v1::InterruptRequest>* request,
                                                  sdapi::v1::InterruptResponse*) {
  return AnswerCallNow(service_, "Interrupt", Scope::kGenerate, context, request,
                       [&](const RpcCall& call, Engine&, const auto&) {
                         requests_.Interrupt(OwnerOf(call));
                         return absl::OkStatus();
                       });
}

}  // namespace hotlora
