#ifndef HOTLORA_SRC_SCHEDULER_REQUEST_SUMMARY_H_
#define HOTLORA_SRC_SCHEDULER_REQUEST_SUMMARY_H_

// What a request's summary (ImageTask::summary) and the metrics say of its model and its adapters. The step thread
// calls these functions.

#include "src/adapters/adapter_info.h"
#include "src/metrics/metrics.h"
#include "src/pipeline/pipeline.h"
#include "src/scheduler/image_task.h"

namespace hotlora {

// Fills in the model, the sampler, the size and the embeddings.
void DescribeModel(const ModelInfo& model, ImageTask& task);

// Fills in the controls and the image prompts.
void DescribeControls(ImageTask& task);

// Fills in the adapters and the time that each phase of their loading took, in seconds. Returns the coldest tier in
// which one of them was found; kDevice if the request has no adapters.
AdapterTier DescribeAdapters(ImageTask& task);

// Observes the phases of loading the adapters of a request, which were found in `source` or in warmer tiers. A phase
// that did not happen is not observed.
void ObserveLoading(const SwapCost& cost, AdapterTier source, Metrics& metrics);

// Observes the phases in which a set of adapters from `source` took effect, and all of the swap.
void ObserveSwap(const SwapReport& report, AdapterTier source, double total_seconds, Metrics& metrics);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_REQUEST_SUMMARY_H_
