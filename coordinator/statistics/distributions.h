// The few distribution functions that the tests need.
#pragma once

#include <cstdint>

namespace assay::statistics {

// P(Z <= z) of the standard normal.
double NormalCdf(double z);

// The z with P(Z <= z) = p, 0 < p < 1, to full precision.
double NormalQuantile(double p);

// P(T <= t) of Student's t.
double StudentCdf(double t, double degrees_of_freedom);

// log of the gamma function; unlike std::lgamma free of global state, so safe in several threads.
double LogGamma(double x);

// log of n over k.
double LogBinomial(int64_t n, int64_t k);

// P(X <= k), X ~ Binomial(n, 1/2).
double FairBinomialCdf(int64_t k, int64_t n);

}  // namespace assay::statistics
