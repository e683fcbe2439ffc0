// The C interface: what Python calls, with plain pointers and numbers. Mirrored in kernels.py.

#include <algorithm>
#include <iterator>
#include <vector>

#include "forward.h"
#include "matrix.h"
#include "sampling.h"
#include "team.h"
#include "tiles.h"

extern "C" {

// Whether this CPU has the instructions this library was compiled for.
int zaya_runs_here() {
    __builtin_cpu_init();
#if HAS_TILES
    if (!__builtin_cpu_supports("avx512bf16") || !ask_for_tiles()) return 0;
#endif
#if defined(__AVX512F__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
#else
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#endif
}

// Bytes of the structures that Python mirrors: a library built from other sources than the ones beside it is found out.
void zaya_sizes(int64_t* sizes) {
    const int64_t all[] = {sizeof(Matrix), sizeof(Layer), sizeof(Model), sizeof(Pass), sizeof(Draws)};
    std::copy(std::begin(all), std::end(all), sizes);
}

// Floats in a vector: sizes that kernels run over are multiples of it.
int zaya_vector_width() { return W; }

// Whether many vectors are multiplied on tile registers.
int zaya_has_tiles() { return HAS_TILES; }

// Bytes of scratch that `zaya_linear` needs.
int64_t zaya_linear_scratch(int count, int inner) { return (int64_t)Vectors::bytes(count, inner); }

// y [count][outer] = x [count][inner] · matrixᵀ
void zaya_linear(const Matrix* m, const float* x, int count, float* y, char* scratch, int threads) {
    Vectors vectors;
    vectors.place(scratch, count, m->inner);
    vectors.plain = const_cast<float*>(x);
    const int rows = m->outer >= 65536 ? 256 : 64;
    if ((int64_t)m->outer * m->inner * count < 1 << 18) threads = 1;  // done before another thread has woken
    run_team(threads, [&](Team& team, int) {
        for (int i; (i = team.take(count)) >= 0;) vectors.prepare(i, m->kind);
        team.meet();
        for (int chunk; (chunk = team.take((m->outer + rows - 1) / rows)) >= 0;) {
            int first = chunk * rows, last = first + rows < m->outer ? first + rows : m->outer;
            for (int at = 0; at < count; at += MAX_VECTORS) {
                int some = count - at < MAX_VECTORS ? count - at : MAX_VECTORS, which[MAX_VECTORS];
                float* out[MAX_VECTORS];
                for (int i = 0; i < some; i++) which[i] = at + i, out[i] = y + (size_t)(at + i) * m->outer;
                multiply(*m, vectors, which, some, first, last, out);
            }
        }
    });
}

// Fill an int8 or int4 matrix from a dense one of the same shape, float32 or bfloat16. `sums` gets the sum of squares of
// what is lost, and of the whole.
void zaya_quantize(const Matrix* to, const Matrix* from, double* sums, int threads) {
    const int tiles = to->outer / TILE;
    std::vector<double> lost(tiles), whole(tiles);
    run_team(threads, [&](Team& team, int) {
        std::vector<float> rows((size_t)TILE * to->inner);
        for (int tile; (tile = team.take(tiles)) >= 0;) {
            for (int r = 0; r < TILE; r++) read_row(*from, tile * TILE + r, rows.data() + (size_t)r * to->inner);
            for (float x : rows) whole[tile] += (double)x * x;
            lost[tile] = fill_tile(*to, tile, rows.data());
        }
    });
    sums[0] = sums[1] = 0;
    for (int tile = 0; tile < tiles; tile++) sums[0] += lost[tile], sums[1] += whole[tile];
}

// A matrix of any kind as a dense one, float32 or bfloat16: rows [first, last).
void zaya_dequantize(const Matrix* from, int first, int last, void* to, int is_bf16, int threads) {
    const int inner = from->inner, step = 16;
    run_team(threads, [&](Team& team, int) {
        std::vector<float> row(inner);
        for (int chunk; (chunk = team.take((last - first + step - 1) / step)) >= 0;) {
            for (int r = chunk * step; r < (chunk + 1) * step && first + r < last; r++) {
                if (!is_bf16) {
                    read_row(*from, first + r, (float*)to + (size_t)r * inner);
                    continue;
                }
                read_row(*from, first + r, row.data());
                for (int i = 0; i < inner; i++) ((uint16_t*)to)[(size_t)r * inner + i] = float_to_bf16(row[i]);
            }
        }
    });
}

// A token for every row.
void zaya_draw(const Draws* d, int threads) {
    run_team(std::min(threads, d->rows), [&](Team& team, int) {
        thread_local std::vector<float> memory;  // kept: a fresh one would have its pages given anew every time
        if (memory.size() < (size_t)d->vocab) memory.resize(d->vocab);
        for (int row; (row = team.take(d->rows)) >= 0;) draw_row(*d, row, memory.data());
    });
}

// log Σ exp of every row.
void zaya_log_sums(const float* logits, int rows, int vocab, float* out, int threads) {
    run_team(std::min(threads, rows), [&](Team& team, int) {
        for (int row; (row = team.take(rows)) >= 0;) out[row] = log_sum(logits + (size_t)row * vocab, vocab);
    });
}
}
