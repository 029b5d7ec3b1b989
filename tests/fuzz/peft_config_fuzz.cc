// adapter_config.json, and lora_adapter_metadata of headers: any text.

#include <cstddef>
#include <cstdint>
#include <string>

#include "src/adapter_format/peft_scaling.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const hotlora::AdaptableModule module{hotlora::Component::kUnet, "mid_block.attentions.0.proj_in", {32, 32}};
  for (const auto& scaling : {hotlora::PeftScaling::FromConfig(text), hotlora::PeftScaling::FromMetadata(text)}) {
    if (scaling.ok()) {
      (void)scaling->ScaleOf(module, 4);
      (void)scaling->OftOf(module);
      (void)scaling->UsesDora(module);
    }
  }
  return 0;
}
