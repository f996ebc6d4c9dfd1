// What a cell needs of a slot, from the dimensions in config.json. Pure functions.
//
//   weights  the linear layers at the method's weight bits, with 64 bits of scale and zero point
//   for
//            each group; embedding and output head as they are
//   cache    keys and values of one sequence of full length, which are four of a quarter: the
//   engine
//            loads no model without that, and makes use of whatever is left. Codes of fewer bits
//            take 3, 4 or 8 and a parameter of 4 bytes for each token and head; on a CPU all are
//            float32
//
// What a runtime takes beside weights and cache is left out: a slot's memory_bytes says what those
// two may take. Bytes are over all GPUs of a gang.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>

#include "storage/stores/records.h"

namespace assay::coordinator {

struct ModelDimensions {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;
  bool tie_word_embeddings = false;
  int32_t bit_width = 16;  // of the unquantized weights
};

// Of the text of a config.json; `name` is for errors. INVALID_ARGUMENT names the key that is
// missing or not a size. Whether the engine can run the model is not asked here.
absl::StatusOr<ModelDimensions> ParseModelDimensions(const std::string& json,
                                                     const std::string& name);

int64_t WeightBytes(const ModelDimensions& model, const storage::MethodRecord& method);

// Of one sequence. A gang of more GPUs than there are key-value heads keeps copies of them.
int64_t CacheBytes(const ModelDimensions& model, const storage::MethodRecord& method,
                   int64_t num_tokens, int32_t tensor_parallel_size);

// The longest sequence that the engine makes room for.
int64_t SequenceLength(const ModelDimensions& model, const storage::SamplingRecord& sampling);

// The sum, for a cell.
int64_t MemoryNeedBytes(const ModelDimensions& model, const storage::CellRecord& cell);

// The same on a slot without GPUs.
int64_t CpuMemoryNeedBytes(const ModelDimensions& model, const storage::CellRecord& cell);

// Of a method that calibrates: it runs the unquantized model over texts.
int64_t CalibrationNeedBytes(const ModelDimensions& model, int32_t tensor_parallel_size);

}  // namespace assay::coordinator
