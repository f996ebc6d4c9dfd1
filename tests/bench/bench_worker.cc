#include "tests/bench/bench_worker.h"

#include <random>

#include "storage/text/text_codec.h"
#include "tests/bench/filled_store.h"
#include "tests/testing/worker_messages.h"

namespace assay::bench {

SampleBodies MakeBodies(int num, size_t text_bytes) {
  std::mt19937_64 random(7);
  SampleBodies bodies;
  bodies.num_tokens = static_cast<int64_t>(text_bytes / 4);
  for (int i = 0; i < num; ++i) {
    bodies.texts_zstd.push_back(storage::CompressText(MakeText(text_bytes, &random)));
    std::vector<int32_t> ids(text_bytes / 4);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % 4'000);
    bodies.token_ids_zstd.push_back(storage::CompressTokenIds(ids));
  }
  return bodies;
}

v1::Hello MakeHello(const std::string& worker_id) {
  v1::Hello hello;
  hello.set_worker_id(worker_id);
  hello.set_incarnation("1");
  hello.set_version("0.1.0");
  hello.set_protocol_revision(1);
  hello.mutable_provenance()->set_device("a benchmark");
  v1::Slot* slot = hello.add_slots();
  slot->set_index(0);
  slot->set_tensor_parallel_size(1);
  return hello;
}

v1::Heartbeat MakeHeartbeat(int num_free_lanes) {
  v1::Heartbeat heartbeat;
  v1::SlotState* slot = heartbeat.add_slots();
  slot->set_index(0);
  slot->set_phase(v1::SlotState::PHASE_RUNNING);
  slot->set_num_free_lanes(num_free_lanes);
  slot->set_tokens_per_s(1000);
  return heartbeat;
}

v1::Sample MakeSample(const v1::Grant& grant, const v1::Unit& unit, const SampleBodies& bodies,
                      size_t which) {
  v1::Sample sample =
      testing::MakeSample(unit.key(), grant.lease_id(), unit.epoch(), unit.seed(), "");
  sample.set_text_zstd(bodies.texts_zstd[which % bodies.texts_zstd.size()]);
  sample.set_token_ids_zstd(bodies.token_ids_zstd[which % bodies.token_ids_zstd.size()]);
  sample.set_completion_tokens(bodies.num_tokens);
  sample.mutable_grade()->set_grader(grant.grader());
  sample.mutable_grade()->set_grader_version("1");
  sample.mutable_grade()->set_verdict(v1::Grade::VERDICT_CORRECT);
  return sample;
}

}  // namespace assay::bench
