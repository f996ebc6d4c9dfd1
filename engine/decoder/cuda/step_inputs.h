// What a step reads besides weights and cache: tokens, positions, block tables, sampling
// parameters. Written by the host into pinned memory, read by the kernels at the same offsets of a
// device buffer, so that a captured graph finds every step's inputs where it found the first's.
// There are two pinned buffers: while the inputs of one step wait for their copy, the host writes
// those of the next.
//
// Not thread-safe. The host may write again when the copies of the last Upload are done, or into
// the other buffer after Turn.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "engine/kernels/cuda/attention/attention.h"
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/sample.h"

namespace assay::engine::cuda {

class StepInputs {
 public:
  struct Limits {
    int max_rows = 0;
    int max_sampled = 0;
    int max_sequences = 0;
    int max_tiles = 0;
    int table_stride = 0;  // blocks of one sequence
  };
  static int64_t Bytes(const Limits& limits);
  static absl::StatusOr<StepInputs> Make(const Limits& limits);

  // The same arrays on either side.
  struct View {
    int32_t* ids = nullptr;           // [max_rows]
    int32_t* positions = nullptr;     // [max_rows]
    int32_t* sequences = nullptr;     // [max_rows]: row of the block tables
    int32_t* sampled_rows = nullptr;  // [max_sampled]
    RowSampling* sampling = nullptr;  // [max_sampled]
    PrefillChunk* tiles = nullptr;    // [max_tiles]
    int32_t* block_tables = nullptr;  // [max_sequences, table_stride]
  };
  const View& host() const { return host_[side_]; }
  const View& device() const { return device_; }
  const Limits& limits() const { return limits_; }

  // Goes on with the other buffer, once its last Upload is done.
  absl::Status Turn();

  // A sequence's blocks. Remembers what has changed since the last Upload: a table changes once in
  // 64 tokens.
  void SetBlockTable(int sequence, std::span<const int32_t> blocks);

  // All but the block tables, and those of them that have changed.
  absl::Status Upload(cudaStream_t stream);

 private:
  static View ViewOf(const Limits& limits, std::byte* base, int64_t* size);

  Limits limits_;
  PinnedBuffer<std::byte> pinned_[2];
  Event uploaded_[2];
  DeviceBuffer<std::byte> memory_;
  View host_[2];
  int side_ = 0;
  View device_;
  std::vector<int32_t> block_tables_;  // as the device has them after the next Upload
  int first_changed_ = 0;
  int last_changed_ = -1;
};

}  // namespace assay::engine::cuda
