// The engine's benchmark for those who may see the runtime alone: see decoder/cuda/benchmark.h.
#pragma once

#include "engine/decoder/cuda/benchmark.h"  // IWYU pragma: export
