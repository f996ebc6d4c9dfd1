#include "storage/stores/check_sample.h"

#include <cmath>

#include "base/status.h"

namespace assay::storage {
namespace {

constexpr size_t kMaxPackedBytes = 8 << 20;
constexpr size_t kMaxNameBytes = 200;
constexpr size_t kMaxDetailBytes = 64 << 10;
constexpr int64_t kMaxTokens = int64_t{1} << 31;

absl::Status CheckRange(const char* field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidArgument("{} is {}; it must be {} to {}", field, value, low, high);
}

absl::Status CheckSize(const char* field, size_t size, size_t limit) {
  if (size <= limit) return absl::OkStatus();
  return InvalidArgument("{} has {} bytes; at most {} are allowed", field, size, limit);
}

absl::Status CheckFields(const SampleRecord& sample) {
  constexpr int64_t kMaxSpan = int64_t{366} * 24 * 3600 * 1'000'000;  // a year
  ASSAY_RETURN_IF_ERROR(CheckSize("text_zstd", sample.text_zstd.size(), kMaxPackedBytes));
  ASSAY_RETURN_IF_ERROR(CheckSize("token_ids_zstd", sample.token_ids_zstd.size(), kMaxPackedBytes));
  ASSAY_RETURN_IF_ERROR(CheckSize("lease_id", sample.lease_id.size(), kMaxNameBytes));
  if (sample.prompt_sha256.size() != 32) {
    return InvalidArgument("prompt_sha256 has {} bytes; it must have 32",
                           sample.prompt_sha256.size());
  }
  ASSAY_RETURN_IF_ERROR(CheckRange("prompt_tokens", sample.prompt_tokens, 0, kMaxTokens));
  ASSAY_RETURN_IF_ERROR(CheckRange("completion_tokens", sample.completion_tokens, 0, kMaxTokens));
  ASSAY_RETURN_IF_ERROR(
      CheckRange("thinking_tokens", sample.thinking_tokens, -1, sample.completion_tokens));
  ASSAY_RETURN_IF_ERROR(CheckRange("finish_reason", sample.finish_reason, 1, 4));
  ASSAY_RETURN_IF_ERROR(CheckRange("queue_us", sample.queue_us, 0, kMaxSpan));
  ASSAY_RETURN_IF_ERROR(CheckRange("ttft_us", sample.ttft_us, 0, kMaxSpan));
  ASSAY_RETURN_IF_ERROR(CheckRange("e2e_us", sample.e2e_us, 0, kMaxSpan));
  ASSAY_RETURN_IF_ERROR(CheckRange("num_preemptions", sample.num_preemptions, 0, kMaxTokens));
  if (!std::isfinite(sample.mean_batch_size) || sample.mean_batch_size < 0) {
    return InvalidArgument("mean_batch_size is {}; it must be a number from 0 on",
                           sample.mean_batch_size);
  }
  if (sample.grade.has_value()) return CheckGrade(*sample.grade);
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSample(const SampleRecord& sample) {
  const absl::Status status = CheckFields(sample);
  if (status.ok()) return status;
  return Annotate(status, fmt::format("sample of cell {}, item {}, repeat {}", sample.unit.cell_id,
                                      sample.unit.item_index, sample.unit.repeat));
}

absl::Status CheckGrade(const GradeRecord& grade) {
  ASSAY_RETURN_IF_ERROR(CheckRange("grade.verdict", grade.verdict, 1, 4));
  ASSAY_RETURN_IF_ERROR(CheckSize("grade.grader", grade.grader.size(), kMaxNameBytes));
  ASSAY_RETURN_IF_ERROR(
      CheckSize("grade.grader_version", grade.grader_version.size(), kMaxNameBytes));
  ASSAY_RETURN_IF_ERROR(CheckSize("grade.extracted", grade.extracted.size(), kMaxDetailBytes));
  return CheckSize("grade.detail", grade.detail.size(), kMaxDetailBytes);
}

}  // namespace assay::storage
