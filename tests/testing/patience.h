// How much longer than usual a test waits before it gives up: engines are ten times slower under a
// sanitizer. Set by tests/testing/CMakeLists.txt.
#pragma once

namespace assay::testing {

#ifdef ASSAY_PATIENCE
inline constexpr int kPatience = ASSAY_PATIENCE;
#else
inline constexpr int kPatience = 1;
#endif

}  // namespace assay::testing
