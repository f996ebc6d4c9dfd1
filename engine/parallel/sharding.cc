#include "engine/parallel/sharding.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "base/status.h"

namespace assay::engine {
namespace {

constexpr int64_t kRowAlignment = 8;  // 16 bytes of bf16

bool Divides(const ModelConfig& config, int size) {
  const bool kv_heads_divide = config.num_kv_heads % size == 0 || size % config.num_kv_heads == 0;
  return kv_heads_divide && config.num_heads % size == 0 && config.intermediate_size % size == 0;
}

std::string PossibleSizes(const ModelConfig& config) {
  std::string sizes;
  for (int size = 1; size <= kMaxTensorParallelSize; ++size) {
    if (Divides(config, size)) sizes += fmt::format("{}{}", sizes.empty() ? "" : ", ", size);
  }
  return sizes;
}

IndexRange PartOf(int64_t total, int rank, int size) {
  return {.begin = total * rank / size, .end = total * (rank + 1) / size};
}

IndexRange Scaled(const IndexRange& range, int64_t factor) {
  return {.begin = range.begin * factor, .end = range.end * factor};
}

}  // namespace

absl::StatusOr<ShardPlan> PlanShard(const ModelConfig& config, int rank, int size) {
  if (size < 1 || size > kMaxTensorParallelSize || rank < 0 || rank >= size) {
    return InvalidArgument("rank {} of {} GPUs: a gang has 1 to {}", rank, size,
                           kMaxTensorParallelSize);
  }
  if (!Divides(config, size)) {
    return InvalidArgument(
        "{} heads, {} KV heads and an intermediate size of {} do not divide over {} GPUs; "
        "possible are {}",
        config.num_heads, config.num_kv_heads, config.intermediate_size, size,
        PossibleSizes(config));
  }
  ShardPlan plan;
  plan.rank = rank;
  plan.size = size;
  plan.whole = config;
  plan.heads = PartOf(config.num_heads, rank, size);
  if (config.num_kv_heads % size == 0) {
    plan.kv_heads = PartOf(config.num_kv_heads, rank, size);
  } else {
    // The one that the rank's query heads read.
    const int64_t kv_head = plan.heads.begin / (config.num_heads / config.num_kv_heads);
    plan.kv_heads = {.begin = kv_head, .end = kv_head + 1};
  }
  plan.intermediate = PartOf(config.intermediate_size, rank, size);
  const int64_t rows = (config.vocab_size + size - 1) / size;
  plan.lm_head_rows = size == 1 ? rows : (rows + kRowAlignment - 1) / kRowAlignment * kRowAlignment;
  plan.vocab = {.begin = std::min<int64_t>(rank * plan.lm_head_rows, config.vocab_size),
                .end = std::min<int64_t>((rank + 1) * plan.lm_head_rows, config.vocab_size)};
  plan.local = config;
  plan.local.num_heads = static_cast<int>(plan.heads.size());
  plan.local.num_kv_heads = static_cast<int>(plan.kv_heads.size());
  plan.local.intermediate_size = static_cast<int>(plan.intermediate.size());
  return plan;
}

MatrixSlice ShardPlan::SliceOf(const LinearInfo& linear) const {
  const IndexRange all_rows = {.begin = 0, .end = linear.out_features};
  const IndexRange all_columns = {.begin = 0, .end = linear.in_features};
  switch (linear.kind) {
    case LinearKind::kQ:
      return {.rows = Scaled(heads, whole.head_dim), .columns = all_columns};
    case LinearKind::kK:
    case LinearKind::kV:
      return {.rows = Scaled(kv_heads, whole.head_dim), .columns = all_columns};
    case LinearKind::kO:
      return {.rows = all_rows, .columns = Scaled(heads, whole.head_dim)};
    case LinearKind::kGate:
    case LinearKind::kUp:
      return {.rows = intermediate, .columns = all_columns};
    case LinearKind::kDown:
      return {.rows = all_rows, .columns = intermediate};
  }
  return {.rows = all_rows, .columns = all_columns};
}

}  // namespace assay::engine
