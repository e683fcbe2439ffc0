#include "tiles.h"

#if HAS_TILES

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

bool ask_for_tiles() {
    constexpr int REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    const bool has = (d >> 22 & 1) && (d >> 24 & 1) && (d >> 25 & 1);  // amx-bf16, amx-tile, amx-int8
    return has && syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

// A constant, because the compiler does not know that loading it reads memory.
struct TileConfig {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64, "as the processor reads it");
extern const TileConfig tile_config;
const TileConfig tile_config;

void start_tiles() { _tile_loadconfig(&tile_config); }

void stop_tiles() { _tile_release(); }

// 16 x 16 numbers of 32 bits across the diagonal
static inline void turn_lines(__m512i* r) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

void pack_block(const float* const* rows, int count, int inner, uint16_t* block) {
    for (int at = 0; at < inner; at += 32) {
        __m512i line[16];
        for (int v = 0; v < 16; v++) {
            if (v < count)
                line[v] = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(rows[v] + at + 16), _mm512_loadu_ps(rows[v] + at));
            else
                line[v] = _mm512_setzero_si512();
        }
        turn_lines(line);
        for (int i = 0; i < 16; i++) _mm512_storeu_si512(block + (size_t)(at / 2 + i) * 32, line[i]);
    }
}

void tiles_times(const uint16_t* a, const uint16_t* b, size_t stride, const uint16_t* x, const uint16_t* y, int inner, float* c, Ahead& ahead) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int k = 0; k < inner; k += 32) {
        ahead.step();
        _tile_loadd(4, a + k, stride * 2);
        _tile_loadd(6, x + (size_t)k * 16, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, y + (size_t)k * 16, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, b + k, stride * 2);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, 64);
    _tile_stored(1, c + 256, 64);
    _tile_stored(2, c + 512, 64);
    _tile_stored(3, c + 768, 64);
}

void tiles_times(const uint16_t* a, const uint16_t* b, size_t stride, const uint16_t* x, int inner, float* c, Ahead& ahead) {
    _tile_zero(0);
    _tile_zero(2);
    for (int k = 0; k < inner; k += 32) {
        ahead.step();
        _tile_loadd(4, a + k, stride * 2);
        _tile_loadd(6, x + (size_t)k * 16, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, b + k, stride * 2);
        _tile_dpbf16ps(2, 5, 6);
    }
    _tile_stored(0, c, 64);
    _tile_stored(2, c + 256, 64);
}

void turn(const float* in, float* const* out, int count) {
    __m512i line[16];
    for (int i = 0; i < 16; i++) line[i] = _mm512_loadu_si512(in + i * 16);
    turn_lines(line);
    for (int i = 0; i < count; i++) _mm512_storeu_si512(out[i], line[i]);
}

void pair_lines(const float* in, int lines, uint16_t* out) {
    // lane i of the first line, then lane i of the second
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
                                           23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (int i = 0; i < lines; i += 2) {
        __m512i both = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(in + (i + 1) * 16), _mm512_loadu_ps(in + i * 16));
        _mm512_storeu_si512(out + (size_t)i * 16, _mm512_permutexvar_epi16(order, both));
    }
}

void turn_16bit(const uint16_t* in, size_t stride, uint16_t* out, size_t out_stride) {
    // pairs of rows as 32-bit numbers, those across the diagonal
    __m512i line[16];
    for (int i = 0; i < 16; i++) {
        __m256i first = _mm256_loadu_si256((const __m256i*)(in + (size_t)(2 * i) * stride));
        __m256i second = _mm256_loadu_si256((const __m256i*)(in + (size_t)(2 * i + 1) * stride));
        line[i] = _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
    }
    turn_lines(line);
    for (int i = 0; i < 16; i++) _mm512_storeu_si512(out + (size_t)i * out_stride, line[i]);
}

static inline __m512i both_halves(__m256i low, __m256i high) { return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1); }

void pack_whole(const int16_t* q, int count, int size, int8_t* tiles) {
    const __m512i half = _mm512_set1_epi16(128);
    for (int i = 0; i < size; i += 64) {
        __m512i line[16] = {};  // four channels in a place; across the diagonal, a vector
        for (int h = 0; h < count; h++) {
            const __m512i x = _mm512_loadu_si512(q + h * size + i), y = _mm512_loadu_si512(q + h * size + i + 32);
            const __m512i a = _mm512_srai_epi16(_mm512_add_epi16(x, half), 8), b = _mm512_srai_epi16(_mm512_add_epi16(y, half), 8);
            line[h] = both_halves(_mm512_cvtepi16_epi8(a), _mm512_cvtepi16_epi8(b));
            line[4 + h] = both_halves(_mm512_cvtepi16_epi8(x), _mm512_cvtepi16_epi8(y));  // what is left are the low bits
        }
        turn_lines(line);
        for (int j = 0; j < 16; j++) _mm512_storeu_si512(tiles + (size_t)i * 16 + j * 64, line[j]);
    }
}

void whole_dots(const int8_t* keys, int size, const int8_t* tiles, int32_t* dots) {
    _tile_zero(0);
    for (int i = 0; i < size; i += 64) {
        _tile_loadd(4, keys + i, size);
        _tile_loadd(5, tiles + (size_t)i * 16, 64);
        _tile_dpbssd(0, 4, 5);
    }
    alignas(64) int32_t c[256];
    _tile_stored(0, c, 64);
    for (int k = 0; k < 16; k++) {
        const __m128i high = _mm_load_si128((const __m128i*)(c + k * 16)), low = _mm_load_si128((const __m128i*)(c + k * 16 + 4));
        _mm_storeu_si128((__m128i*)(dots + k * 4), _mm_add_epi32(_mm_slli_epi32(high, 8), low));
    }
}

void pack_weights(const float* weights, vf scale, uint8_t* rows, size_t stride, int at) {
    __m512i high = _mm512_setzero_si512(), low = high;
    const __m512i low_bits = _mm512_set1_epi32(127);
#define FOUR_KEYS(i) { \
        const __m512i x = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(weights + i * 16), scale)); \
        high = _mm512_inserti32x4(high, _mm512_cvtepi32_epi8(_mm512_srli_epi32(x, 7)), i); \
        low = _mm512_inserti32x4(low, _mm512_cvtepi32_epi8(_mm512_and_si512(x, low_bits)), i); }
    FOUR_KEYS(0) FOUR_KEYS(1) FOUR_KEYS(2) FOUR_KEYS(3)
#undef FOUR_KEYS
    // from [4][4 keys][4 heads] to [4 heads][4][4 keys]
    const __m512i across = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512i heads = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    alignas(64) uint8_t both[128];
    _mm512_store_si512(both, _mm512_permutexvar_epi32(heads, _mm512_shuffle_epi8(high, across)));
    _mm512_store_si512(both + 64, _mm512_permutexvar_epi32(heads, _mm512_shuffle_epi8(low, across)));
    for (int row = 0; row < 8; row++) std::memcpy(rows + row * stride + at, both + row * 16, 16);
}

void pack_values(const int8_t* values, size_t stride, int8_t* tiles, int line) {
    __m512i r[4];
    for (int k = 0; k < 4; k++) r[k] = _mm512_loadu_si512(values + k * stride);
    const __m512i a = _mm512_unpacklo_epi8(r[0], r[1]), b = _mm512_unpackhi_epi8(r[0], r[1]);
    const __m512i c = _mm512_unpacklo_epi8(r[2], r[3]), d = _mm512_unpackhi_epi8(r[2], r[3]);
    int8_t* to = tiles + (size_t)line * 64;
    _mm512_storeu_si512(to, _mm512_unpacklo_epi16(a, c));
    _mm512_storeu_si512(to + 1024, _mm512_unpackhi_epi16(a, c));
    _mm512_storeu_si512(to + 2048, _mm512_unpacklo_epi16(b, d));
    _mm512_storeu_si512(to + 3072, _mm512_unpackhi_epi16(b, d));
}

void whole_sums(const uint8_t* rows, size_t stride, int keys, const int8_t* tiles, size_t step, int32_t* sums) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int first = 0; first < keys; first += WHOLE_KEYS, tiles += step) {
        _tile_loadd(4, rows + first, stride);
        _tile_loadd(5, tiles, 64);
        _tile_dpbusd(0, 4, 5);
        _tile_loadd(6, tiles + 1024, 64);
        _tile_dpbusd(1, 4, 6);
        _tile_loadd(7, tiles + 2048, 64);
        _tile_dpbusd(2, 4, 7);
        _tile_loadd(5, tiles + 3072, 64);
        _tile_dpbusd(3, 4, 5);
    }
    alignas(64) int32_t c[4][16][16];
    _tile_stored(0, c[0], 64);
    _tile_stored(1, c[1], 64);
    _tile_stored(2, c[2], 64);
    _tile_stored(3, c[3], 64);
    // a line of a tile holds four channels of every sixteen
    for (int tile = 0; tile < 4; tile++)
        for (int h = 0; h < 4; h++)
            for (int i = 0; i < 4; i++) {
                const __m128i high = _mm_load_si128((const __m128i*)(c[tile][h] + i * 4)), low = _mm_load_si128((const __m128i*)(c[tile][4 + h] + i * 4));
                _mm_storeu_si128((__m128i*)(sums + h * 64 + i * 16 + tile * 4), _mm_add_epi32(_mm_slli_epi32(high, 7), low));
            }
}

// 64 codes of each of 16 rows, from 16 lines, as bfloat16 values
static inline void codes_to_bf16(__m512i* line, int offset, const float* scales, int per_row, uint16_t* out, size_t stride) {
    turn_lines(line);
    for (int r = 0; r < 16; r++) {
        alignas(64) uint8_t codes[64];
        _mm512_store_si512(codes, line[r]);
        for (int i = 0; i < 64; i += 32) {
            const __m512 scale = _mm512_set1_ps(scales[r + (per_row ? 0 : i / 32 * 16)]);
            const __m512i minus = _mm512_set1_epi32(offset);
            __m512i low = _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i*)(codes + i)));
            __m512i high = _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i*)(codes + i + 16)));
            __m512 a = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(low, minus)), scale);
            __m512 b = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(high, minus)), scale);
            _mm512_storeu_si512(out + (size_t)r * stride + i, (__m512i)_mm512_cvtne2ps_pbh(b, a));
        }
    }
}

const uint16_t* rows_in_bf16(const Matrix& m, int first, uint16_t* memory, size_t* stride) {
    *stride = (size_t)m.inner;
    if (m.kind == BF16) return (const uint16_t*)m.data + (size_t)first * m.inner;
    *stride += 32;  // rows a power of two apart share a place in the cache
    if ((m.kind == INT8 || m.kind == INT4) && m.inner % 64 == 0) {
        const uint8_t* codes = (const uint8_t*)m.data + tile_bytes(m.kind, m.inner) * (first / TILE);
        const void* scales = codes + tile_code_bytes(m.kind, m.inner);
        for (int at = 0; at < m.inner; at += 64) {
            __m512i line[16];
            alignas(64) float some[32];
            if (m.kind == INT8) {
                for (int i = 0; i < 16; i++) line[i] = _mm512_loadu_si512(codes + (size_t)(at / 4 + i) * 64);
                codes_to_bf16(line, 128, (const float*)scales, 1, memory + at, *stride);
                continue;
            }
            const __m512i low = _mm512_set1_epi8(15);
            for (int i = 0; i < 8; i++) {
                __m512i both = _mm512_loadu_si512(codes + (size_t)(at / 8 + i) * 64);
                line[2 * i] = _mm512_and_si512(both, low);
                line[2 * i + 1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
            }
            for (int g = 0; g < 2; g++)
                store(some + g * 16, load_bf16((const uint16_t*)scales + (size_t)(at / GROUP + g) * TILE));
            codes_to_bf16(line, 8, some, 0, memory + at, *stride);
        }
        return memory;
    }
    alignas(64) float row[8192];
    for (int r = 0; r < 16 && first + r < m.outer; r++) {
        read_row(m, first + r, row);
        for (int i = 0; i < m.inner; i++) memory[(size_t)r * *stride + i] = float_to_bf16(row[i]);
    }
    return memory;
}

#endif
