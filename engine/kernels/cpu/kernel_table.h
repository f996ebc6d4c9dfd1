// The CPU's inner loops, compiled once per instruction set and chosen when the program starts.
//
// All variants (AVX-512, AVX2 with FMA, generic) give the same bits, so a sample does not depend on
// the machine it was computed on. Every result element is computed by a fixed sequence of
// operations over its own row: never is the order of a sum decided by how many rows there are, by a
// row's position in the batch, or by the number of threads.
//
// The functions check nothing; packed_matrix.h, attention.h and the decoder do.
// Thread-safe: no state.
#pragma once

#include <cstdint>

namespace assay::engine::cpu {

inline constexpr int kPanelColumns = 32;  // output features of a packed weight panel
inline constexpr int kPageTokens = 16;    // tokens of a KV page
inline constexpr int kMaxLanes = 4;       // query vectors that share one pass over the keys

// y[rows, columns) = x[rows, depth] * W^T (+ bias), for the panels [first_panel, last_panel).
struct GemmArgs {
  const float* x = nullptr;  // [rows, x_stride]
  int64_t x_stride = 0;
  const float* panels = nullptr;  // [num_panels, depth, kPanelColumns]
  const float* bias = nullptr;    // [columns] or null
  float* y = nullptr;             // [rows, y_stride]
  int64_t y_stride = 0;
  int rows = 0;
  int depth = 0;
  int columns = 0;
  int first_panel = 0;
  int last_panel = 0;
};

// Softmax attention of up to kMaxLanes query vectors over the pages of one KV head.
// A page holds kPageTokens tokens: keys [head_dim, 16], then values [16, value_stride].
struct AttendArgs {
  const float* const* pages = nullptr;
  int head_dim = 0;
  int value_stride = 0;  // head_dim rounded up to 16
  float scale = 1;
  int num_lanes = 0;
  const float* query[kMaxLanes] = {};   // [head_dim] each
  float* output[kMaxLanes] = {};        // [head_dim] each
  int64_t context_len[kMaxLanes] = {};  // keys that a lane sees, at least 1, ascending
  float* scores = nullptr;              // scratch [num_lanes, scores_stride]
  int64_t scores_stride = 0;            // multiple of 16, at least the longest context
  float* accumulators = nullptr;        // scratch [num_lanes, value_stride]
};

struct KernelTable {
  const char* name;

  void (*gemm)(const GemmArgs& args);
  void (*attend)(const AttendArgs& args);

  // y = x / sqrt(mean(x^2) + eps) * weight
  void (*rms_norm)(const float* x, const float* weight, float eps, int size, float* y);
  // y = gate / (1 + e^-gate) * up
  void (*silu_multiply)(const float* gate, const float* up, int64_t size, float* y);
  // x += y
  void (*add)(float* x, const float* y, int64_t size);
  // Rotates the pairs (i, i + half) of one head by the angles whose cosines and sines are given.
  void (*rotate_half)(float* x, const float* cosines, const float* sines, int half);
  // The largest element; NaNs are passed over, -infinity when there is nothing else.
  float (*maximum)(const float* x, int64_t size);
  // y = e^((x - maximum) * factor); returns the sum. NaN gives 0.
  float (*exponentials)(const float* x, float maximum, float factor, int64_t size, float* y);
  // To nearest even, in place.
  void (*round_to_bf16)(float* x, int64_t size);
};

// The best variant that this processor runs.
const KernelTable& Kernels();

// Every variant that this processor runs, best first; null-terminated. For tests.
const KernelTable* const* AvailableKernels();

}  // namespace assay::engine::cpu
