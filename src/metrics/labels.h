#ifndef HOTLORA_SRC_METRICS_LABELS_H_
#define HOTLORA_SRC_METRICS_LABELS_H_

// Label values, bucket bounds (seconds) and families that more than one file of this module uses.

#include <string>

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

namespace hotlora {

inline constexpr const char* kMethods[] = {"GenerateImages",    "StreamGenerateImages",
                                           "RenderImage",       "ListAdapters",
                                           "GetAdapter",        "LoadAdapter",
                                           "UnloadAdapter",     "UploadAdapter",
                                           "DeleteAdapter",     "GetServerInfo",
                                           "GetStatistics",     "VerifyBase",
                                           "SetLogLevel",       "CreateImage",
                                           "ListModels",        "RetrieveModel",
                                           "Txt2Img",           "Img2Img",
                                           "ListLoras",         "ListSamplers",
                                           "ListSchedulers",    "ListSdModels",
                                           "GetOptions",        "SetOptions",
                                           "GetProgress",       "Interrupt",
                                           "ListControls",      "GetControl",
                                           "LoadControl",       "UnloadControl",
                                           "UploadControl",     "DeleteControl",
                                           "ListImagePrompts",  "GetImagePrompt",
                                           "LoadImagePrompt",   "UnloadImagePrompt",
                                           "UploadImagePrompt", "DeleteImagePrompt",
                                           "ListControlModels", "ListControlModules"};

using Buckets = prometheus::Histogram::BucketBoundaries;
inline const Buckets kStepBuckets = {.005, .01, .02, .03, .04, .05, .06, .08, .1,  .125,
                                     .15,  .2,  .25, .3,  .4,  .5,  .75, 1,   1.5, 2.5};
inline const Buckets kPhaseBuckets = {.005, .01, .025, .05, .1, .2, .3, .5, .75, 1, 2, 5, 10, 30};
inline const Buckets kQueueBuckets = {.001, .005, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120};

using CounterFamily = prometheus::Family<prometheus::Counter>;
using GaugeFamily = prometheus::Family<prometheus::Gauge>;
using HistogramFamily = prometheus::Family<prometheus::Histogram>;

inline CounterFamily& AddCounter(prometheus::Registry& registry, const std::string& name, const std::string& help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}
inline GaugeFamily& AddGauge(prometheus::Registry& registry, const std::string& name, const std::string& help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}
inline HistogramFamily& AddHistogram(prometheus::Registry& registry, const std::string& name, const std::string& help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

}  // namespace hotlora

#endif  // HOTLORA_SRC_METRICS_LABELS_H_
