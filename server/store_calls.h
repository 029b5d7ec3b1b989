#ifndef HOTLORA_SERVER_STORE_CALLS_H_
#define HOTLORA_SERVER_STORE_CALLS_H_

// The services over the engine's stores: what their messages and methods are called.

#include "hotlora/v1/adapters.grpc.pb.h"
#include "hotlora/v1/controls.grpc.pb.h"
#include "hotlora/v1/image_prompts.grpc.pb.h"
#include "server/proto_mapping.h"
#include "src/engine/engine.h"

namespace hotlora {

struct AdapterCalls {
  using Service = v1::AdapterService;
  using Item = v1::Adapter;
  using ListRequest = v1::ListAdaptersRequest;
  using ListResponse = v1::ListAdaptersResponse;
  using GetRequest = v1::GetAdapterRequest;
  using LoadRequest = v1::LoadAdapterRequest;
  using UnloadRequest = v1::UnloadAdapterRequest;
  using UploadRequest = v1::UploadAdapterRequest;
  using DeleteRequest = v1::DeleteAdapterRequest;
  static constexpr const char* kList = "ListAdapters";
  static constexpr const char* kGet = "GetAdapter";
  static constexpr const char* kLoad = "LoadAdapter";
  static constexpr const char* kUnload = "UnloadAdapter";
  static constexpr const char* kUpload = "UploadAdapter";
  static constexpr const char* kDelete = "DeleteAdapter";

  static ServedStore& StoreOf(Engine& engine) { return engine.adapters(); }
  static Item ToItem(const AdapterInfo& info) { return ToProto(info); }
  static Item* AddTo(ListResponse& response) { return response.add_adapters(); }
};

struct ControlCalls {
  using Service = v1::ControlService;
  using Item = v1::Control;
  using ListRequest = v1::ListControlsRequest;
  using ListResponse = v1::ListControlsResponse;
  using GetRequest = v1::GetControlRequest;
  using LoadRequest = v1::LoadControlRequest;
  using UnloadRequest = v1::UnloadControlRequest;
  using UploadRequest = v1::UploadControlRequest;
  using DeleteRequest = v1::DeleteControlRequest;
  static constexpr const char* kList = "ListControls";
  static constexpr const char* kGet = "GetControl";
  static constexpr const char* kLoad = "LoadControl";
  static constexpr const char* kUnload = "UnloadControl";
  static constexpr const char* kUpload = "UploadControl";
  static constexpr const char* kDelete = "DeleteControl";

  static ServedStore& StoreOf(Engine& engine) { return engine.controls(); }
  static Item ToItem(const AdapterInfo& info) { return ToControl(info); }
  static Item* AddTo(ListResponse& response) { return response.add_controls(); }
};

struct ImagePromptCalls {
  using Service = v1::ImagePromptService;
  using Item = v1::Control;
  using ListRequest = v1::ListImagePromptsRequest;
  using ListResponse = v1::ListImagePromptsResponse;
  using GetRequest = v1::GetImagePromptRequest;
  using LoadRequest = v1::LoadImagePromptRequest;
  using UnloadRequest = v1::UnloadImagePromptRequest;
  using UploadRequest = v1::UploadImagePromptRequest;
  using DeleteRequest = v1::DeleteImagePromptRequest;
  static constexpr const char* kList = "ListImagePrompts";
  static constexpr const char* kGet = "GetImagePrompt";
  static constexpr const char* kLoad = "LoadImagePrompt";
  static constexpr const char* kUnload = "UnloadImagePrompt";
  static constexpr const char* kUpload = "UploadImagePrompt";
  static constexpr const char* kDelete = "DeleteImagePrompt";

  static ServedStore& StoreOf(Engine& engine) { return engine.image_prompts(); }
  static Item ToItem(const AdapterInfo& info) { return ToControl(info); }
  static Item* AddTo(ListResponse& response) { return response.add_image_prompts(); }
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_STORE_CALLS_H_
