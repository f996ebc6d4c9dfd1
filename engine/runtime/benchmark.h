// The engine's benchmark for those who may see the runtime alone: see cuda_benchmark.h.
#pragma once

#include "engine/decoder/cuda_benchmark.h"  // IWYU pragma: export
