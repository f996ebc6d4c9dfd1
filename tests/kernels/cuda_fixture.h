// What tests of CUDA kernels share: a device or a skip, a stream, and arrays that go there and
// back.
#pragma once

#include <cuda_bf16.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "engine/kernels/cuda/device.h"
#include "tests/testing/status_matchers.h"

namespace assay::engine::cuda {

inline constexpr char kNoGpu[] = "no GPU on this machine";

class CudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (NumDevices() == 0) GTEST_SKIP() << kNoGpu;
    ASSERT_OK(UseDevice(0));
    ASSERT_OK_AND_ASSIGN(stream_, MakeStream());
  }

  cudaStream_t stream() const { return stream_.get(); }

  template <typename T>
  DeviceBuffer<T> ToDevice(const std::vector<T>& values) const {
    auto buffer = DeviceBuffer<T>::Allocate(static_cast<int64_t>(values.size()));
    EXPECT_OK(buffer);
    EXPECT_OK(buffer->CopyFrom(values, stream()));
    EXPECT_EQ(cudaStreamSynchronize(stream()), cudaSuccess);
    return *std::move(buffer);
  }

  template <typename T>
  DeviceBuffer<T> OnDevice(int64_t size) const {
    auto buffer = DeviceBuffer<T>::Allocate(size);
    EXPECT_OK(buffer);
    return *std::move(buffer);
  }

  template <typename T>
  std::vector<T> ToHost(const DeviceBuffer<T>& buffer) const {
    std::vector<T> values(static_cast<size_t>(buffer.size()));
    EXPECT_OK(buffer.CopyTo(std::span(values), stream()));
    EXPECT_EQ(cudaStreamSynchronize(stream()), cudaSuccess);
    return values;
  }

 private:
  Stream stream_;
};

inline float Rounded(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

// Normal values, rounded to bf16.
inline std::vector<float> RandomHalves(int64_t size, float deviation, std::mt19937_64* random) {
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = Rounded(normal(*random));
  return values;
}

inline std::vector<__nv_bfloat16> Halves(const std::vector<float>& values) {
  std::vector<__nv_bfloat16> halves(values.size());
  for (size_t i = 0; i < values.size(); ++i) halves[i] = __float2bfloat16_rn(values[i]);
  return halves;
}

inline std::vector<float> Floats(const std::vector<__nv_bfloat16>& halves) {
  std::vector<float> values(halves.size());
  for (size_t i = 0; i < halves.size(); ++i) values[i] = __bfloat162float(halves[i]);
  return values;
}

// Numbers that are equal but for a last-bit difference in float32 and the rounding to bf16 that
// follows: one step of bf16, 2^-7 of the number at most.
inline void ExpectOneRoundingApart(const std::vector<float>& actual,
                                   const std::vector<float>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], 0x1.0p-7f * std::abs(expected[i]) + 1e-30f) << "at " << i;
  }
}

}  // namespace assay::engine::cuda
