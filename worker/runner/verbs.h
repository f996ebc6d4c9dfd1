// What people use the runner for directly; `assay generate` and its like exec it. Each function
// returns the exit code and says errors in one line on stderr.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

namespace assay::worker {

struct GenerateArguments {
  std::string model_dir;
  std::string prompt;
  std::string system;
  bool raw = false;  // the prompt as it stands, without the chat template
  bool json = false;
  int64_t max_tokens = 1024;
  int64_t max_model_len = 0;
  double temperature = 0.6;
  double top_p = 0.95;
  int top_k = 0;
  uint64_t seed = 0;
  std::string device = "cpu";
  int num_threads = 1;
};

// The answer as it comes, or one JSON object with text, ids, counts and timings at the end.
int Generate(const GenerateArguments& arguments, std::ostream& out);

// {"text"} in, {"ids"} out, line by line. Needs the tokenizer's files alone. The first bad line
// ends it and is named.
int Tokenize(const std::string& model_dir, bool add_special_tokens, std::istream& in,
             std::ostream& out);

// {"ids"} in, {"target_logprobs"} out: of each id but the first, given those before it.
int Score(const std::string& model_dir, const std::string& device, int num_threads,
          std::istream& in, std::ostream& out);

struct QuantizeVerbArguments {
  std::string model_dir;
  std::string method;
  std::string bits;     // "W-A-KV"; else from the three below
  int weight_bits = 0;  // 0: 16
  int activation_bits = 0;
  int kv_bits = 0;
  int group_size = 0;
  bool symmetric = false;
  bool pre_bias = false;
  int virtual_shards = 1;
  std::string calibration_file;
  std::string output_dir;
  int num_threads = 1;
};

struct BenchArguments {
  std::string model_dir;
  bool random_weights = false;  // model_dir needs no weights
  int weight_bits = 16;         // of random weights
  std::vector<int> devices = {0};
  std::vector<int> batch_sizes;       // empty: the defaults of engine/runtime/benchmark.h
  std::vector<int64_t> context_lens;  // likewise
  int64_t prefill_tokens = 8192;
  int num_steps = 10;
  // A whole job instead: requests of the lengths in a file (engine/runtime/makespan.h).
  std::string lengths_file;
  int num_lanes = 256;
  double kv_cache_gib = 0;       // 0: what is left
  double swap_gib = -1;          // EngineOptions::swap_bytes
  int look_ahead = -1;           // EngineOptions::look_ahead
  double prompt_step_cost = -1;  // likewise
  bool json = false;
};

// What the model's shape reaches on a GPU: a table, or one JSON object.
int Bench(const BenchArguments& arguments, std::ostream& out);

// Writes an artifact folder. Exit code 73 when the output exists.
int QuantizeVerb(const QuantizeVerbArguments& arguments, std::ostream& out);

}  // namespace assay::worker
