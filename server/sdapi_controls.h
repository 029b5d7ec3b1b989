#ifndef HOTLORA_SERVER_SDAPI_CONTROLS_H_
#define HOTLORA_SERVER_SDAPI_CONTROLS_H_

// The scripts of AUTOMATIC1111's API. One is there: "controlnet", which the extension sd-webui-controlnet brings. Its
// fields, their defaults and aliases are facts of that extension
// (https://github.com/Mikubill/sd-webui-controlnet/wiki/API).

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include <google/protobuf/struct.pb.h>

#include "server/proto_mapping.h"

namespace hotlora {

// The modules of units that are image prompts. The server's encoder sees the picture, whichever of them is named.
inline constexpr absl::string_view kImagePromptModules[] = {"ip-adapter-auto", "ip-adapter_clip_h", "ip-adapter_clip_g",
                                                            "ip-adapter_clip_sdxl", "ip-adapter_clip_sdxl_plus_vith"};

// Adds a control or, by its module, an image prompt to the request for each unit of "controlnet" that is enabled, in
// their order. Adds a violation for
// each value that does not fit its field, or would change the picture and is not supported, such as any other script
// with arguments. Fields are called alwayson_scripts.NAME.args[I].FIELD. `width`, `height`: of the images to make.
void ReadScripts(const google::protobuf::Struct& scripts, int64_t width, int64_t height, MappedImageRequest& mapped);

// Takes the pictures out of "controlnet", if it is there, and gives their memory back.
void DropControlPictures(google::protobuf::Struct& scripts);

// The error of a request, with the bad fields of its controls and image prompts in the words of this API.
absl::Status WithUnitNames(const absl::Status& status);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_SDAPI_CONTROLS_H_
