#include "tests/testing/worker_messages.h"

#include <numeric>
#include <vector>

#include "storage/text/text_codec.h"

namespace assay::testing {

v1::Sample MakeSample(const v1::UnitKey& unit, const std::string& lease_id, int64_t epoch,
                      uint64_t seed, const std::string& text, int num_tokens) {
  std::vector<int32_t> ids(static_cast<size_t>(num_tokens));
  std::iota(ids.begin(), ids.end(), 1);
  v1::Sample sample;
  *sample.mutable_unit() = unit;
  sample.set_lease_id(lease_id);
  sample.set_epoch(epoch);
  sample.set_seed(seed);
  sample.set_text_zstd(storage::CompressText(text));
  sample.set_token_ids_zstd(storage::CompressTokenIds(ids));
  sample.set_prompt_sha256(std::string(32, 'p'));
  sample.set_prompt_tokens(9);
  sample.set_completion_tokens(num_tokens);
  sample.set_thinking_tokens(-1);
  sample.set_finish_reason(v1::FINISH_REASON_STOP);
  sample.set_e2e_us(10);
  sample.set_mean_batch_size(1);
  sample.set_finished_time_us(1'700'000'000'000'000);
  return sample;
}

}  // namespace assay::testing
