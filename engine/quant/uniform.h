// The grids, uniform and MXFP4, on plain float arrays: the reference that every backend is
// held against. Rounding is to nearest, ties to even. Float32 throughout, and plain loops without
// branches: the CPU backend calls the functions on spans for every token.
//
// A NaN or an infinity in the input does no harm but yields some value of the grid (or NaN).
#pragma once

#include <cstdint>
#include <span>

namespace assay::engine {

// The parameters of one group: x' = scale * (q - zero); a symmetric grid has zero 0.
struct GridParams {
  float scale = 1;
  int zero = 0;
};

// How the parameters of a group follow from its values. The defaults are those of activations, K
// and V without clipping.
struct GridSpec {
  int bit_width = 8;  // 2..8
  bool symmetric = false;
  float clip_max = 1;  // factors on the maximum and the minimum, after zero is included
  float clip_min = 1;
  float min_range = 0;  // weights: 1e-5, the least range (asymmetric) or maximum (symmetric)
};

int MaxCode(int bit_width, bool symmetric);  // 2^(b-1)-1 or 2^b-1
int MinCode(int bit_width, bool symmetric);  // -2^(b-1) or 0

// Parameters from the values' range, zero included; of zeros alone -1..1 or, symmetric, scale 1.
GridParams ChooseParams(std::span<const float> values, const GridSpec& spec);
GridParams ParamsOfRange(float min, float max, const GridSpec& spec);

// clamp(rne(x / scale) + zero, min, max).
int Encode(float x, const GridParams& params, int bit_width, bool symmetric);
inline float Decode(int code, const GridParams& params) {
  return params.scale * static_cast<float>(code - params.zero);
}

// x <- Decode(Encode(x)) over a group, with given parameters or with its own.
void RoundToGrid(std::span<float> values, const GridParams& params, int bit_width, bool symmetric);
void RoundToOwnGrid(std::span<float> values, const GridSpec& spec);

// Likewise with parameters of each value's own (static per channel): its scale, and its smallest
// and largest code minus its zero point.
void RoundToStaticGrid(std::span<float> values, const float* scales, const float* lowest,
                       const float* highest);

// MXFP4 over consecutive blocks of 32; the size is a multiple of 32. The scale of a block is
// 2^Mxfp4Exponent(block), in -127..125; codes have the sign in bit 3.
inline constexpr int kMxfp4Block = 32;
enum class Ties { kToEven, kAwayFromZero };
void RoundToMxfp4(std::span<float> values, Ties ties = Ties::kToEven);
int Mxfp4Exponent(std::span<const float> block);
uint8_t EncodeE2m1(float x, Ties ties = Ties::kToEven);
float DecodeE2m1(uint8_t code);

// In-place Walsh-Hadamard transform of order n = K * 2^m divided by sqrt(n), with H_n = H_K (x)
// S_{2^m}, S being Sylvester's. `IsHadamardOrder` says which n exist.
bool IsHadamardOrder(int n);
void HadamardTransform(std::span<float> values);

}  // namespace assay::engine
