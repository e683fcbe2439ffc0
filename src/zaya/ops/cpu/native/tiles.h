// Products of many vectors with a matrix, on the tile registers of AMX: 16 rows by 16 vectors at a time, in bfloat16
// with sums in float32; and attention over int8 keys in whole numbers. Only in the build for processors that have them.
//
// The rows of the matrix are the first factor and are read where they lie; the vectors, 16 to a block, are the second:
//
//     block   [inner / 2][16 vectors][2]   bfloat16, so that a line of 64 bytes holds two places of all 16
//
// Results come out with a row of the matrix in each line and a vector in each lane.

#pragma once

#include "matrix.h"

#if defined(__AMX_BF16__) && defined(__AMX_INT8__)
#define HAS_TILES 1

#include <immintrin.h>

constexpr int LANES = 16;  // vectors of a block

// Whether the kernel lets this process use the tile registers.
bool ask_for_tiles();

// To be called by a thread before it uses tiles, and after.
void start_tiles();
void stop_tiles();

// 16 vectors of `inner` floats as a block; rows from `count` on are zero.
void pack_block(const float* const* rows, int count, int inner, uint16_t* block);

// What is to be in the second-level cache soon: two pieces of memory of one size, asked for a little at every step of a
// product. A product of a hundred tokens takes as long as its weights take to come: side by side they cost half.
struct Ahead {
    const char* first = nullptr;
    const char* second = nullptr;
    size_t bytes = 0;    // that are left of each
    size_t a_step = 0;   // bytes of each at every step

    // To be through with both after so many steps.
    void spread(int64_t steps) { a_step = ((bytes + steps - 1) / steps + 63) / 64 * 64; }
    void step() {
        if (bytes == 0) return;
        const size_t some = a_step < bytes ? a_step : bytes;
        for (size_t at = 0; at < some; at += 64) {
            _mm_prefetch(first + at, _MM_HINT_T1);
            _mm_prefetch(second + at, _MM_HINT_T1);
        }
        first += some, second += some, bytes -= some;
    }
};

// c [2][2][16][16] = (16 rows of a, 16 rows of b) by (block x, block y); a row every `stride` numbers.
void tiles_times(const uint16_t* a, const uint16_t* b, size_t stride, const uint16_t* x, const uint16_t* y, int inner, float* c, Ahead& ahead);

// The same for one block: c [2][16][16].
void tiles_times(const uint16_t* a, const uint16_t* b, size_t stride, const uint16_t* x, int inner, float* c, Ahead& ahead);

// in [16][16] across the diagonal, into out[lane][0..16) for `count` lanes.
void turn(const float* in, float* const* out, int count);

// Sixteen lines of float pairs to bfloat16: lines 2i and 2i+1 of `in` [lines][16] become line i of `out` [lines/2][16][2].
void pair_lines(const float* in, int lines, uint16_t* out);

// 16 rows of a matrix of any kind as bfloat16, in place where they are that already: the first, with its stride.
const uint16_t* rows_in_bf16(const Matrix& m, int first, uint16_t* memory, size_t* stride);

// 2^x to about 4e-6: what is then rounded to bfloat16 needs no more
static inline vf exp2_rounded(vf x) {
    vf n = round_even(x), f = _mm512_sub_ps(x, n);
    vf p = splat(9.6181291e-3f);
    p = fma(p, f, splat(5.5504109e-2f));
    p = fma(p, f, splat(2.4022651e-1f));
    p = fma(p, f, splat(6.9314718e-1f));
    p = fma(p, f, splat(1.0f));
    return _mm512_scalef_ps(p, n);
}

static inline vf silu_rounded(vf x) {
    return mul(x, _mm512_rcp14_ps(add(splat(1.0f), exp2_rounded(mul(x, splat(-1.44269504f))))));
}

// A transposed copy of 16-bit numbers: 32 rows of 16 (every `stride`) become 16 rows of 32 (every `out_stride`).
void turn_16bit(const uint16_t* in, size_t stride, uint16_t* out, size_t out_stride);

// Attention of up to four query heads over int8 keys and values, exact in whole numbers. What has 16 bits goes in as two
// bytes, a high and a low one, each a vector of its own: of head h these are vectors h and 4 + h.
constexpr int WHOLE_KEYS = 64;  // values of one product

// 16-bit vectors [count][size] as `size` / 64 tiles of 1,024 bytes.
void pack_whole(const int16_t* q, int count, int size, int8_t* tiles);

// dots [16 keys][4 heads] of 16 keys, a row each, with what was packed.
void whole_dots(const int8_t* keys, int size, const int8_t* tiles, int32_t* dots);

// Weights from 0 to 32,000 of 16 keys, [key][4 heads], as bytes at `at` of the rows of [16][stride].
void pack_weights(const float* weights, vf scale, uint8_t* rows, size_t stride, int at);

// Four keys' values, 64 channels of each, as line `line` of four tiles.
void pack_values(const int8_t* values, size_t stride, int8_t* tiles, int line);

// sums [4 heads][64 channels] of values times weights: four tiles for every 64 keys, `step` bytes apart.
void whole_sums(const uint8_t* rows, size_t stride, int keys, const int8_t* tiles, size_t step, int32_t* sums);

#else
#define HAS_TILES 0
#endif
