// A loaded model at work: units in, samples out.
//
// Translates between the wire (runner.proto) and the engine: prompts, sampling settings, budget
// forcing and stop ids in; texts, ids, counts and timings out. One thread uses it.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "assay/v1/runner.pb.h"
#include "base/clock.h"
#include "engine/runtime/engine.h"
#include "worker/runner/model_text.h"
#include "worker/runner/throughput_log.h"

namespace assay::worker {

class ModelSession {
 public:
  // Errors of tokenizer and engine, as they say them; RESOURCE_EXHAUSTED is a lack of memory;
  // FAILED_PRECONDITION when the engine's numerics are not those that the cell wants.
  // `device`: EngineOptions.
  static absl::StatusOr<std::unique_ptr<ModelSession>> Load(const v1::LoadModel& command,
                                                            const std::string& device,
                                                            const Clock* clock = RealClock::Get());

  // Queues the units; returns those that cannot be prompted. A unit that is here already replaces
  // its earlier self.
  std::vector<v1::UnitFailed> Submit(const v1::SubmitUnits& command);
  void Cancel(const v1::CancelUnits& command);

  bool idle() const { return engine_->idle(); }

  // One step of the engine, and the samples that are complete. An error is fatal.
  absl::StatusOr<std::vector<v1::Sample>> Step();

  // Counters, and the rate since the last call or since there was nothing to do.
  v1::EngineProgress Progress();

  const engine::Engine& engine() const { return *engine_; }
  int max_num_seqs() const { return max_num_seqs_; }

 private:
  using Key = std::tuple<int64_t, int32_t, int32_t>;
  struct Pending {
    v1::Sample sample;  // what is known from the start
    std::string end_of_thinking;
  };

  ModelSession(std::unique_ptr<ModelText> text, std::unique_ptr<engine::Engine> engine,
               int max_num_seqs, const Clock* clock)
      : clock_(clock),
        text_(std::move(text)),
        engine_(std::move(engine)),
        max_num_seqs_(max_num_seqs),
        throughput_log_(clock) {}

  absl::Status SubmitOne(const v1::SubmitUnits& command, const v1::RunnerUnit& unit);
  void Drop(const Key& key);
  v1::Sample ToSample(Pending pending, const engine::GenerationResult& result) const;

  const Clock* const clock_;
  const std::unique_ptr<ModelText> text_;
  const std::unique_ptr<engine::Engine> engine_;
  const int max_num_seqs_;
  int64_t next_id_ = 1;
  std::map<int64_t, Pending> pending_;  // by the engine's request id
  std::map<Key, int64_t> id_of_key_;
  ThroughputLog throughput_log_;
  absl::Duration rate_time_;
  int64_t rate_tokens_ = 0;
};

}  // namespace assay::worker
