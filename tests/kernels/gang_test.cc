// Exchanges between the ranks of a gang, two and four: each on a GPU of its own, or sharing what
// GPUs there are.
#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>

#include "engine/kernels/cuda/gather_columns.h"
#include "engine/kernels/cuda/random_fill.h"
#include "engine/kernels/cuda/rms_norm.h"
#include "engine/kernels/cuda/sum_norm.h"
#include "engine/parallel/nccl/nccl_communicator.h"
#include "engine/parallel/peer/peer_communicator.h"
#include "tests/kernels/cuda_fixture.h"
#include "tests/kernels/gang_devices.h"

namespace assay::engine::cuda {
namespace {

// Ranks that share a GPU share its context too: a kernel that is loaded when it is first launched
// would wait for one that waits for it. Before anything asks CUDA.
[[maybe_unused]] const int kEagerLoading = setenv("CUDA_MODULE_LOADING", "EAGER", 1);

class GangTest : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (NumDevices() == 0) GTEST_SKIP() << kNoGpu;
    devices_ = GangDevices(num_ranks());
    for (const int device : devices_) {
      ASSERT_OK(UseDevice(device));
      ASSERT_OK_AND_ASSIGN(streams_.emplace_back(), MakeStream());
    }
  }

  int num_ranks() const { return GetParam(); }

  void Connect(const std::vector<int64_t>& window_bytes) {
    ASSERT_OK_AND_ASSIGN(communicators_, MakePeerCommunicators(devices_, window_bytes));
  }

  cudaStream_t stream(int rank) const { return streams_[static_cast<size_t>(rank)].get(); }
  Communicator& communicator(int rank) const { return *communicators_[static_cast<size_t>(rank)]; }
  void Use(int rank) const {
    ASSERT_EQ(cudaSetDevice(devices_[static_cast<size_t>(rank)]), cudaSuccess);
  }

  template <typename T>
  DeviceBuffer<T> ToRank(int rank, const std::vector<T>& values) const {
    Use(rank);
    auto buffer = DeviceBuffer<T>::Allocate(static_cast<int64_t>(values.size()));
    EXPECT_OK(buffer);
    EXPECT_OK(buffer->CopyFrom(values, stream(rank)));
    EXPECT_EQ(cudaStreamSynchronize(stream(rank)), cudaSuccess);
    return *std::move(buffer);
  }

  template <typename T>
  std::vector<T> FromRank(int rank, const T* data, int64_t size) const {
    Use(rank);
    std::vector<T> values(static_cast<size_t>(size));
    EXPECT_EQ(cudaMemcpyAsync(values.data(), data, values.size() * sizeof(T), cudaMemcpyDefault,
                              stream(rank)),
              cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream(rank)), cudaSuccess);
    return values;
  }

  std::vector<uint16_t> Bits(int rank, const DeviceBuffer<__nv_bfloat16>& buffer) const {
    return FromRank(rank, reinterpret_cast<const uint16_t*>(buffer.data()), buffer.size());
  }

  std::vector<int> devices_;
  std::vector<Stream> streams_;
  Communicators communicators_;
};

// One rank's side of h += sum of parts, y = norm(h).
struct Side {
  DeviceBuffer<__nv_bfloat16> hidden;
  DeviceBuffer<__nv_bfloat16> normed;
  DeviceBuffer<float> weight;

  absl::Status Launch(const GangParts& parts, int rows, int size, cudaStream_t stream) const {
    return SumNorm({.hidden = hidden.data(),
                    .update = parts,
                    .weight = weight.data(),
                    .sum = hidden.data(),
                    .normed = normed.data(),
                    .num_rows = rows,
                    .size = size,
                    .eps = 1e-5f},
                   stream);
  }
};

// The bits of a single GPU's norm, given the sum of the parts rounded once.
TEST_P(GangTest, EveryRankSumsThePartsAndNormsLikeOneGpu) {
  std::mt19937_64 random(1);
  for (const int size : {256, 1536, 5120, 8192, 16384}) {
    for (const int rows : {1, 3, 64, 300}) {
      const int64_t elements = int64_t{rows} * size;
      Connect({elements * 2});
      const std::vector<float> hidden = RandomHalves(elements, 1, &random);
      std::vector<std::vector<float>> parts;
      std::vector<float> sum(hidden.size(), 0);
      for (int rank = 0; rank < num_ranks(); ++rank) {
        parts.push_back(RandomHalves(elements, 0.7f, &random));
        for (size_t i = 0; i < sum.size(); ++i) sum[i] += parts.back()[i];
      }
      std::vector<float> weight(static_cast<size_t>(size));
      for (float& w : weight) w = 0.5f + 0x1.0p-32f * static_cast<float>(random() % 0xFFFFFFFF);
      std::vector<Side> sides;
      for (int rank = 0; rank < num_ranks(); ++rank) {
        const std::vector<__nv_bfloat16> part = Halves(parts[static_cast<size_t>(rank)]);
        ASSERT_EQ(cudaMemcpy(communicator(rank).window(0), part.data(), part.size() * 2,
                             cudaMemcpyDefault),
                  cudaSuccess);
        sides.push_back({.hidden = ToRank(rank, Halves(hidden)),
                         .normed = ToRank(rank, Halves(hidden)),
                         .weight = ToRank(rank, weight)});
      }
      for (int rank = 0; rank < num_ranks(); ++rank) {
        Use(rank);
        ASSERT_OK_AND_ASSIGN(const GangParts gang,
                             communicator(rank).Share(0, elements * 2, stream(rank)));
        ASSERT_OK(sides[static_cast<size_t>(rank)].Launch(gang, rows, size, stream(rank)));
      }

      const auto alone = ToRank(0, Halves(hidden));
      const auto update = ToRank(0, Halves(sum));
      const auto normed = ToRank(0, Halves(hidden));
      ASSERT_OK(RmsNorm({.hidden = alone.data(),
                         .update = update.data(),
                         .weight = sides[0].weight.data(),
                         .sum = alone.data(),
                         .normed = normed.data(),
                         .num_rows = rows,
                         .size = size,
                         .eps = 1e-5f},
                        stream(0)));
      const std::vector<uint16_t> expected_sum = Bits(0, alone);
      const std::vector<uint16_t> expected_norm = Bits(0, normed);
      for (int rank = 0; rank < num_ranks(); ++rank) {
        const Side& side = sides[static_cast<size_t>(rank)];
        ASSERT_EQ(Bits(rank, side.hidden), expected_sum) << rows << " x " << size;
        ASSERT_EQ(Bits(rank, side.normed), expected_norm) << rows << " x " << size;
      }
    }
  }
}

// Nothing but the barrier of each exchange keeps the ranks in step: two windows in turn, written
// anew every round, one rank delayed now and then. A part that was read too early or overwritten
// too soon would change the residual for good.
TEST_P(GangTest, ManyExchangesInARowSeeEveryPartOnce) {
  constexpr int kRounds = 300;
  constexpr int kRows = 200;  // up to 1.6 MB: pushed and read in place, among four in two shots
  constexpr int kSize = 4096;
  constexpr int64_t kElements = int64_t{kRows} * kSize;
  Connect({kElements * 2, kElements * 2});
  const std::vector<__nv_bfloat16> zeros(kElements, __float2bfloat16_rn(0));
  const std::vector<float> ones(kSize, 1);
  std::vector<Side> sides;
  std::vector<DeviceBuffer<uint8_t>> delays;
  for (int rank = 0; rank < num_ranks(); ++rank) {
    sides.push_back({.hidden = ToRank(rank, zeros),
                     .normed = ToRank(rank, zeros),
                     .weight = ToRank(rank, ones)});
    delays.push_back(ToRank(rank, std::vector<uint8_t>(size_t{16} << 20)));
  }
  const auto seed = [&](int round, int rank) {
    return static_cast<uint64_t>(round) * static_cast<uint64_t>(num_ranks()) +
           static_cast<uint64_t>(rank);
  };
  std::vector<std::thread> threads;
  std::vector<absl::Status> results(static_cast<size_t>(num_ranks()));
  for (int rank = 0; rank < num_ranks(); ++rank) {
    threads.emplace_back([&, rank] {
      const auto index = static_cast<size_t>(rank);
      const auto run = [&]() -> absl::Status {
        ASSAY_RETURN_IF_CUDA_ERROR(cudaSetDevice(devices_[index]));
        for (int round = 0; round < kRounds; ++round) {
          if (round % 7 == 3 * rank) {
            ASSAY_RETURN_IF_ERROR(
                FillRandomBytes(delays[index].data(), delays[index].size(), 1, stream(rank)));
          }
          auto* window = reinterpret_cast<__nv_bfloat16*>(communicator(rank).window(round % 2));
          ASSAY_RETURN_IF_ERROR(
              FillRandom(window, kElements, 0, 1, seed(round, rank), stream(rank)));
          const auto parts = communicator(rank).Share(round % 2, kElements * 2, stream(rank));
          ASSAY_RETURN_IF_ERROR(parts.status());
          // Another number of blocks each time: their epochs go up on their own.
          const int rows = 1 + round * 37 % kRows;
          ASSAY_RETURN_IF_ERROR(sides[index].Launch(*parts, rows, kSize, stream(rank)));
        }
        return CudaStatus(cudaStreamSynchronize(stream(rank)), "the rounds");
      };
      results[index] = run();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& result : results) ASSERT_OK(result);

  // The same without peers: all parts on one device, one after the other on one stream.
  const Side alone = {
      .hidden = ToRank(0, zeros), .normed = ToRank(0, zeros), .weight = ToRank(0, ones)};
  std::vector<DeviceBuffer<__nv_bfloat16>> parts;
  GangParts local;
  local.num_ranks = num_ranks();
  for (int rank = 0; rank < num_ranks(); ++rank) {
    parts.push_back(ToRank(0, zeros));
    local.parts[rank] = parts.back().data();
  }
  for (int round = 0; round < kRounds; ++round) {
    for (int rank = 0; rank < num_ranks(); ++rank) {
      ASSERT_OK(FillRandom(parts[static_cast<size_t>(rank)].data(), kElements, 0, 1,
                           seed(round, rank), stream(0)));
    }
    ASSERT_OK(alone.Launch(local, 1 + round * 37 % kRows, kSize, stream(0)));
  }
  const std::vector<uint16_t> expected = Bits(0, alone.hidden);
  for (int rank = 0; rank < num_ranks(); ++rank) {
    EXPECT_EQ(Bits(rank, sides[static_cast<size_t>(rank)].hidden), expected) << "rank " << rank;
  }
}

// Inboxes tell what has not arrived by its bits. A product that makes these very bits, which are a
// NaN's, must not be waited for.
TEST_P(GangTest, PartsThatLookLikeNothingArrive) {
  constexpr int kSize = 2048;
  Connect({kSize * 2, kSize * 2});
  std::vector<Side> sides;
  for (int rank = 0; rank < num_ranks(); ++rank) {
    sides.push_back({.hidden = ToRank(rank, std::vector<__nv_bfloat16>(kSize)),
                     .normed = ToRank(rank, std::vector<__nv_bfloat16>(kSize)),
                     .weight = ToRank(rank, std::vector<float>(kSize, 1))});
    for (const int window : {0, 1}) {
      ASSERT_EQ(cudaMemset(communicator(rank).window(window), 0xFF, kSize * 2), cudaSuccess);
    }
  }
  for (int round = 0; round < 4; ++round) {  // inboxes are as they were
    for (int rank = 0; rank < num_ranks(); ++rank) {
      Use(rank);
      ASSERT_OK_AND_ASSIGN(const GangParts gang,
                           communicator(rank).Share(round % 2, kSize * 2, stream(rank)));
      ASSERT_GE(gang.inbox.bytes, kSize * 2);
      ASSERT_OK(sides[static_cast<size_t>(rank)].Launch(gang, 1, kSize, stream(rank)));
    }
  }
  for (int rank = 0; rank < num_ranks(); ++rank) {
    for (const uint16_t bits : Bits(rank, sides[static_cast<size_t>(rank)].hidden)) {
      ASSERT_GT(bits & 0x7FFF, 0x7F80) << "not a NaN";
    }
  }
}

TEST_P(GangTest, ColumnsOfAllRanksStandSideBySide) {
  std::mt19937_64 random(2);
  for (const int64_t columns : {16, 37, 4096, 152064 / 4}) {
    const int64_t part_columns = ((columns + num_ranks() - 1) / num_ranks() + 7) / 8 * 8;
    for (const int rows : {1, 5, 70}) {
      Connect({rows * part_columns * 4});
      std::vector<std::vector<float>> parts;
      for (int rank = 0; rank < num_ranks(); ++rank) {
        parts.push_back(RandomHalves(rows * part_columns, 1, &random));
        ASSERT_EQ(cudaMemcpy(communicator(rank).window(0), parts.back().data(),
                             parts.back().size() * 4, cudaMemcpyDefault),
                  cudaSuccess);
      }
      std::vector<float> expected;
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t column = 0; column < columns; ++column) {
          expected.push_back(parts[static_cast<size_t>(column / part_columns)][static_cast<size_t>(
              row * part_columns + column % part_columns)]);
        }
      }
      std::vector<DeviceBuffer<float>> outs;
      for (int rank = 0; rank < num_ranks(); ++rank) {
        outs.push_back(ToRank(rank, std::vector<float>(expected.size(), -1)));
      }
      for (int rank = 0; rank < num_ranks(); ++rank) {
        Use(rank);
        ASSERT_OK_AND_ASSIGN(const GangParts gang,
                             communicator(rank).Share(0, rows * part_columns * 4, stream(rank)));
        ASSERT_OK(GatherColumns({.gang = gang,
                                 .out = outs[static_cast<size_t>(rank)].data(),
                                 .num_rows = rows,
                                 .part_columns = part_columns,
                                 .columns = columns},
                                stream(rank)));
      }
      for (int rank = 0; rank < num_ranks(); ++rank) {
        const auto& out = outs[static_cast<size_t>(rank)];
        ASSERT_EQ(FromRank(rank, out.data(), out.size()), expected) << rows << " x " << columns;
      }
    }
  }
}

TEST_P(GangTest, AnAbortFreesAKernelWhosePeerNeverComes) {
  constexpr int kSize = 256;
  Connect({kSize * 2});
  const std::vector<__nv_bfloat16> zeros(kSize, __float2bfloat16_rn(0));
  const Side side = {.hidden = ToRank(0, zeros),
                     .normed = ToRank(0, zeros),
                     .weight = ToRank(0, std::vector<float>(kSize, 1))};
  ASSERT_OK_AND_ASSIGN(const GangParts parts, communicator(0).Share(0, kSize * 2, stream(0)));
  ASSERT_OK(side.Launch(parts, 1, kSize, stream(0)));
  EXPECT_EQ(cudaStreamQuery(stream(0)), cudaErrorNotReady);
  communicator(1).Abort();
  EXPECT_EQ(cudaStreamSynchronize(stream(0)), cudaSuccess);
}

TEST_P(GangTest, NcclBringsTheSameBits) {
  if (NumPeers(num_ranks()) < num_ranks()) GTEST_SKIP() << "NCCL needs a GPU a rank";
  constexpr int kRows = 33;
  constexpr int kSize = 5120;
  constexpr int64_t kElements = int64_t{kRows} * kSize;
  auto nccl = MakeNcclCommunicators(devices_, {kElements * 2});
  if (!nccl.ok()) GTEST_SKIP() << nccl.status();
  Connect({kElements * 2});
  std::mt19937_64 random(3);
  const std::vector<__nv_bfloat16> hidden = Halves(RandomHalves(kElements, 1, &random));
  const std::vector<float> ones(kSize, 1);
  std::vector<Side> by_peer;
  std::vector<Side> by_nccl;
  for (int rank = 0; rank < num_ranks(); ++rank) {
    const auto part = Halves(RandomHalves(kElements, 0.7f, &random));
    for (Communicator* const communicator :
         {communicators_[static_cast<size_t>(rank)].get(),
          static_cast<Communicator*>((*nccl)[static_cast<size_t>(rank)].get())}) {
      ASSERT_EQ(
          cudaMemcpy(communicator->window(0), part.data(), part.size() * 2, cudaMemcpyDefault),
          cudaSuccess);
    }
    for (std::vector<Side>* sides : {&by_peer, &by_nccl}) {
      sides->push_back({.hidden = ToRank(rank, hidden),
                        .normed = ToRank(rank, hidden),
                        .weight = ToRank(rank, ones)});
    }
  }
  // NCCL's launches wait for each other: a thread for each rank.
  std::vector<absl::Status> results(static_cast<size_t>(num_ranks()));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < num_ranks(); ++rank) {
    threads.emplace_back([&, rank] {
      const auto index = static_cast<size_t>(rank);
      const auto run = [&]() -> absl::Status {
        ASSAY_RETURN_IF_CUDA_ERROR(cudaSetDevice(devices_[index]));
        for (const bool with_nccl : {false, true}) {
          Communicator* const communicator =
              with_nccl ? (*nccl)[index].get() : communicators_[index].get();
          const auto parts = communicator->Share(0, kElements * 2, stream(rank));
          ASSAY_RETURN_IF_ERROR(parts.status());
          const Side& side = (with_nccl ? by_nccl : by_peer)[index];
          ASSAY_RETURN_IF_ERROR(side.Launch(*parts, kRows, kSize, stream(rank)));
        }
        ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream(rank)));
        return (*nccl)[index]->Health();
      };
      results[index] = run();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int rank = 0; rank < num_ranks(); ++rank) {
    const auto index = static_cast<size_t>(rank);
    ASSERT_OK(results[index]);
    EXPECT_EQ(Bits(rank, by_nccl[index].normed), Bits(rank, by_peer[index].normed));
    EXPECT_EQ(Bits(rank, by_nccl[index].hidden), Bits(0, by_peer[0].hidden));
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, GangTest, ::testing::Values(2, 4));

}  // namespace
}  // namespace assay::engine::cuda
