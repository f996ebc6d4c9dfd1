// Hopper's matrix instruction over a warpgroup: d [64, N] += a [64, 16] * b [16, N], bf16 in,
// float32 sums, N = 8 .. 256. The left side comes from shared memory or from registers, the right
// one from shared memory.
//
// A product takes max(N / 2, 16 + N / 4) clocks of a multiprocessor where both sides are in shared
// memory (4096 operations and 128 bytes a clock).
//
// Shared operands are tiles of 64 columns (128 bytes) a row with the copy engine's 128-byte
// swizzle, groups of 8 rows behind each other: 1024 bytes each, and aligned to that.
//
// Lane 4 r + c of the warpgroup's warp w holds, of the left side from registers, as mma.m16n8k16
//   a[0]: row 16 w + r, columns 2c 2c+1; a[1]: row + 8; a[2]: columns 2c+8 2c+9; a[3]: both
// and of the sums: d[4 j + 0, 1]: row 16 w + r, columns 8 j + 2 c and + 1; d[4 j + 2, 3]: row + 8.
//
// Asynchronous: sums and registers of the left side are not touched between the instruction and the
// end of its group; shared memory that it reads is not overwritten.
#pragma once

#include <cstdint>

namespace assay::engine::cuda {

// How the instruction finds a tile that begins at a shared address.
__device__ __forceinline__ uint64_t TileDescriptor(uint32_t shared_address) {
  constexpr uint64_t kGroupStride = uint64_t{1024 >> 4} << 32;  // between groups of 8 rows
  constexpr uint64_t kIgnored = uint64_t{1} << 16;              // the other stride
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  return kSwizzle128 | kGroupStride | kIgnored | ((shared_address & 0x3FFFF) >> 4);
}
// Of the columns 16 i further; within the 64 of a tile.
__device__ __forceinline__ uint64_t Columns16(uint64_t descriptor, int i) {
  // No carry: 32 bits are enough.
  const auto low = static_cast<uint32_t>(descriptor) + static_cast<uint32_t>(i * (16 * 2 >> 4));
  return descriptor >> 32 << 32 | low;
}

// Before the first instruction that uses registers which ordinary code has written.
__device__ __forceinline__ void BeginProducts() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void CommitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// All but the last kPending groups have ended.
template <int kPending>
__device__ __forceinline__ void WaitForProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// The compiler must not move what follows before the wait, nor keep copies of the sums.
template <int kSize>
__device__ __forceinline__ void KeepInRegisters(float (&d)[kSize]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// The instruction's text names each of a thread's N / 2 sums: here for every N that is used, one
// list of names and one of operands, each the one before it and what comes with 8 more columns.
// clang-format off
#define ASSAY_NAMES_8 "%0, %1, %2, %3"
#define ASSAY_NAMES_16 ASSAY_NAMES_8 ", %4, %5, %6, %7"
#define ASSAY_NAMES_24 ASSAY_NAMES_16 ", %8, %9, %10, %11"
#define ASSAY_NAMES_32 ASSAY_NAMES_24 ", %12, %13, %14, %15"
#define ASSAY_NAMES_40 ASSAY_NAMES_32 ", %16, %17, %18, %19"
#define ASSAY_NAMES_48 ASSAY_NAMES_40 ", %20, %21, %22, %23"
#define ASSAY_NAMES_56 ASSAY_NAMES_48 ", %24, %25, %26, %27"
#define ASSAY_NAMES_64 ASSAY_NAMES_56 ", %28, %29, %30, %31"
#define ASSAY_NAMES_72 ASSAY_NAMES_64 ", %32, %33, %34, %35"
#define ASSAY_NAMES_80 ASSAY_NAMES_72 ", %36, %37, %38, %39"
#define ASSAY_NAMES_88 ASSAY_NAMES_80 ", %40, %41, %42, %43"
#define ASSAY_NAMES_96 ASSAY_NAMES_88 ", %44, %45, %46, %47"
#define ASSAY_NAMES_104 ASSAY_NAMES_96 ", %48, %49, %50, %51"
#define ASSAY_NAMES_112 ASSAY_NAMES_104 ", %52, %53, %54, %55"
#define ASSAY_NAMES_120 ASSAY_NAMES_112 ", %56, %57, %58, %59"
#define ASSAY_NAMES_128 ASSAY_NAMES_120 ", %60, %61, %62, %63"
#define ASSAY_NAMES_136 ASSAY_NAMES_128 ", %64, %65, %66, %67"
#define ASSAY_NAMES_144 ASSAY_NAMES_136 ", %68, %69, %70, %71"
#define ASSAY_NAMES_152 ASSAY_NAMES_144 ", %72, %73, %74, %75"
#define ASSAY_NAMES_160 ASSAY_NAMES_152 ", %76, %77, %78, %79"
#define ASSAY_NAMES_168 ASSAY_NAMES_160 ", %80, %81, %82, %83"
#define ASSAY_NAMES_176 ASSAY_NAMES_168 ", %84, %85, %86, %87"
#define ASSAY_NAMES_184 ASSAY_NAMES_176 ", %88, %89, %90, %91"
#define ASSAY_NAMES_192 ASSAY_NAMES_184 ", %92, %93, %94, %95"
#define ASSAY_NAMES_200 ASSAY_NAMES_192 ", %96, %97, %98, %99"
#define ASSAY_NAMES_208 ASSAY_NAMES_200 ", %100, %101, %102, %103"
#define ASSAY_NAMES_216 ASSAY_NAMES_208 ", %104, %105, %106, %107"
#define ASSAY_NAMES_224 ASSAY_NAMES_216 ", %108, %109, %110, %111"
#define ASSAY_NAMES_232 ASSAY_NAMES_224 ", %112, %113, %114, %115"
#define ASSAY_NAMES_240 ASSAY_NAMES_232 ", %116, %117, %118, %119"
#define ASSAY_NAMES_248 ASSAY_NAMES_240 ", %120, %121, %122, %123"
#define ASSAY_NAMES_256 ASSAY_NAMES_248 ", %124, %125, %126, %127"
#define ASSAY_SUMS(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define ASSAY_SUMS_8 ASSAY_SUMS(0)
#define ASSAY_SUMS_16 ASSAY_SUMS_8, ASSAY_SUMS(4)
#define ASSAY_SUMS_24 ASSAY_SUMS_16, ASSAY_SUMS(8)
#define ASSAY_SUMS_32 ASSAY_SUMS_24, ASSAY_SUMS(12)
#define ASSAY_SUMS_40 ASSAY_SUMS_32, ASSAY_SUMS(16)
#define ASSAY_SUMS_48 ASSAY_SUMS_40, ASSAY_SUMS(20)
#define ASSAY_SUMS_56 ASSAY_SUMS_48, ASSAY_SUMS(24)
#define ASSAY_SUMS_64 ASSAY_SUMS_56, ASSAY_SUMS(28)
#define ASSAY_SUMS_72 ASSAY_SUMS_64, ASSAY_SUMS(32)
#define ASSAY_SUMS_80 ASSAY_SUMS_72, ASSAY_SUMS(36)
#define ASSAY_SUMS_88 ASSAY_SUMS_80, ASSAY_SUMS(40)
#define ASSAY_SUMS_96 ASSAY_SUMS_88, ASSAY_SUMS(44)
#define ASSAY_SUMS_104 ASSAY_SUMS_96, ASSAY_SUMS(48)
#define ASSAY_SUMS_112 ASSAY_SUMS_104, ASSAY_SUMS(52)
#define ASSAY_SUMS_120 ASSAY_SUMS_112, ASSAY_SUMS(56)
#define ASSAY_SUMS_128 ASSAY_SUMS_120, ASSAY_SUMS(60)
#define ASSAY_SUMS_136 ASSAY_SUMS_128, ASSAY_SUMS(64)
#define ASSAY_SUMS_144 ASSAY_SUMS_136, ASSAY_SUMS(68)
#define ASSAY_SUMS_152 ASSAY_SUMS_144, ASSAY_SUMS(72)
#define ASSAY_SUMS_160 ASSAY_SUMS_152, ASSAY_SUMS(76)
#define ASSAY_SUMS_168 ASSAY_SUMS_160, ASSAY_SUMS(80)
#define ASSAY_SUMS_176 ASSAY_SUMS_168, ASSAY_SUMS(84)
#define ASSAY_SUMS_184 ASSAY_SUMS_176, ASSAY_SUMS(88)
#define ASSAY_SUMS_192 ASSAY_SUMS_184, ASSAY_SUMS(92)
#define ASSAY_SUMS_200 ASSAY_SUMS_192, ASSAY_SUMS(96)
#define ASSAY_SUMS_208 ASSAY_SUMS_200, ASSAY_SUMS(100)
#define ASSAY_SUMS_216 ASSAY_SUMS_208, ASSAY_SUMS(104)
#define ASSAY_SUMS_224 ASSAY_SUMS_216, ASSAY_SUMS(108)
#define ASSAY_SUMS_232 ASSAY_SUMS_224, ASSAY_SUMS(112)
#define ASSAY_SUMS_240 ASSAY_SUMS_232, ASSAY_SUMS(116)
#define ASSAY_SUMS_248 ASSAY_SUMS_240, ASSAY_SUMS(120)
#define ASSAY_SUMS_256 ASSAY_SUMS_248, ASSAY_SUMS(124)
// clang-format on

// Both sides in shared memory; `a` and `b` are what the instruction's text calls them.
#define ASSAY_MULTIPLY_SHARED(width, a, b)                                                   \
  __device__ __forceinline__ void MultiplyTiles(float(&d)[width / 2], uint64_t left,         \
                                                uint64_t right) {                            \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #width                                  \
                 "k16.f32.bf16.bf16 {" ASSAY_NAMES_##width "}, " a ", " b ", 1, 1, 1, 0, 0;" \
                 : ASSAY_SUMS_##width                                                        \
                 : "l"(left), "l"(right));                                                   \
  }

ASSAY_MULTIPLY_SHARED(8, "%4", "%5")
ASSAY_MULTIPLY_SHARED(16, "%8", "%9")
ASSAY_MULTIPLY_SHARED(24, "%12", "%13")
ASSAY_MULTIPLY_SHARED(32, "%16", "%17")
ASSAY_MULTIPLY_SHARED(40, "%20", "%21")
ASSAY_MULTIPLY_SHARED(48, "%24", "%25")
ASSAY_MULTIPLY_SHARED(56, "%28", "%29")
ASSAY_MULTIPLY_SHARED(64, "%32", "%33")
ASSAY_MULTIPLY_SHARED(80, "%40", "%41")
ASSAY_MULTIPLY_SHARED(96, "%48", "%49")
ASSAY_MULTIPLY_SHARED(112, "%56", "%57")
ASSAY_MULTIPLY_SHARED(128, "%64", "%65")
ASSAY_MULTIPLY_SHARED(144, "%72", "%73")
ASSAY_MULTIPLY_SHARED(160, "%80", "%81")
ASSAY_MULTIPLY_SHARED(176, "%88", "%89")
ASSAY_MULTIPLY_SHARED(192, "%96", "%97")
ASSAY_MULTIPLY_SHARED(208, "%104", "%105")
ASSAY_MULTIPLY_SHARED(224, "%112", "%113")
ASSAY_MULTIPLY_SHARED(240, "%120", "%121")
ASSAY_MULTIPLY_SHARED(256, "%128", "%129")

// The left side in registers.
#define ASSAY_MULTIPLY_REGISTERS(width, a, b)                                                   \
  __device__ __forceinline__ void MultiplyTiles(float(&d)[width / 2], const uint32_t(&left)[4], \
                                                uint64_t right) {                               \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #width                                     \
                 "k16.f32.bf16.bf16 {" ASSAY_NAMES_##width "}, {" a "}, " b ", 1, 1, 1, 0;"     \
                 : ASSAY_SUMS_##width                                                           \
                 : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right));         \
  }

ASSAY_MULTIPLY_REGISTERS(8, "%4, %5, %6, %7", "%8")
ASSAY_MULTIPLY_REGISTERS(16, "%8, %9, %10, %11", "%12")
ASSAY_MULTIPLY_REGISTERS(32, "%16, %17, %18, %19", "%20")
ASSAY_MULTIPLY_REGISTERS(64, "%32, %33, %34, %35", "%36")
ASSAY_MULTIPLY_REGISTERS(128, "%64, %65, %66, %67", "%68")

}  // namespace assay::engine::cuda
