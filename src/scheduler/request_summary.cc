#include "src/scheduler/request_summary.h"

#include <algorithm>

namespace hotlora {

void DescribeModel(const ModelInfo& model, ImageTask& task) {
  const ImageJob& job = task.job();
  ImageSummary& summary = task.summary;
  summary.model_sha256 = model.sha256;
  summary.dtype = model.dtype;
  summary.sampler = job.denoise.sampler;
  summary.schedule = job.denoise.schedule;
  summary.width = job.last_pass().width;
  summary.height = job.last_pass().height;
  for (size_t i = 0; i < job.embeddings.size(); ++i) {
    const Embedding& embedding = task.embeddings()[i];
    AppliedEmbedding& applied = summary.embeddings.emplace_back();
    applied.name = embedding.name;
    applied.content_sha256 = embedding.content_sha256;
    applied.token = job.embeddings[i].token;
    applied.vectors = embedding.vectors->count;
  }
}

void DescribeControls(ImageTask& task) {
  const auto describe = [](const auto& leased, std::vector<AppliedControl>& applied) {
    applied.push_back({leased.use->name, leased.lease->info().content_sha256, leased.use->scale,
                       leased.lease->report().tier_found, leased.lease->report().seconds()});
  };
  for (const LeasedControl& control : task.controls()) {
    describe(control, task.summary.controls);
  }
  for (const LeasedImagePrompt& prompt : task.image_prompts()) {
    describe(prompt, task.summary.image_prompts);
  }
}

AdapterTier DescribeAdapters(ImageTask& task) {
  SwapCost& cost = task.summary.swap;
  AdapterTier coldest = AdapterTier::kDevice;
  for (const LeasedAdapter& adapter : task.adapters()) {
    const AdapterInfo& info = adapter.lease->info();
    const AcquireReport& report = adapter.lease->report();
    AppliedAdapter& applied = task.summary.adapters.emplace_back();
    applied.name = info.name;
    applied.content_sha256 = info.content_sha256;
    applied.weight = adapter.use.weight;
    applied.range = adapter.use.range;
    applied.blocks = adapter.use.blocks;
    applied.tier_found = report.tier_found;
    applied.matched_modules = info.matched_modules;
    applied.unmatched_keys = info.unmatched_keys;
    applied.notes = info.notes;
    applied.load_seconds = report.seconds();
    cost.lookup_seconds += report.lookup_seconds;
    cost.read_seconds += report.read_seconds;
    cost.parse_seconds += report.parse_seconds;
    cost.upload_seconds += report.upload_seconds;
    coldest = std::min(coldest, report.tier_found);
  }
  return coldest;
}

void ObserveLoading(const SwapCost& cost, AdapterTier source, Metrics& metrics) {
  metrics.ObserveSwapPhase(SwapPhase::kLookup, source, cost.lookup_seconds);
  if (source == AdapterTier::kDisk) {
    metrics.ObserveSwapPhase(SwapPhase::kRead, source, cost.read_seconds);
    metrics.ObserveSwapPhase(SwapPhase::kParse, source, cost.parse_seconds);
  }
  if (cost.upload_seconds > 0.0) {
    metrics.ObserveSwapPhase(SwapPhase::kUpload, source, cost.upload_seconds);
  }
}

void ObserveSwap(const SwapReport& report, AdapterTier source, double total_seconds, Metrics& metrics) {
  if (report.modules_merged > 0) {
    metrics.ObserveSwapPhase(SwapPhase::kApply, source, report.apply_seconds);
  }
  if (report.modules_restored > 0) {
    metrics.ObserveSwapPhase(SwapPhase::kRestore, source, report.restore_seconds);
  }
  metrics.ObserveSwapPhase(SwapPhase::kTotal, source, total_seconds);
}

}  // namespace hotlora
