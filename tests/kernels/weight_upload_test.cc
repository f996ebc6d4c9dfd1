#include "engine/decoder/cuda/weight_upload.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "tests/kernels/cuda_fixture.h"
#include "tests/testing/status_matchers.h"

namespace assay::engine::cuda {
namespace {

using assay::testing::IsError;

class WeightUploadTest : public CudaTest {
 protected:
  static WeightUpload::Fill From(const std::vector<int32_t>& values) {
    return [&values](int64_t offset, int64_t size, std::byte* out) {
      std::memcpy(out, reinterpret_cast<const std::byte*>(values.data()) + offset,
                  static_cast<size_t>(size));
      return absl::OkStatus();
    };
  }
};

// 50 MB go through many pieces, 40 bytes through a part of one.
TEST_F(WeightUploadTest, EveryByteArrives) {
  ASSERT_OK_AND_ASSIGN(WeightUpload upload, WeightUpload::Make(stream()));
  for (const int64_t size : {int64_t{10}, int64_t{12'500'001}}) {
    std::vector<int32_t> values(static_cast<size_t>(size));
    std::iota(values.begin(), values.end(), 7);
    const auto destination = OnDevice<int32_t>(size);
    ASSERT_OK(upload.Copy(destination.data(), size * 4, From(values)));
    ASSERT_OK(upload.Finish());
    EXPECT_TRUE(ToHost(destination) == values);
  }
}

// What is on the stream between two copies reads the first's data, however late it runs.
TEST_F(WeightUploadTest, ACopyHasItsPlaceOnTheStream) {
  constexpr int64_t kSize = 8'000'000;
  constexpr int kRounds = 8;
  ASSERT_OK_AND_ASSIGN(WeightUpload upload, WeightUpload::Make(stream()));
  const auto staging = OnDevice<int32_t>(kSize);
  const auto taken = OnDevice<int32_t>(kRounds * kSize);
  for (int32_t round = 0; round < kRounds; ++round) {
    const std::vector<int32_t> values(kSize, round);
    ASSERT_OK(upload.Copy(staging.data(), kSize * 4, From(values)));
    ASSERT_EQ(cudaMemcpyAsync(taken.data() + round * kSize, staging.data(), kSize * 4,
                              cudaMemcpyDeviceToDevice, stream()),
              cudaSuccess);
  }
  ASSERT_OK(upload.Finish());
  const std::vector<int32_t> all = ToHost(taken);
  for (int32_t round = 0; round < kRounds; ++round) {
    const auto begin = all.begin() + round * kSize;
    EXPECT_EQ(std::count(begin, begin + kSize, round), kSize) << "round " << round;
  }
}

TEST_F(WeightUploadTest, AnErrorOfASourceIsReturned) {
  ASSERT_OK_AND_ASSIGN(WeightUpload upload, WeightUpload::Make(stream()));
  const auto destination = OnDevice<uint8_t>(40'000'000);
  const auto fails_later = [](int64_t offset, int64_t, std::byte*) {
    return offset < 20'000'000 ? absl::OkStatus() : absl::DataLossError("the file ends");
  };
  EXPECT_THAT(upload.Copy(destination.data(), destination.size(), fails_later),
              IsError(absl::StatusCode::kDataLoss, "the file ends"));
}

}  // namespace
}  // namespace assay::engine::cuda
