// Small models with random weights for tests of the whole CUDA engine: families, head sizes,
// caches.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "engine/model/config.h"
#include "engine/quant/description.h"
#include "engine/runtime/engine.h"
#include "tests/testing/paths.h"

namespace assay::engine::testing {

struct EngineCase {
  std::string name;
  ModelConfig config;
  QuantDescription description;  // of a cache that needs no tables
  // Static keys, with tables from calibration on the CPU: "16-16-4" of kvquant_star.
  std::string static_keys;
  bool pre_bias = false;
  int num_ranks = 2;  // where it is run by a gang

  bool quantizes() const { return description.quantizes_anything() || !static_keys.empty(); }
};

inline void PrintTo(const EngineCase& engine_case, std::ostream* out) { *out << engine_case.name; }

// head_dim 128 is the fast kernels'; the others take the plain ones.
ModelConfig EngineCaseConfig(Family family, int head_dim, int num_heads, int num_kv_heads);

// Keys and values of `bits` per token and head.
QuantDescription PerTokenCache(int bits, CacheSpec::Transform key_transform);

std::vector<EngineCase> EngineCases();

// Tokens by request.
using Outputs = std::map<int64_t, std::vector<int32_t>>;

std::vector<int32_t> RandomIds(int count, int vocab, uint64_t seed);

// A folder with a model of one case, and what the engine makes of requests to it.
class EngineCaseTest : public ::testing::TestWithParam<EngineCase> {
 protected:
  void SetUp() override;

  const std::string& model_dir() const { return model_dir_; }
  std::unique_ptr<Engine> Load(const EngineOptions& options) const;

  // Of 1 to 150 tokens, some of them with a common beginning.
  std::vector<int32_t> Prompt(int64_t id) const;

  // Answers of 20 to 90 tokens on the GPU, or the GPUs that the options name, to these requests
  // together or each alone.
  struct Company {
    std::vector<int64_t> ids;
    bool together = true;
    float temperature = 0;
  };
  Outputs Generate(EngineOptions options, const Company& company,
                   int64_t* num_preemptions = nullptr) const;

 private:
  ::assay::testing::TemporaryDirectory dir_;
  std::string model_dir_;
};

// 0 .. count - 1.
std::vector<int64_t> Requests(int count);

}  // namespace assay::engine::testing
