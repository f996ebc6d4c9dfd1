// Sequences of random projections, their paged cache on the device, and what the cache and
// attention must be by plain loops: codes by engine/quant, softmax in float64.
#pragma once

#include <absl/status/status.h>
#include <cuda_bf16.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "engine/kernels/cuda/attention/attention.h"
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/kv_pages.h"
#include "engine/kernels/cuda/kv_write.h"
#include "engine/quant/description.h"

namespace assay::engine::cuda {

struct KvCase {
  std::string name;
  CacheSpec key;
  CacheSpec value{.position = CacheSpec::Position::kAfterProjection};
  int head_dim = 128;
  int num_heads = 4;
  int num_kv_heads = 2;
  bool qk_norm = false;

  int group() const { return num_heads / num_kv_heads; }
};

std::ostream& operator<<(std::ostream& out, const KvCase& kv_case);

// bf16 pages; codes of some bits per token; KVQuant*-like keys (static, before RoPE or the bias).
KvCase Bf16Case();
KvCase PerTokenCase(int bits, bool hadamard, float clip_ratio);
KvCase StaticKeyCase(int bits, CacheSpec::Position position);

// A token's row of K or V as the cache must hold it.
struct ExpectedRow {
  std::vector<int> codes;      // unsigned; empty for bf16
  std::vector<double> values;  // what the codes decode to with the stored grid, or bf16 values
  uint32_t grid = 0;           // of per-token codes
};

class KvProblem {
 public:
  static constexpr int kLayers = 2;
  static constexpr int kLayer = 1;  // the one that is used

  // Sequences of these lengths, all of whose tokens are rows.
  KvProblem(const KvCase& kv_case, std::vector<int> context_lens, uint32_t seed);

  // Allocates, poisons and uploads everything; then writes the rows.
  absl::Status Upload();
  absl::Status Write();

  const KvCase& kv_case() const { return case_; }
  int num_sequences() const { return static_cast<int>(context_lens_.size()); }
  int context_len(int sequence) const { return context_lens_[Index(sequence)]; }
  int num_rows() const { return static_cast<int>(positions_.size()); }
  int RowOf(int sequence, int position) const { return first_rows_[Index(sequence)] + position; }
  const KvPageLayout& layout() const { return cache_.layout; }

  // Of all rows; or of the last row of each sequence from `first` on, in order.
  StepRows AllRows() const;
  StepRows LastRows(int first, int count) const;
  // Attention of rows whose queries and outputs are [rows] of `query` and `output`.
  AttentionArgs Attention(const StepRows& rows, const __nv_bfloat16* query,
                          __nv_bfloat16* output) const;
  const __nv_bfloat16* queries() const { return query_device_.data(); }  // [rows, heads, head_dim]
  // Queries of the sequences' last rows, [sequences, heads, head_dim].
  const __nv_bfloat16* last_queries() const { return last_query_device_.data(); }

  // What Write was given, [rows, heads + 2 * kv_heads, head_dim].
  const __nv_bfloat16* projections() const {
    return reinterpret_cast<const __nv_bfloat16*>(qkv_device_.data());
  }
  int64_t projection_size() const {
    return int64_t{case_.num_heads + 2 * case_.num_kv_heads} * case_.head_dim;
  }

  // What the device holds after Write.
  absl::StatusOr<std::vector<uint8_t>> DownloadCache() const;
  absl::StatusOr<std::vector<float>> DownloadQueries() const;
  const uint8_t* Page(const std::vector<uint8_t>& cache, int sequence, int kv_head,
                      int position) const;

  // What it must hold.
  std::vector<float> ExpectedQuery(int row, int head) const;  // before the rounding of a transform
  ExpectedRow ExpectedKey(int sequence, int position, int kv_head) const;
  ExpectedRow ExpectedValue(int sequence, int position, int kv_head) const;

  // Attention of a row by the expected cache and the device's query. `rounds_static_keys`: keys
  // stored before RoPE are rounded to bf16 after their bias and after RoPE, as the CPU does (the
  // kernels for which many rows share a key, and the plain one); the decode kernel does not round
  // them.
  struct Expected {
    std::vector<double> output;
    std::vector<double> tolerance;  // how far a kernel may be off, per element
  };
  Expected ExpectedAttention(int sequence, int position, int head, bool rounds_static_keys,
                             const std::vector<float>& device_queries) const;

 private:
  static size_t Index(int i) { return static_cast<size_t>(i); }
  std::vector<float> Projection(int row, int slot) const;  // head slot of q, k, v
  void Normalize(std::vector<float>* x, const std::vector<float>& weight) const;
  static void Multiply(std::vector<float>* x, const std::vector<float>& matrix);
  void Rotate(std::vector<float>* x, int position) const;
  std::vector<double> DecodeStaticKey(const std::vector<int>& codes, int position, int kv_head,
                                      bool rounds) const;

  KvCase case_;
  std::vector<int> context_lens_;
  std::vector<int> first_rows_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> sequences_;
  std::vector<int32_t> last_positions_;
  std::vector<int32_t> block_tables_;
  int block_table_stride_ = 0;
  int num_blocks_ = 0;
  std::vector<uint16_t> qkv_;     // bf16
  std::vector<float> key_bias_;   // [kv_heads, head_dim]
  std::vector<float> key_scale_;  // likewise
  std::vector<float> key_zero_;
  std::vector<float> q_norm_;  // [head_dim]
  std::vector<float> k_norm_;
  std::vector<float> key_matrix_;  // [head_dim, head_dim]
  std::vector<float> query_matrix_;
  std::vector<float> value_matrix_;
  std::vector<float> cosines_;
  std::vector<float> sines_;
  // Keys and values are asked for by every head and row again.
  mutable std::vector<std::vector<double>> decoded_[3];  // keys, rounded static keys, values

  KvCache cache_;
  DeviceBuffer<uint8_t> cache_device_;
  DeviceBuffer<uint16_t> qkv_device_;
  DeviceBuffer<__nv_bfloat16> query_device_;
  DeviceBuffer<__nv_bfloat16> last_query_device_;
  DeviceBuffer<int32_t> positions_device_;
  DeviceBuffer<int32_t> sequences_device_;
  DeviceBuffer<int32_t> last_positions_device_;
  DeviceBuffer<int32_t> block_tables_device_;
  DeviceBuffer<float> key_bias_device_;
  DeviceBuffer<float> key_scale_device_;
  DeviceBuffer<float> key_zero_device_;
  DeviceBuffer<float> q_norm_device_;
  DeviceBuffer<float> k_norm_device_;
  DeviceBuffer<float> key_matrix_device_;
  DeviceBuffer<float> query_matrix_device_;
  DeviceBuffer<float> value_matrix_device_;
  DeviceBuffer<float> cosines_device_;
  DeviceBuffer<float> sines_device_;
};

float FromBf16(uint16_t bits);
uint16_t ToBf16(float x);  // to nearest, ties to even

}  // namespace assay::engine::cuda
