#include "engine/decoder/cuda/linears_benchmark.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/status.h"
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/linear.h"
#include "engine/kernels/cuda/random_fill.h"

namespace assay::engine::cuda {
namespace {

constexpr int64_t kColdBytes = int64_t{400} << 20;
constexpr int kRepeats = 7;

class LinearsBenchmark {
 public:
  LinearsBenchmark(const CudaModelPlan& plan, int batch_size)
      : plan_(plan), batch_size_(batch_size) {}

  absl::StatusOr<LinearsTiming> Run() {
    ASSAY_ASSIGN_OR_RETURN(stream_, MakeStream());
    ASSAY_RETURN_IF_ERROR(Load());
    ASSAY_RETURN_IF_ERROR(Launch());  // kernels are loaded outside of a capture
    ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream_.get()));
    ASSAY_ASSIGN_OR_RETURN(const Graph graph,
                           CaptureGraph(stream_.get(), [&] { return Launch(); }));
    ASSAY_ASSIGN_OR_RETURN(const Event start, MakeEvent());
    ASSAY_ASSIGN_OR_RETURN(const Event end, MakeEvent());
    std::vector<double> times;
    for (int repeat = 0; repeat <= kRepeats; ++repeat) {
      ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(start.get(), stream_.get()));
      ASSAY_RETURN_IF_CUDA_ERROR(cudaGraphLaunch(graph.get(), stream_.get()));
      ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(end.get(), stream_.get()));
      ASSAY_RETURN_IF_CUDA_ERROR(cudaEventSynchronize(end.get()));
      ASSAY_ASSIGN_OR_RETURN(const float milliseconds, ElapsedMs(start, end));
      if (repeat > 0) times.push_back(double{milliseconds} * 1000);
    }
    std::ranges::nth_element(times, times.begin() + kRepeats / 2);
    const auto num_layers = static_cast<double>(model_.layers.size());
    return LinearsTiming{.microseconds = times[kRepeats / 2] / num_layers,
                         .bytes = static_cast<double>(plan_.linear_bytes) / num_layers};
  }

 private:
  struct LayerLinear {
    LinearWeight CudaLayer::*weight;
    GemmShape shape;
    std::optional<Linear> linear;
  };

  absl::Status Load() {
    const int64_t layer_bytes = plan_.linear_bytes / plan_.shard.whole.num_layers;
    const auto enough = static_cast<int>(kColdBytes / layer_bytes) + 1;
    ASSAY_RETURN_IF_ERROR(CutLayers(std::min(enough, plan_.shard.whole.num_layers), &plan_));
    plan_.random_weights = true;
    ASSAY_ASSIGN_OR_RETURN(model_, LoadCudaModel(plan_, stream_.get()));
    const ModelConfig& config = model_.config;
    const int64_t hidden = config.hidden_size;
    const int64_t intermediate = config.intermediate_size;
    const int64_t qkv = int64_t{config.q_size()} + 2 * int64_t{config.kv_size()};
    linears_.push_back({&CudaLayer::qkv, {.out_features = qkv, .in_features = hidden}, {}});
    linears_.push_back(
        {&CudaLayer::o, {.out_features = hidden, .in_features = config.q_size()}, {}});
    linears_.push_back(
        {&CudaLayer::gate_up, {.out_features = 2 * intermediate, .in_features = hidden}, {}});
    linears_.push_back(
        {&CudaLayer::down, {.out_features = hidden, .in_features = intermediate}, {}});
    ASSAY_ASSIGN_OR_RETURN(lt_, MakeCublasLt());
    int64_t largest_input = 0;
    int64_t largest_output = 0;
    for (LayerLinear& one : linears_) {
      std::vector<LinearWeight> weights;
      for (const CudaLayer& layer : model_.layers) weights.push_back(layer.*one.weight);
      ASSAY_ASSIGN_OR_RETURN(one.linear, Linear::Make(lt_.get(), one.shape, batch_size_, weights,
                                                      model_.unpacked, stream_.get()));
      largest_input = std::max(largest_input, one.shape.in_features);
      largest_output = std::max(largest_output, one.shape.out_features);
    }
    ASSAY_ASSIGN_OR_RETURN(input_,
                           DeviceBuffer<__nv_bfloat16>::Allocate(batch_size_ * largest_input));
    ASSAY_ASSIGN_OR_RETURN(output_,
                           DeviceBuffer<__nv_bfloat16>::Allocate(batch_size_ * largest_output));
    return FillRandom(input_.data(), input_.size(), 0, 1, /*seed=*/5, stream_.get());
  }

  absl::Status Launch() const {
    for (const CudaLayer& layer : model_.layers) {
      for (const LayerLinear& one : linears_) {
        ASSAY_RETURN_IF_ERROR(one.linear->Run(layer.*one.weight, input_.data(), nullptr,
                                              output_.data(), batch_size_, batch_size_,
                                              stream_.get()));
      }
    }
    return absl::OkStatus();
  }

  CudaModelPlan plan_;
  const int batch_size_;
  Stream stream_;
  CublasLt lt_;
  CudaModel model_;
  std::vector<LayerLinear> linears_;
  DeviceBuffer<__nv_bfloat16> input_;
  DeviceBuffer<__nv_bfloat16> output_;
};

}  // namespace

absl::StatusOr<LinearsTiming> TimeLinears(const CudaModelPlan& plan, int batch_size) {
  return LinearsBenchmark(plan, batch_size).Run();
}

}  // namespace assay::engine::cuda
