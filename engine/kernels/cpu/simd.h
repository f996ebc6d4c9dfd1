// Vectors of floats for the kernel variants, and the exponential built on them.
//
// Included only by the variant_*.cc files, each compiled for one instruction set, through
// kernel_bodies.inc. Everything has internal linkage: an inline function that the linker merged
// over variants would run AVX-512 code on a machine without it. For the same reason these files
// include no standard header with non-trivial inline functions.
//
// All variants compute the same bits. Products and sums are fused exactly where MultiplyAdd is
// written (the files are compiled with -ffp-contract=off), and every sum over elements runs in
// kPanel = 16 partial sums whatever the width of a register is.
#pragma once

#include <cstdint>

#if defined(__AVX512F__) || defined(__FMA__)
#include <immintrin.h>
#endif

namespace assay::engine::cpu {
namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__FMA__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

constexpr int kPanel = 16;  // keys of a page, partial sums of a reduction
constexpr int kPanelVectors = kPanel / kWidth;

typedef float Vector __attribute__((vector_size(kWidth * 4)));
typedef int32_t IntVector __attribute__((vector_size(kWidth * 4)));
typedef float UnalignedVector __attribute__((vector_size(kWidth * 4), aligned(4), may_alias));

inline Vector Load(const float* p) { return *reinterpret_cast<const UnalignedVector*>(p); }
inline void Store(float* p, Vector v) { *reinterpret_cast<UnalignedVector*>(p) = v; }
inline Vector Broadcast(float x) { return x - Vector{}; }

// a * b + c with one rounding, on every variant.
inline Vector MultiplyAdd(Vector a, Vector b, Vector c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  Vector result;
  for (int i = 0; i < kWidth; ++i) result[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return result;
#endif
}

inline Vector Max(Vector a, Vector b) { return a > b ? a : b; }

// e^x to 1e-7 relative: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial in r (Cephes expf), and
// 2^n from the exponent bits. Below -87 the result stays at e^-87 (6e-38, zero in any sum with the
// maximum's 1).
inline Vector Exp(Vector x) {
  const Vector low = Broadcast(-87.0f), high = Broadcast(88.0f);
  x = x < low ? low : x;
  x = x > high ? high : x;
  // Adding 1.5 * 2^23 leaves the rounded integer in the low mantissa bits.
  const Vector magic = Broadcast(12582912.0f);
  const Vector shifted = MultiplyAdd(x, Broadcast(1.44269504088896341f), magic);
  const Vector n = shifted - magic;
  Vector r = MultiplyAdd(n, Broadcast(-0.693359375f), x);
  r = MultiplyAdd(n, Broadcast(2.12194440e-4f), r);
  Vector p = Broadcast(1.9875691500e-4f);
  p = MultiplyAdd(p, r, Broadcast(1.3981999507e-3f));
  p = MultiplyAdd(p, r, Broadcast(8.3334519073e-3f));
  p = MultiplyAdd(p, r, Broadcast(4.1665795894e-2f));
  p = MultiplyAdd(p, r, Broadcast(1.6666665459e-1f));
  p = MultiplyAdd(p, r, Broadcast(5.0000001201e-1f));
  p = MultiplyAdd(p, r * r, r + 1.0f);
  const IntVector exponent =
      (reinterpret_cast<IntVector>(shifted) - reinterpret_cast<IntVector>(magic) + 127) << 23;
  return p * reinterpret_cast<Vector>(exponent);
}

// The 16 partial sums, added pairwise: 8 apart, 4, 2, 1.
inline float SumOfPanel(const Vector* partial) {
  float s[kPanel];
  for (int v = 0; v < kPanelVectors; ++v) Store(s + v * kWidth, partial[v]);
  for (int half = kPanel / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) s[i] += s[i + half];
  }
  return s[0];
}

}  // namespace
}  // namespace assay::engine::cpu
