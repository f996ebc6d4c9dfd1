#include "engine/runtime/makespan.h"

#include <algorithm>
#include <fstream>
#include <random>
#include <sstream>
#include <utility>

#include "base/status.h"
#include "engine/model/linears.h"

namespace assay::engine {
namespace {

// Of a token in all linears but the head.
double LinearFlops(const ModelConfig& config) {
  double parameters = 0;
  for (const LinearInfo& info : QuantizableLinears(config)) {
    parameters += static_cast<double>(info.out_features) * info.in_features;
  }
  return 2 * parameters;
}

GenerationRequest MakeRequest(int64_t id, const RequestLength& length, int32_t vocab_size) {
  std::mt19937_64 random(static_cast<uint64_t>(id));
  GenerationRequest request;
  request.id = id;
  for (int64_t i = 0; i < length.prompt_tokens; ++i) {
    request.prompt_ids.push_back(
        static_cast<int32_t>(random() % static_cast<uint64_t>(vocab_size)));
  }
  request.max_new_tokens = length.output_tokens;
  request.sampling = {.temperature = 0.6f, .top_p = 0.95f, .seed = static_cast<uint64_t>(id)};
  return request;
}

}  // namespace

absl::StatusOr<std::vector<RequestLength>> ReadLengths(const std::string& path) {
  std::ifstream file(path);
  if (!file) return NotFound("{}: no such file of lengths", path);
  std::vector<RequestLength> lengths;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.empty() || line.starts_with('#')) continue;
    std::istringstream fields(line);
    RequestLength length;
    std::string rest;
    if (!(fields >> length.prompt_tokens >> length.output_tokens) || fields >> rest ||
        length.prompt_tokens < 1 || length.output_tokens < 1) {
      return InvalidArgument(
          "{}:{}: '{}' is not two positive numbers, tokens of a prompt and of its answer", path,
          number, line);
    }
    lengths.push_back(length);
  }
  if (lengths.empty()) return InvalidArgument("{}: no lengths", path);
  return lengths;
}

absl::StatusOr<Makespan> MeasureMakespan(Engine* engine, std::span<const RequestLength> lengths,
                                         const MakespanOptions& options) {
  ASSAY_CHECK(engine->idle() && options.lease_size > 0, "lease_size={}", options.lease_size);
  const double linear_flops = LinearFlops(engine->config());
  const StepModel& model = options.model;
  const EngineStats before = engine->stats();
  EngineStats last = before;
  Makespan result;
  result.num_requests = std::ssize(lengths);
  int64_t next = 0;
  const absl::Duration start = options.clock->Monotonic();
  while (next < result.num_requests || !engine->idle()) {
    if (next < result.num_requests && last.num_waiting < options.lease_size) {
      const int64_t end = std::min(next + options.lease_size, result.num_requests);
      for (; next < end; ++next) {
        engine->Submit(
            MakeRequest(next, lengths[static_cast<size_t>(next)], engine->config().vocab_size));
      }
    }
    ASSAY_ASSIGN_OR_RETURN(const std::vector<GenerationResult> finished, engine->Step());
    for (const GenerationResult& done : finished) {
      if (done.finish_reason == FinishReason::kRejected) {
        return InvalidArgument("request {} of {} and {} tokens: {}", done.id,
                               lengths[static_cast<size_t>(done.id)].prompt_tokens,
                               lengths[static_cast<size_t>(done.id)].output_tokens, done.error);
      }
      result.output_tokens += std::ssize(done.output_ids);
    }
    const EngineStats now = engine->stats();
    const double bytes = now.bytes_read - last.bytes_read;
    if (bytes > 0) {
      const double flops =
          static_cast<double>(now.tokens_computed - last.tokens_computed) * linear_flops;
      const double cache_bytes = now.cache_bytes_read - last.cache_bytes_read;
      const double reading_s = (bytes - cache_bytes) / model.linear_share / model.bytes_per_s +
                               cache_bytes / model.attention_share / model.bytes_per_s;
      const double computing_s = flops / model.flops_per_s;
      result.bound_s += std::max(bytes / model.bytes_per_s, computing_s) + model.fixed_s;
      const bool has_prompts = now.prompt_tokens_computed > last.prompt_tokens_computed;
      StepTimes& steps = has_prompts ? result.prompt_steps : result.decode_steps;
      ++steps.count;
      steps.device_s += absl::ToDoubleSeconds(now.device_time - last.device_time);
      steps.predicted_s += std::max(reading_s, computing_s) + model.fixed_s;
    }
    last = now;
  }
  result.wall_s = absl::ToDoubleSeconds(options.clock->Monotonic() - start);
  result.device_s = absl::ToDoubleSeconds(last.device_time - before.device_time);
  result.bytes = last.bytes_read - before.bytes_read;
  result.cache_bytes = last.cache_bytes_read - before.cache_bytes_read;
  result.prompt_tokens = last.prompt_tokens - before.prompt_tokens;
  result.num_preemptions = last.num_preemptions - before.num_preemptions;
  result.num_swaps = last.num_swaps - before.num_swaps;
  return result;
}

}  // namespace assay::engine
