#include "engine/decoder/cuda/gang_benchmark.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "base/status.h"
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/random_fill.h"
#include "engine/kernels/cuda/rms_norm.h"
#include "engine/kernels/cuda/sum_norm.h"
#include "engine/parallel/nccl/nccl_communicator.h"
#include "engine/parallel/peer/peer_communicator.h"

namespace assay::engine::cuda {
namespace {

constexpr int kPerGraph = 40;  // exchanges, in turn through two windows
constexpr int kTimedGraphs = 15;

// One rank's tensors.
struct Side {
  Stream stream;
  DeviceBuffer<__nv_bfloat16> hidden;
  DeviceBuffer<__nv_bfloat16> update;
  DeviceBuffer<__nv_bfloat16> normed;
  DeviceBuffer<float> weight;

  static absl::StatusOr<Side> Make(int device, int hidden_size, int max_rows) {
    ASSAY_RETURN_IF_ERROR(UseDevice(device).status());
    Side side;
    ASSAY_ASSIGN_OR_RETURN(side.stream, MakeStream());
    const int64_t size = int64_t{max_rows} * hidden_size;
    for (auto* buffer : {&side.hidden, &side.update, &side.normed}) {
      ASSAY_ASSIGN_OR_RETURN(*buffer, DeviceBuffer<__nv_bfloat16>::Allocate(size));
      ASSAY_RETURN_IF_ERROR(FillRandom(buffer->data(), size, 0, 1, 1, side.stream.get()));
    }
    ASSAY_ASSIGN_OR_RETURN(side.weight, DeviceBuffer<float>::Allocate(hidden_size));
    ASSAY_RETURN_IF_ERROR(
        FillRandom(side.weight.data(), hidden_size, 1, 0.1f, 2, side.stream.get()));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(side.stream.get()));
    return side;
  }
};

// Microseconds of one of the `kPerGraph` launches that body(i) makes, after a graph for nothing.
absl::StatusOr<double> TimeAsGraph(const Side& side, const std::function<absl::Status(int)>& body) {
  const cudaStream_t stream = side.stream.get();
  const auto launch_all = [&]() -> absl::Status {
    for (int i = 0; i < kPerGraph; ++i) ASSAY_RETURN_IF_ERROR(body(i));
    return absl::OkStatus();
  };
  ASSAY_RETURN_IF_ERROR(launch_all());
  ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
  std::vector<double> times;
  // The graph dies before what it uses.
  ASSAY_ASSIGN_OR_RETURN(const Graph graph, CaptureGraph(stream, launch_all));
  std::vector<Event> events(kTimedGraphs + 1);
  for (Event& event : events) {
    ASSAY_ASSIGN_OR_RETURN(event, MakeEvent());
  }
  ASSAY_RETURN_IF_CUDA_ERROR(cudaGraphLaunch(graph.get(), stream));
  ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(events[0].get(), stream));
  for (int i = 0; i < kTimedGraphs; ++i) {
    ASSAY_RETURN_IF_CUDA_ERROR(cudaGraphLaunch(graph.get(), stream));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(events[static_cast<size_t>(i) + 1].get(), stream));
  }
  ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    ASSAY_ASSIGN_OR_RETURN(const float milliseconds, ElapsedMs(events[i], events[i + 1]));
    times.push_back(double{milliseconds} * 1000 / kPerGraph);
  }
  std::ranges::nth_element(times, times.begin() + kTimedGraphs / 2);
  return times[kTimedGraphs / 2];
}

// body(rank) on a thread for each rank; the first rank's answer.
absl::StatusOr<double> OnEveryRank(std::span<const int> devices,
                                   const std::function<absl::StatusOr<double>(size_t)>& body) {
  std::vector<absl::StatusOr<double>> results(devices.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < devices.size(); ++rank) {
    threads.emplace_back([&, rank] {
      const absl::Status used = UseDevice(devices[rank]).status();
      results[rank] = used.ok() ? body(rank) : used;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::StatusOr<double>& result : results) ASSAY_RETURN_IF_ERROR(result.status());
  return results[0];
}

}  // namespace

absl::StatusOr<std::vector<BenchmarkRow>> MeasureAllReduce(std::span<const int> devices,
                                                           int hidden_size,
                                                           std::span<const int> num_rows) {
  const int max_rows = *std::ranges::max_element(num_rows);
  const int64_t window_bytes = int64_t{max_rows} * hidden_size * 2;
  Communicators communicators;
  if (HavePeerAccess(devices)) {
    ASSAY_ASSIGN_OR_RETURN(communicators,
                           MakePeerCommunicators(devices, {window_bytes, window_bytes}));
  }
  const auto nccl = MakeNcclCommunicators(devices, {window_bytes, window_bytes});
  std::vector<Side> sides;
  for (const int device : devices) {
    ASSAY_ASSIGN_OR_RETURN(sides.emplace_back(), Side::Make(device, hidden_size, max_rows));
  }
  std::vector<BenchmarkRow> report;
  const auto add = [&](const char* what, int rows, double microseconds) {
    report.push_back({.what = what,
                      .batch_size = rows,
                      .step_us = microseconds,
                      .device_us = microseconds,
                      .bytes = 2.0 * rows * hidden_size});
  };
  for (const int rows : num_rows) {
    const int64_t bytes = int64_t{rows} * hidden_size * 2;
    // As a step does it, and then with all parts read where they are.
    for (const bool in_place : {false, true}) {
      if (communicators.empty()) break;
      ASSAY_ASSIGN_OR_RETURN(const double ours, OnEveryRank(devices, [&](size_t rank) {
                               const Side& side = sides[rank];
                               return TimeAsGraph(side, [&](int i) -> absl::Status {
                                 ASSAY_ASSIGN_OR_RETURN(
                                     GangParts parts,
                                     communicators[rank]->Share(i % 2, bytes, side.stream.get()));
                                 if (in_place) parts.inbox = {};
                                 return SumNorm({.hidden = side.hidden.data(),
                                                 .update = parts,
                                                 .weight = side.weight.data(),
                                                 .sum = side.hidden.data(),
                                                 .normed = side.normed.data(),
                                                 .num_rows = rows,
                                                 .size = hidden_size,
                                                 .eps = 1e-5f},
                                                side.stream.get());
                               });
                             }));
      add(in_place ? "in place" : "allreduce", rows, ours);
    }
    if (nccl.ok()) {
      ASSAY_ASSIGN_OR_RETURN(const double theirs, OnEveryRank(devices, [&](size_t rank) {
                               const Side& side = sides[rank];
                               return TimeAsGraph(side, [&](int) {
                                 return (*nccl)[rank]->AllReduceSum(side.update.data(),
                                                                    int64_t{rows} * hidden_size,
                                                                    side.stream.get());
                               });
                             }));
      add("nccl", rows, theirs);
    }
    ASSAY_ASSIGN_OR_RETURN(const double alone, OnEveryRank(devices.first(1), [&](size_t) {
                             const Side& side = sides[0];
                             return TimeAsGraph(side, [&](int) {
                               return RmsNorm({.hidden = side.hidden.data(),
                                               .update = side.update.data(),
                                               .weight = side.weight.data(),
                                               .sum = side.hidden.data(),
                                               .normed = side.normed.data(),
                                               .num_rows = rows,
                                               .size = hidden_size,
                                               .eps = 1e-5f},
                                              side.stream.get());
                             });
                           }));
    add("norm", rows, alone);
  }
  return report;
}

}  // namespace assay::engine::cuda
