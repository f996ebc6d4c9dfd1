#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "base/status.h"
#include "engine/quant/uniform.h"

namespace assay::engine {
namespace {

constexpr int kLargestOrder = 1 << 24;

// Row-major [order, order], entries +1 and -1.
struct BaseMatrix {
  int order = 0;
  std::vector<float> entries;
};

// The Legendre symbol of every residue modulo the prime q.
std::vector<int> LegendreSymbols(int q) {
  std::vector<int> symbols(static_cast<size_t>(q), -1);
  symbols[0] = 0;
  for (int x = 1; x < q; ++x) symbols[static_cast<size_t>(x * x % q)] = 1;
  return symbols;
}

int Symbol(const std::vector<int>& symbols, int difference) {
  const auto q = static_cast<int>(symbols.size());
  return symbols[static_cast<size_t>((difference % q + q) % q)];
}

// Order q + 1 for a prime q = 3 mod 4.
BaseMatrix PaleyOne(int q) {
  const std::vector<int> symbols = LegendreSymbols(q);
  BaseMatrix matrix{.order = q + 1};
  for (int i = 0; i <= q; ++i) {
    for (int j = 0; j <= q; ++j) {
      const int entry = i == 0   ? (j == 0 ? 1 : -1)
                        : j == 0 ? 1
                        : i == j ? 1
                                 : Symbol(symbols, i - j);
      matrix.entries.push_back(static_cast<float>(entry));
    }
  }
  return matrix;
}

// Order 2 (q + 1) for a prime q = 1 mod 4: [[C + I, C - I], [C - I, -C - I]].
BaseMatrix PaleyTwo(int q) {
  const std::vector<int> symbols = LegendreSymbols(q);
  const int half = q + 1;
  const auto conference = [&](int i, int j) {
    if (i == j) return 0;
    return i == 0 || j == 0 ? 1 : Symbol(symbols, i - j);
  };
  BaseMatrix matrix{.order = 2 * half};
  for (int i = 0; i < matrix.order; ++i) {
    for (int j = 0; j < matrix.order; ++j) {
      const bool low_row = i >= half;
      const bool low_column = j >= half;
      const int c = conference(i % half, j % half);
      const int identity = i % half == j % half ? 1 : 0;
      const int entry = low_row && low_column   ? -c - identity
                        : low_row != low_column ? c - identity
                                                : c + identity;
      matrix.entries.push_back(static_cast<float>(entry));
    }
  }
  return matrix;
}

// [[1, 1], [1, -1]] (x) H.
BaseMatrix Doubled(const BaseMatrix& half) {
  BaseMatrix matrix{.order = 2 * half.order};
  for (int i = 0; i < matrix.order; ++i) {
    for (int j = 0; j < matrix.order; ++j) {
      const float sign = i >= half.order && j >= half.order ? -1.0f : 1.0f;
      const int at = i % half.order * half.order + j % half.order;
      matrix.entries.push_back(sign * half.entries[static_cast<size_t>(at)]);
    }
  }
  return matrix;
}

// In the order in which the study tries them, then 148 (our extension, for 18944 = 148 * 128).
// Orders 172, 156 and 52 of the reference's list are Williamson matrices that no supported model
// needs; a size that they divide is not supported.
const std::vector<BaseMatrix>& BaseMatrices() {
  static const std::vector<BaseMatrix> matrices = {
      PaleyOne(139),         PaleyOne(107), PaleyOne(59), PaleyTwo(17), PaleyTwo(13),
      Doubled(PaleyOne(19)), PaleyOne(19),  PaleyOne(11), PaleyTwo(73)};
  return matrices;
}

bool IsPowerOfTwo(int n) { return n > 0 && (n & (n - 1)) == 0; }

// The factor K of n = K * 2^m; 0 when n is no order, 1 for a power of two.
int BaseOrder(int n) {
  if (n < 1 || n > kLargestOrder) return 0;
  for (const int order : {172, 156, 140, 108, 60, 52, 36, 28, 40, 20, 12, 148}) {
    if (n % order != 0) continue;
    const bool known = order != 172 && order != 156 && order != 52;
    return known && IsPowerOfTwo(n / order) ? order : 0;
  }
  return IsPowerOfTwo(n) ? 1 : 0;
}

// Sylvester's matrix in natural order, unscaled.
void FastWalshHadamard(float* values, int n) {
  for (int stride = 1; stride < n; stride *= 2) {
    for (int start = 0; start < n; start += 2 * stride) {
      float* const low = values + start;
      float* const high = low + stride;
      for (int i = 0; i < stride; ++i) {
        const float a = low[i];
        const float b = high[i];
        low[i] = a + b;
        high[i] = a - b;
      }
    }
  }
}

// values [order, columns] <- matrix * values.
void MultiplyFromLeft(const BaseMatrix& matrix, float* values, int columns) {
  const auto order = static_cast<size_t>(matrix.order);
  const auto width = static_cast<size_t>(columns);
  std::vector<float> product(order * width, 0.0f);
  for (size_t i = 0; i < order; ++i) {
    for (size_t k = 0; k < order; ++k) {
      const float sign = matrix.entries[i * order + k];
      const float* const from = values + k * width;
      float* const to = product.data() + i * width;
      for (size_t column = 0; column < width; ++column) to[column] += sign * from[column];
    }
  }
  std::copy(product.begin(), product.end(), values);
}

}  // namespace

bool IsHadamardOrder(int n) { return BaseOrder(n) != 0; }

void HadamardTransform(std::span<float> values) {
  const auto n = static_cast<int>(values.size());
  const int base = BaseOrder(n);
  ASSAY_CHECK(base != 0, "no Hadamard matrix of order {}", n);
  const int columns = n / base;
  for (int row = 0; row < base; ++row) FastWalshHadamard(values.data() + row * columns, columns);
  if (base > 1) {
    const std::vector<BaseMatrix>& all = BaseMatrices();
    const auto matrix =
        std::find_if(all.begin(), all.end(), [&](const BaseMatrix& m) { return m.order == base; });
    MultiplyFromLeft(*matrix, values.data(), columns);
  }
  const float factor = 1.0f / std::sqrt(static_cast<float>(n));
  for (float& value : values) value *= factor;
}

}  // namespace assay::engine
