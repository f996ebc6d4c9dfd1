// Embedding, RMSNorm with the residual, and SwiGLU against the CPU's loops.
#include <gtest/gtest.h>

#include "engine/kernels/cpu/kernel_table.h"
#include "engine/kernels/cuda/embedding.h"
#include "engine/kernels/cuda/rms_norm.h"
#include "engine/kernels/cuda/swiglu.h"
#include "tests/kernels/cuda_fixture.h"

namespace assay::engine::cuda {
namespace {

class ElementwiseTest : public CudaTest {
 protected:
  std::mt19937_64 random_{std::random_device{}()};
};

TEST_F(ElementwiseTest, AnEmbeddingIsItsRowOfTheTable) {
  for (const int hidden : {40, 18, 3584}) {
    constexpr int kVocab = 50;
    const std::vector<float> table = RandomHalves(int64_t{kVocab} * hidden, 1, &random_);
    const std::vector<int32_t> ids = {3, 49, 0, 3, kVocab, -1};
    const auto out = OnDevice<__nv_bfloat16>(std::ssize(ids) * hidden);
    const auto device_ids = ToDevice(ids);
    const auto device_table = ToDevice(Halves(table));
    ASSERT_OK(GatherEmbeddings({.ids = device_ids.data(),
                                .table = device_table.data(),
                                .out = out.data(),
                                .num_rows = static_cast<int>(ids.size()),
                                .hidden_size = hidden,
                                .vocab_size = kVocab},
                               stream()));
    const std::vector<float> rows = Floats(ToHost(out));
    for (size_t row = 0; row < ids.size(); ++row) {
      const bool known = ids[row] >= 0 && ids[row] < kVocab;
      for (int i = 0; i < hidden; ++i) {
        const float expected = known ? table[ids[row] * hidden + i] : 0;
        ASSERT_EQ(rows[row * hidden + i], expected) << hidden << " row " << row;
      }
    }
  }
}

TEST_F(ElementwiseTest, RmsNormAddsTheUpdateAndNormsWhatItStores) {
  constexpr int kRows = 5;
  for (const int size : {1, 18, 40, 128, 896, 3584, 4096, 5120, 8192, 16384, 16392}) {
    for (const bool with_update : {false, true}) {
      SCOPED_TRACE(::testing::Message() << size << (with_update ? " with update" : ""));
      const std::vector<float> hidden = RandomHalves(int64_t{kRows} * size, 2, &random_);
      const std::vector<float> update = RandomHalves(int64_t{kRows} * size, 1, &random_);
      const std::vector<float> weight = RandomHalves(size, 1, &random_);
      std::vector<float> sums(hidden);
      std::vector<float> normed(hidden.size());
      for (size_t i = 0; with_update && i < sums.size(); ++i)
        sums[i] = Rounded(sums[i] + update[i]);
      for (int row = 0; row < kRows; ++row) {
        float* y = normed.data() + row * size;
        cpu::Kernels().rms_norm(sums.data() + row * size, weight.data(), 1e-6f, size, y);
        cpu::Kernels().round_to_bf16(y, size);
      }
      const auto device_hidden = ToDevice(Halves(hidden));
      const auto device_update = ToDevice(Halves(update));
      const auto device_weight = ToDevice(weight);
      const auto device_normed = OnDevice<__nv_bfloat16>(int64_t{kRows} * size);
      ASSERT_OK(RmsNorm({.hidden = device_hidden.data(),
                         .update = with_update ? device_update.data() : nullptr,
                         .weight = device_weight.data(),
                         .sum = device_hidden.data(),
                         .normed = device_normed.data(),
                         .num_rows = kRows,
                         .size = size,
                         .eps = 1e-6f},
                        stream()));
      EXPECT_EQ(Floats(ToHost(device_hidden)), sums);
      ExpectOneRoundingApart(Floats(ToHost(device_normed)), normed);
    }
  }
}

TEST_F(ElementwiseTest, RmsNormOfChosenRowsIsThatOfAllRows) {
  constexpr int kRows = 7;
  for (const int size : {40, 3584}) {
    const auto hidden = ToDevice(Halves(RandomHalves(int64_t{kRows} * size, 2, &random_)));
    const auto update = ToDevice(Halves(RandomHalves(int64_t{kRows} * size, 2, &random_)));
    const auto weight = ToDevice(RandomHalves(size, 1, &random_));
    const std::vector<int32_t> chosen = {6, 0, 3};
    const auto rows = ToDevice(chosen);
    const auto all = OnDevice<__nv_bfloat16>(int64_t{kRows} * size);
    const auto some = OnDevice<__nv_bfloat16>(std::ssize(chosen) * size);
    RmsNormArgs args = {.hidden = hidden.data(),
                        .update = update.data(),
                        .weight = weight.data(),
                        .normed = all.data(),
                        .num_rows = kRows,
                        .size = size,
                        .eps = 1e-5f};
    ASSERT_OK(RmsNorm(args, stream()));
    args.rows = rows.data();
    args.normed = some.data();
    args.num_rows = static_cast<int>(chosen.size());
    ASSERT_OK(RmsNorm(args, stream()));
    const std::vector<float> expected = Floats(ToHost(all));
    const std::vector<float> actual = Floats(ToHost(some));
    for (size_t row = 0; row < chosen.size(); ++row) {
      for (int i = 0; i < size; ++i) {
        ASSERT_EQ(actual[row * size + i], expected[chosen[row] * size + i]);
      }
    }
  }
}

TEST_F(ElementwiseTest, SwigluIsTheCpusUpToARounding) {
  constexpr int kRows = 3;
  for (const int size : {72, 5, 384, 18944}) {
    const std::vector<float> gate_up = RandomHalves(int64_t{kRows} * 2 * size, 4, &random_);
    std::vector<float> expected(static_cast<size_t>(kRows) * size);
    for (int row = 0; row < kRows; ++row) {
      const float* gates = gate_up.data() + row * 2 * size;
      float* y = expected.data() + row * size;
      cpu::Kernels().silu_multiply(gates, gates + size, size, y);
      cpu::Kernels().round_to_bf16(y, size);
    }
    const auto in = ToDevice(Halves(gate_up));
    const auto out = OnDevice<__nv_bfloat16>(int64_t{kRows} * size);
    ASSERT_OK(Swiglu({.gate_up = in.data(), .out = out.data(), .num_rows = kRows, .size = size},
                     stream()));
    ExpectOneRoundingApart(Floats(ToHost(out)), expected);
  }
}

}  // namespace
}  // namespace assay::engine::cuda
