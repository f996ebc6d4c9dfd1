// Tokens per second of the CPU engine, and where its time goes.
//
//   engine_bench MODEL_DIR [--threads N] [--seqs N] [--requests N] [--tokens N] [--gemm]
//
// Generates --tokens tokens for each of --requests prompts of random ids, without stopping, and
// prints rates and shares; --gemm measures the matrix product alone against the core's peak.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include "engine/kernels/cpu/kernel_table.h"
#include "engine/kernels/cpu/packed_matrix.h"
#include "engine/kernels/cpu/thread_pool.h"
#include "engine/runtime/engine.h"

namespace assay::engine {
namespace {

// Of the whole process: what a loaded machine gave others does not count.
double CpuSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The product from the first-level cache: 8 rows by 32 columns of depth 256, nothing else.
double PeakGflops(cpu::ThreadPool* pool) {
  const std::vector<float> weight(32 * 256, 0.5f);
  const cpu::PackedMatrix matrix(weight, 32, 256);
  const std::vector<float> x(8 * 256, 1.0f);
  std::vector<float> y(8 * 32);
  double best = 0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    constexpr int kCalls = 20000;
    const double start = Seconds();
    for (int i = 0; i < kCalls; ++i) matrix.Multiply(x.data(), 256, 8, nullptr, y.data(), 32, pool);
    best = std::max(best, 2.0 * 8 * 32 * 256 * kCalls / (Seconds() - start) / 1e9);
  }
  return best;
}

void BenchGemm() {
  cpu::ThreadPool pool(1);
  std::printf("kernels %s, tile in the first-level cache: %.1f GFLOP/s\n", cpu::Kernels().name,
              PeakGflops(&pool));
  const int shapes[][2] = {{128, 128}, {256, 128}, {384, 128}, {128, 384},
                           {512, 128}, {768, 256}, {256, 768}, {1536, 1536}};
  for (const auto& [out, in] : shapes) {
    const std::vector<float> weight(size_t{1} * out * in, 0.5f);
    const cpu::PackedMatrix matrix(weight, out, in);
    std::printf("out %5d in %5d:", out, in);
    for (const int rows : {1, 2, 8, 32, 64, 256}) {
      const std::vector<float> x(size_t{1} * rows * in, 1.0f);
      std::vector<float> y(size_t{1} * rows * out);
      const double flops = 2.0 * rows * out * in;
      const int calls = static_cast<int>(2e9 / flops) + 1;
      double best = 0;
      for (int repeat = 0; repeat < 5; ++repeat) {
        const double start = Seconds();
        for (int i = 0; i < calls; ++i) {
          matrix.Multiply(x.data(), in, rows, nullptr, y.data(), out, &pool);
        }
        best = std::max(best, flops * calls / (Seconds() - start) / 1e9);
      }
      std::printf("  M=%d %.1f", rows, best);
    }
    std::printf("\n");
  }
}

int BenchEngine(const std::string& model_dir, int threads, int seqs, int requests, int tokens) {
  EngineOptions options;
  options.num_threads = threads;
  options.max_num_seqs = seqs;
  auto loaded = Engine::Load(model_dir, options);
  if (!loaded.ok()) {
    std::fprintf(stderr, "%s\n", loaded.status().ToString().c_str());
    return 1;
  }
  Engine& engine = **loaded;
  std::mt19937 random(1);
  for (int id = 0; id < requests; ++id) {
    GenerationRequest request;
    request.id = id;
    for (int i = 0; i < 45; ++i) {
      request.prompt_ids.push_back(static_cast<int32_t>(random() % engine.config().vocab_size));
    }
    request.max_new_tokens = tokens;
    request.sampling = {.temperature = 0.6f, .top_p = 0.95f, .seed = static_cast<uint64_t>(id)};
    engine.Submit(std::move(request));
  }
  const double start = Seconds(), cpu_start = CpuSeconds();
  int num_steps = 0;
  while (!engine.idle()) {
    if (!engine.Step().ok()) return 1;
    ++num_steps;
  }
  const double elapsed = Seconds() - start, cpu_elapsed = CpuSeconds() - cpu_start;
  const EngineStats stats = engine.stats();
  const auto share = [&](absl::Duration time) {
    return 100 * absl::FDivDuration(time, stats.total_time);
  };
  std::printf("%s: %.0f tokens/s, %.0f per processor second (%lld tokens, %d steps, %.2f s)\n",
              model_dir.c_str(), static_cast<double>(stats.tokens_generated) / elapsed,
              static_cast<double>(stats.tokens_generated) / cpu_elapsed,
              static_cast<long long>(stats.tokens_generated), num_steps, elapsed);
  std::printf(
      "matmul %.1f %%  attention %.1f %%  sampling %.1f %%  rest of steps %.1f %%\n",
      share(stats.matmul_time), share(stats.attention_time), share(stats.sampling_time),
      100 - share(stats.matmul_time) - share(stats.attention_time) - share(stats.sampling_time));
  return 0;
}

}  // namespace
}  // namespace assay::engine

int main(int argc, char** argv) {
  std::string model_dir;
  int threads = 1, seqs = 64, requests = 64, tokens = 512;
  bool gemm = false;
  CLI::App app("Measures the CPU engine.");
  app.add_option("model", model_dir, "model or artifact folder");
  app.add_option("--threads", threads);
  app.add_option("--seqs", seqs, "lanes");
  app.add_option("--requests", requests);
  app.add_option("--tokens", tokens, "generated per request");
  app.add_flag("--gemm", gemm, "measure the matrix product instead");
  CLI11_PARSE(app, argc, argv);
  if (gemm) {
    assay::engine::BenchGemm();
    return 0;
  }
  return assay::engine::BenchEngine(model_dir, threads, seqs, requests, tokens);
}
