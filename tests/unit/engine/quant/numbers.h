// Numbers for tests: reproducible random values, and linear algebra in double that shares no code
// with what is tested.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

namespace assay::engine {

// Roughly normal values with a few outliers, as activations have.
inline std::vector<float> RandomValues(size_t size, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(size);
  for (size_t i = 0; i < size; ++i) values[i] = normal(generator) * (i % 17 == 3 ? 6.0f : 1.0f);
  return values;
}

using Matrix = std::vector<std::vector<double>>;

inline Matrix ToMatrix(const std::vector<float>& values, size_t rows, size_t columns) {
  Matrix matrix(rows, std::vector<double>(columns));
  for (size_t i = 0; i < rows * columns; ++i) matrix[i / columns][i % columns] = values[i];
  return matrix;
}

inline std::vector<float> ToFloats(const Matrix& matrix) {
  std::vector<float> values;
  for (const auto& row : matrix) values.insert(values.end(), row.begin(), row.end());
  return values;
}

inline Matrix Transpose(const Matrix& a) {
  Matrix t(a[0].size(), std::vector<double>(a.size()));
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < a[0].size(); ++j) t[j][i] = a[i][j];
  }
  return t;
}

inline Matrix Multiply(const Matrix& a, const Matrix& b) {
  Matrix c(a.size(), std::vector<double>(b[0].size()));
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t k = 0; k < b.size(); ++k) {
      for (size_t j = 0; j < b[0].size(); ++j) c[i][j] += a[i][k] * b[k][j];
    }
  }
  return c;
}

// Gauss-Jordan with row pivoting.
inline Matrix Inverse(Matrix a) {
  const size_t n = a.size();
  Matrix inverse(n, std::vector<double>(n));
  for (size_t i = 0; i < n; ++i) inverse[i][i] = 1;
  for (size_t column = 0; column < n; ++column) {
    size_t pivot = column;
    for (size_t row = column; row < n; ++row) {
      if (std::fabs(a[row][column]) > std::fabs(a[pivot][column])) pivot = row;
    }
    std::swap(a[pivot], a[column]);
    std::swap(inverse[pivot], inverse[column]);
    const double factor = 1 / a[column][column];
    for (size_t j = 0; j < n; ++j) {
      a[column][j] *= factor;
      inverse[column][j] *= factor;
    }
    for (size_t row = 0; row < n; ++row) {
      const double multiple = row == column ? 0 : a[row][column];
      for (size_t j = 0; j < n && multiple != 0; ++j) {
        a[row][j] -= multiple * a[column][j];
        inverse[row][j] -= multiple * inverse[column][j];
      }
    }
  }
  return inverse;
}

// a (x) b.
inline Matrix Kronecker(const Matrix& a, const Matrix& b) {
  Matrix product(a.size() * b.size(), std::vector<double>(a[0].size() * b[0].size()));
  for (size_t i = 0; i < product.size(); ++i) {
    for (size_t j = 0; j < product[0].size(); ++j) {
      product[i][j] = a[i / b.size()][j / b[0].size()] * b[i % b.size()][j % b[0].size()];
    }
  }
  return product;
}

// x W^T for W [out, in].
inline std::vector<double> Project(const std::vector<float>& x, const std::vector<float>& weight) {
  const size_t in = x.size();
  std::vector<double> y(weight.size() / in);
  for (size_t i = 0; i < weight.size(); ++i) y[i / in] += double{weight[i]} * x[i % in];
  return y;
}

}  // namespace assay::engine
