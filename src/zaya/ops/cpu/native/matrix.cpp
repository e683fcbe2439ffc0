#include "matrix.h"

#include <cmath>

void Vectors::place(char* memory, int count, int inner_) {
    auto next = [&](size_t bytes) {
        char* at = memory;
        memory += (bytes + 63) / 64 * 64;
        return at;
    };
    inner = inner_;
    size_t groups = (size_t)(inner + GROUP - 1) / GROUP;
    plain = (float*)next((size_t)count * inner * 4);
    pairs = (float*)next((size_t)count * inner * 4);
    codes = (int8_t*)next((size_t)count * inner);
    scales = (float*)next((size_t)count * groups * 4);
    sums = (int32_t*)next((size_t)count * groups * 4);
}

static void prepare_pairs(const float* plain, float* pairs, int first, int last) {
    for (int block = first; block < last; block += 2 * W) {
        for (int i = 0; i < W; i++) {
            pairs[block + i] = plain[block + 2 * i];
            pairs[block + W + i] = plain[block + 2 * i + 1];
        }
    }
}

static void prepare_codes(const float* plain, int8_t* codes, float* scales, int32_t* sums, int first, int last) {
    for (int at = first; at < last; at += GROUP) {
        vf largest = zero(), total = zero();
        for (int i = 0; i < GROUP; i += W) largest = vmax(largest, vabs(load(plain + at + i)));
        float top = maximum(largest);
        float inverse = top > 0 ? 127.0f / top : 0.0f;
        for (int i = 0; i < GROUP; i += W) {
            vf code = round_even(mul(load(plain + at + i), splat(inverse)));
            store_int8(codes + at + i, code);
            total = add(total, code);
        }
        scales[at / GROUP] = top / 127.0f;
        sums[at / GROUP] = (int32_t)sum(total);
    }
}

void Vectors::prepare(int vector, int32_t kind, int first, int last) {
    const size_t at = (size_t)vector * inner, group = (size_t)vector * (inner / GROUP);
    if (kind == BF16 || kind == MXFP4) prepare_pairs(plain + at, pairs + at, first, last);
    if (kind == INT8 || kind == INT4) prepare_codes(plain + at, codes + at, scales + group, sums + group, first, last);
}

// How far ahead weights are asked for, in each of the rows or tiles that are read at once. Several places, each asked for
// further on than the processor's own prefetcher looks, get more of the memory than one: 33 GB/s against 27 where two
// threads only add up what they read (docs/log.md).
constexpr size_t AHEAD = 1024;

// ----- dense rows

// 2W weights of a row, from column `at`: the first and second half of what the vector form holds there.
template <int KIND>
static inline void load_weights(const void* row, int at, vf& first, vf& second) {
    if constexpr (KIND == F32) {
        first = load((const float*)row + at);
        second = load((const float*)row + at + W);
    } else if constexpr (KIND == BF16) {
        load_bf16_pairs((const uint16_t*)row + at, first, second);
    } else if constexpr (KIND == FP8) {
        first = load_fp8((const uint8_t*)row + at);
        second = load_fp8((const uint8_t*)row + at + W);
    } else {
        load_mxfp4_pairs((const uint8_t*)row + at / 2, first, second);
    }
}

template <int KIND>
static inline size_t row_bytes(int inner) {
    if constexpr (KIND == F32) return (size_t)inner * 4;
    if constexpr (KIND == BF16) return (size_t)inner * 2;
    if constexpr (KIND == FP8) return (size_t)inner;
    return (size_t)inner / 2;
}

template <int KIND, int ROWS, int COUNT>
static void rows_times(const Matrix& m, const float* const* x, int row, float* const* out) {
    const char* base = (const char*)m.data + row_bytes<KIND>(m.inner) * row;
    vf total[ROWS][COUNT];
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COUNT; c++) total[r][c] = zero();
    // What lies ahead of the end of a row is the beginning of one of the next ROWS.
    const size_t bytes = row_bytes<KIND>(m.inner), step = row_bytes<KIND>(2 * W);
    const char* ahead = base + AHEAD / bytes * ROWS * bytes;
    size_t next = AHEAD % bytes;
    int whole = m.inner / (2 * W) * (2 * W);
    for (int at = 0; at < whole; at += 2 * W) {
        for (size_t line = 0; line < step; line += 64)
            for (int r = 0; r < ROWS; r++) _mm_prefetch(ahead + r * bytes + next + line, _MM_HINT_T0);
        if ((next += step) >= bytes) next -= bytes, ahead += ROWS * bytes;
        vf first[ROWS], second[ROWS];
        for (int r = 0; r < ROWS; r++)
            load_weights<KIND>(base + row_bytes<KIND>(m.inner) * r, at, first[r], second[r]);
        for (int c = 0; c < COUNT; c++) {
            vf a = load(x[c] + at), b = load(x[c] + at + W);
            for (int r = 0; r < ROWS; r++) {
                if constexpr (KIND == MXFP4) {
                    float scale = e8m0_to_float(((const uint8_t*)m.scale)[(size_t)(row + r) * (m.inner / 32) + at / 32]);
                    total[r][c] = fma(fma(second[r], b, mul(first[r], a)), splat(scale), total[r][c]);
                } else {
                    total[r][c] = fma(second[r], b, fma(first[r], a, total[r][c]));
                }
            }
        }
    }
    if (KIND == F32 && whole < m.inner) {  // one vector more
        for (int r = 0; r < ROWS; r++) {
            vf weights = load((const float*)(base + row_bytes<KIND>(m.inner) * r) + whole);
            for (int c = 0; c < COUNT; c++) total[r][c] = fma(weights, load(x[c] + whole), total[r][c]);
        }
    }
    for (int c = 0; c < COUNT; c++) {
        if constexpr (ROWS == 4) _mm_storeu_ps(out[c] + row, sum4(total[0][c], total[1][c], total[2][c], total[3][c]));
        else out[c][row] = sum(total[0][c]);
        if constexpr (KIND == FP8)
            for (int r = 0; r < ROWS; r++) out[c][row + r] *= ((const float*)m.scale)[row + r];
    }
}

template <int KIND, int COUNT>
static void dense(const Matrix& m, const float* const* x, int first, int last, float* const* out) {
    int row = first;
    for (; row + 4 <= last; row += 4) rows_times<KIND, 4, COUNT>(m, x, row, out);
    for (; row < last; row++) rows_times<KIND, 1, COUNT>(m, x, row, out);
}

// ----- tiles of codes

#if defined(__AVX512F__)
using vi = __m512i;
constexpr int LINES = 1;  // vectors of codes in a line of 64
static inline vi load_codes(const void* p) { return _mm512_loadu_si512(p); }
static inline vi low_half(vi x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
static inline vi high_half(vi x) { return _mm512_and_si512(_mm512_srli_epi16(x, 4), _mm512_set1_epi8(15)); }
static inline vi splat_int(int32_t x) { return _mm512_set1_epi32(x); }
static inline vf to_float(vi x) { return _mm512_cvtepi32_ps(x); }
// total += for each row its four unsigned codes times four signed ones
template <bool IS_BYTE>
static inline vi dot(vi total, vi unsigned_codes, int32_t signed_codes) {
    return _mm512_dpbusd_epi32(total, unsigned_codes, _mm512_set1_epi32(signed_codes));
}
#else
using vi = __m256i;
constexpr int LINES = 2;
static inline vi load_codes(const void* p) { return _mm256_loadu_si256((const __m256i*)p); }
static inline vi low_half(vi x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
static inline vi high_half(vi x) { return _mm256_and_si256(_mm256_srli_epi16(x, 4), _mm256_set1_epi8(15)); }
static inline vi splat_int(int32_t x) { return _mm256_set1_epi32(x); }
static inline vf to_float(vi x) { return _mm256_cvtepi32_ps(x); }
template <bool IS_BYTE>
static inline vi dot(vi total, vi unsigned_codes, int32_t signed_codes) {
    vi other = _mm256_set1_epi32(signed_codes);
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(total, unsigned_codes, other);
#else
    vi products;
    if constexpr (IS_BYTE) {
        // Sums of two products must fit 16 bits: with the sign moved over, both factors are below 128. What the offset
        // of the codes adds is added here again, since the caller takes it off.
        vi centred = _mm256_xor_si256(unsigned_codes, _mm256_set1_epi8((char)0x80));
        products = _mm256_maddubs_epi16(_mm256_abs_epi8(other), _mm256_sign_epi8(centred, other));
        vi offset = _mm256_maddubs_epi16(_mm256_set1_epi8(1), other);
        total = _mm256_add_epi32(total, _mm256_slli_epi32(_mm256_madd_epi16(offset, _mm256_set1_epi16(1)), 7));
    } else {
        products = _mm256_maddubs_epi16(unsigned_codes, other);
    }
    return _mm256_add_epi32(total, _mm256_madd_epi16(products, _mm256_set1_epi16(1)));
#endif
}
#endif

// `more` says that as many tiles as these follow and are read next.
template <int KIND, int COUNT, int TILES>
static void tiles_at_once(const Matrix& m, const Vectors& x, const int* vectors, int tile, bool more, float* const* out) {
    const int groups = m.inner / GROUP;
    const size_t code_bytes = tile_code_bytes(KIND, m.inner), scale_bytes = (size_t)groups * TILE * 2;
    const size_t behind = TILES * tile_bytes(KIND, m.inner);  // from a tile to the one that is read after it
    constexpr size_t group_bytes = GROUP * TILE / (KIND == INT4 ? 2 : 1);
    const uint8_t* codes[TILES];
    const void* scales[TILES];
    const int8_t* xs[COUNT];
    vf total[TILES][COUNT][LINES];
    for (int i = 0; i < TILES; i++) {
        codes[i] = (const uint8_t*)m.data + tile_bytes(KIND, m.inner) * (tile + i);
        scales[i] = codes[i] + tile_code_bytes(KIND, m.inner);
        for (int c = 0; c < COUNT; c++)
            for (int l = 0; l < LINES; l++) total[i][c][l] = zero();
    }
    for (int c = 0; c < COUNT; c++) xs[c] = x.codes + (size_t)vectors[c] * m.inner;
    for (int g = 0; g < groups; g++) {
        for (int i = 0; i < TILES; i++) {
            const uint8_t* here = codes[i] + (size_t)g * group_bytes;
            size_t ahead = g * group_bytes + AHEAD;
            if (ahead >= code_bytes && more) ahead += behind - code_bytes;
            for (size_t line = 0; line < group_bytes; line += 64) _mm_prefetch((const char*)codes[i] + ahead + line, _MM_HINT_T0);
            if (KIND == INT4 && g % 2 == 0) {  // a line of scales
                size_t next = g * TILE * 2 + AHEAD / 4;
                if (next >= scale_bytes && more) next += behind - scale_bytes;
                _mm_prefetch((const char*)scales[i] + next, _MM_HINT_T0);
            }
            for (int l = 0; l < LINES; l++) {
                vi line[GROUP / 4];
                if constexpr (KIND == INT4) {
                    for (int j = 0; j < GROUP / 8; j++) {
                        vi both = load_codes(here + j * 64 + l * 32);
                        line[2 * j] = low_half(both);
                        line[2 * j + 1] = high_half(both);
                    }
                } else {
                    for (int j = 0; j < GROUP / 4; j++) line[j] = load_codes(here + j * 64 + l * 32);
                }
                for (int c = 0; c < COUNT; c++) {
                    const size_t at = (size_t)vectors[c] * groups + g;
                    vi sum = splat_int(x.sums[at] * (KIND == INT4 ? -8 : -128));
                    for (int j = 0; j < GROUP / 4; j++) {
                        int32_t four;
                        std::memcpy(&four, xs[c] + g * GROUP + j * 4, 4);
                        sum = dot<KIND == INT8>(sum, line[j], four);
                    }
                    vf scale = splat(x.scales[at]);
                    if constexpr (KIND == INT4) scale = mul(scale, load_bf16((const uint16_t*)scales[i] + g * TILE + l * W));
                    total[i][c][l] = fma(to_float(sum), scale, total[i][c][l]);
                }
            }
        }
    }
    for (int i = 0; i < TILES; i++)
        for (int c = 0; c < COUNT; c++)
            for (int l = 0; l < LINES; l++) {
                vf y = total[i][c][l];
                if constexpr (KIND == INT8) y = mul(y, load((const float*)scales[i] + l * W));
                store(out[c] + (tile + i) * TILE + l * W, y);
            }
}

template <int KIND, int COUNT>
static void tiles(const Matrix& m, const Vectors& x, const int* vectors, int first, int last, float* const* out) {
    constexpr int AT_ONCE = W == 16 || COUNT == 1 ? 2 : 1;  // as many as there are registers for
    int tile = first / TILE;
    for (; tile + AT_ONCE <= last / TILE; tile += AT_ONCE)
        tiles_at_once<KIND, COUNT, AT_ONCE>(m, x, vectors, tile, tile + 2 * AT_ONCE <= last / TILE, out);
    for (; tile < last / TILE; tile++) tiles_at_once<KIND, COUNT, 1>(m, x, vectors, tile, tile + 2 <= last / TILE, out);
}

// ----- choice

template <int COUNT>
static void multiply_some(const Matrix& m, const Vectors& x, const int* vectors, int first, int last, float* const* out) {
    const float* rows[COUNT];
    const float* form = m.kind == BF16 || m.kind == MXFP4 ? x.pairs : x.plain;
    for (int c = 0; c < COUNT; c++) rows[c] = form + (size_t)vectors[c] * m.inner;
    switch (m.kind) {
        case F32: return dense<F32, COUNT>(m, rows, first, last, out);
        case BF16: return dense<BF16, COUNT>(m, rows, first, last, out);
        case FP8: return dense<FP8, COUNT>(m, rows, first, last, out);
        case MXFP4: return dense<MXFP4, COUNT>(m, rows, first, last, out);
        case INT8: return tiles<INT8, COUNT>(m, x, vectors, first, last, out);
        case INT4: return tiles<INT4, COUNT>(m, x, vectors, first, last, out);
    }
}

void multiply(const Matrix& m, const Vectors& x, const int* vectors, int count, int first, int last, float* const* out) {
    for (; count >= MAX_VECTORS; count -= MAX_VECTORS, vectors += MAX_VECTORS, out += MAX_VECTORS)
        multiply_some<MAX_VECTORS>(m, x, vectors, first, last, out);
    if constexpr (MAX_VECTORS == 4) {
        if (count == 3) multiply_some<3>(m, x, vectors, first, last, out);
        if (count == 2) multiply_some<2>(m, x, vectors, first, last, out);
    }
    if (count == 1) multiply_some<1>(m, x, vectors, first, last, out);
}

void read_row(const Matrix& m, int row, float* out) {
    const size_t at = (size_t)row * m.inner;
    switch (m.kind) {
        case F32: std::memcpy(out, (const float*)m.data + at, (size_t)m.inner * 4); return;
        case BF16:
            for (int i = 0; i < m.inner; i++) out[i] = bf16_to_float(((const uint16_t*)m.data)[at + i]);
            return;
        case FP8: {
            float scale = ((const float*)m.scale)[row];
            for (int i = 0; i < m.inner; i += W)
                store(out + i, mul(load_fp8((const uint8_t*)m.data + at + i), splat(scale)));
            return;
        }
        case MXFP4: {
            static const float values[16] = {0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6};
            for (int i = 0; i < m.inner; i++) {
                int code = ((const uint8_t*)m.data)[(at + i) / 2] >> (i & 1) * 4 & 15;
                out[i] = values[code] * e8m0_to_float(((const uint8_t*)m.scale)[(at + i) / 32]);
            }
            return;
        }
    }
    const uint8_t* codes = (const uint8_t*)m.data + tile_bytes(m.kind, m.inner) * (row / TILE);
    const void* scales = codes + tile_code_bytes(m.kind, m.inner);
    const int r = row % TILE;
    for (int i = 0; i < m.inner; i++) {
        if (m.kind == INT8) {
            out[i] = (float)(codes[i / 4 * 64 + r * 4 + i % 4] - 128) * ((const float*)scales)[r];
        } else {
            int code = codes[i / 8 * 64 + r * 4 + i % 4] >> (i / 4 & 1) * 4 & 15;
            out[i] = (float)(code - 8) * bf16_to_float(((const uint16_t*)scales)[i / GROUP * TILE + r]);
        }
    }
}

// ----- to codes

// What follows works on W rows of a tile at a time, a row in each lane; `x` holds a column every TILE floats.

// The scales of a group of int4 values, rounded to bfloat16, of either sign: the largest value gets the code -8 or
// nearly, a few scales around that are tried, and the best is fitted to its codes.
static vf int4_scales(const float* x) {
    vf extreme = zero();
    for (int i = 0; i < GROUP; i++) {
        vf v = load(x + i * TILE);
        extreme = choose(vabs(v), vabs(extreme), v, extreme);
    }
    vf best = zero(), scale = mul(extreme, splat(-0.125f));
    const vf inverse_extreme = choose(vabs(extreme), zero(), splat(1.0f) / extreme, zero());
    for (int step = 0; step <= 18; step++) {  // the largest value at -7.1 to -8.9, cut at -8
        const vf inverse = mul(inverse_extreme, splat(-(7.1f + 0.1f * (float)step)));
        vf products = zero(), squares = zero();
        for (int i = 0; i < GROUP; i++) {
            vf v = load(x + i * TILE), code = vmax(vmin(round_even(mul(v, inverse)), splat(7)), splat(-8));
            products = fma(code, v, products);
            squares = fma(code, code, squares);
        }
        squares = vmax(squares, splat(1.0f));
        vf gain = mul(products, products) / squares;
        scale = choose(gain, best, products / squares, scale);
        best = vmax(gain, best);
    }
    return to_bf16(scale);
}

double fill_tile(const Matrix& m, int tile, const float* rows) {
    uint8_t* codes = (uint8_t*)m.data + tile_bytes(m.kind, m.inner) * tile;
    void* scales = codes + tile_code_bytes(m.kind, m.inner);
    if (m.kind == INT4) std::memset(codes, 0, tile_code_bytes(m.kind, m.inner));
    alignas(64) float x[GROUP * TILE], tops[TILE], some_scales[TILE];
    for (int r = 0; r < TILE; r++) {
        vf top = zero();
        for (int i = 0; i < m.inner; i += W) top = vmax(top, vabs(load(rows + (size_t)r * m.inner + i)));
        tops[r] = maximum(top) / 127.0f;
    }
    if (m.kind == INT8) std::memcpy(scales, tops, sizeof tops);
    const vf low = splat(m.kind == INT8 ? -127 : -8), high = splat(m.kind == INT8 ? 127 : 7);
    double lost = 0;
    for (int at = 0; at < m.inner; at += GROUP) {
        for (int r = 0; r < TILE; r++)
            for (int i = 0; i < GROUP; i++) x[i * TILE + r] = rows[(size_t)r * m.inner + at + i];
        vf errors = zero();
        for (int r = 0; r < TILE; r += W) {
            const vf scale = m.kind == INT8 ? load(tops + r) : int4_scales(x + r);
            store(some_scales + r, scale);
            const vf inverse = choose(vabs(scale), zero(), splat(1.0f) / scale, zero());
            for (int i = 0; i < GROUP; i++) {
                vf v = load(x + i * TILE + r), code = vmax(vmin(round_even(mul(v, inverse)), high), low);
                vf error = fma(code, mul(scale, splat(-1.0f)), v);
                errors = fma(error, error, errors);
                store(x + i * TILE + r, code);
            }
        }
        lost += sum(errors);
        for (int i = 0; i < GROUP; i++) {
            const int c = at + i;
            for (int r = 0; r < TILE; r++) {
                const int code = (int)x[i * TILE + r];
                if (m.kind == INT8) codes[c / 4 * 64 + r * 4 + c % 4] = (uint8_t)(code + 128);
                else codes[c / 8 * 64 + r * 4 + c % 4] |= (uint8_t)((code + 8) << (c / 4 & 1) * 4);
            }
        }
        if (m.kind == INT4)
            for (int r = 0; r < TILE; r++) ((uint16_t*)scales)[at / GROUP * TILE + r] = float_to_bf16(some_scales[r]);
    }
    return lost;
}
