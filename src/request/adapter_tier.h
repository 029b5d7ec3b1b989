#ifndef HOTLORA_SRC_REQUEST_ADAPTER_TIER_H_
#define HOTLORA_SRC_REQUEST_ADAPTER_TIER_H_

namespace hotlora {

// Where an adapter is, coldest first.
enum class AdapterTier { kDisk, kHost, kDevice };

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_ADAPTER_TIER_H_
