// Which arithmetic computed a sample: part of every cell's key. The planner writes the version of
// the sweep's device into its cells, a slot is given cells of its own version only, and a runner
// refuses any other. The one place of these names, so that the engine that computes and the
// coordinator that plans cannot differ within a build; between builds the version at a worker's
// registration decides.
#pragma once

namespace assay {

// Raised when the tokens that a given request yields may change.
inline constexpr char kCpuNumericsVersion[] = "cpu-2";
// The same, on the same kind of GPU.
inline constexpr char kCudaNumericsVersion[] = "cuda-3";

}  // namespace assay
