// Vectors of floats as wide as the machine has them, and the few operations the kernels are written in.
//
// The same sources are compiled once for AVX-512 and once for AVX2; `kernels.py` loads the one this CPU can run.

#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
using vf = __m512;
constexpr int W = 16;  // floats in a vector
static inline vf zero() { return _mm512_setzero_ps(); }
static inline vf splat(float x) { return _mm512_set1_ps(x); }
static inline vf load(const float* p) { return _mm512_loadu_ps(p); }
static inline void store(float* p, vf x) { _mm512_storeu_ps(p, x); }
static inline vf fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf vabs(vf a) { return _mm512_abs_ps(a); }
static inline vf round_even(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline float sum(vf a) { return _mm512_reduce_add_ps(a); }
static inline float maximum(vf a) { return _mm512_reduce_max_ps(a); }
// the sums of four vectors
static inline __m128 sum4(vf a, vf b, vf c, vf d) {
    vf x = _mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b), y = _mm512_unpacklo_ps(c, d) + _mm512_unpackhi_ps(c, d);
    vf z = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(x), _mm512_castps_pd(y))) +
           _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
    __m256 half = _mm512_castps512_ps256(z) + _mm512_extractf32x8_ps(z, 1);
    return _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1);
}
static inline bool has_nan(vf a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q) != 0; }
// where a > b this, elsewhere that
static inline vf choose(vf a, vf b, vf yes, vf no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), no, yes);
}
// 2^n for a vector of whole numbers
static inline vf exp2_of_whole(vf n) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
// 2W bfloat16 as the W at even places and the W at odd places
static inline void load_bf16_pairs(const uint16_t* p, vf& even, vf& odd) {
    __m512i x = _mm512_loadu_si512(p);
    even = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
    odd = _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32((int)0xffff0000)));
}
static inline vf load_bf16(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
static inline vf load_int8(const int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
}
static inline void store_int8(int8_t* p, vf x) {  // of whole numbers from -128 to 127
    _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
}
static inline void store_int16(int16_t* p, vf x) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x))); }
static inline vf load_fp8(const uint8_t* p) {
    __m256i x = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p));
    __m256i half = _mm256_or_si256(_mm256_slli_epi16(_mm256_and_si256(x, _mm256_set1_epi16(0x80)), 8),
                                   _mm256_slli_epi16(_mm256_and_si256(x, _mm256_set1_epi16(0x7f)), 7));
    return _mm512_mul_ps(_mm512_cvtph_ps(half), splat(256.0f));
}
// 16-bit whole numbers, two to a 32-bit lane
using vi16 = __m512i;
static inline vi16 widen(const int8_t* p) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)p)); }
static inline vi16 load_pairs(const void* p) { return _mm512_loadu_si512(p); }
static inline void store_pairs(void* p, vi16 x) { _mm512_storeu_si512(p, x); }
static inline vi16 splat_pair(int32_t pair) { return _mm512_set1_epi32(pair); }
static inline vi16 no_pairs() { return _mm512_setzero_si512(); }
static inline vi16 add_products(vi16 total, vi16 a, vi16 b) { return _mm512_dpwssd_epi32(total, a, b); }
static inline vf pairs_to_float(vi16 x) { return _mm512_cvtepi32_ps(x); }
// 4W numbers of one row and of another, side by side as pairs: a quarter each, in the order of `pair_place`
static inline void pair_rows(const int8_t* a, const int8_t* b, vi16* out) {
    __m512i x = _mm512_loadu_si512(a), y = b ? _mm512_loadu_si512(b) : _mm512_setzero_si512();
    __m512i low = _mm512_unpacklo_epi8(x, y), high = _mm512_unpackhi_epi8(x, y);
    out[0] = _mm512_cvtepi8_epi16(_mm512_castsi512_si256(low));
    out[1] = _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(low, 1));
    out[2] = _mm512_cvtepi8_epi16(_mm512_castsi512_si256(high));
    out[3] = _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(high, 1));
}
static inline void load_mxfp4_pairs(const uint8_t* p, vf& even, vf& odd) {
    const vf values = _mm512_setr_ps(0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6);
    __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
    even = _mm512_permutexvar_ps(x, values);  // reads the low four bits of each index
    odd = _mm512_permutexvar_ps(_mm512_srli_epi32(x, 4), values);
}
#else
using vf = __m256;
constexpr int W = 8;
static inline vf zero() { return _mm256_setzero_ps(); }
static inline vf splat(float x) { return _mm256_set1_ps(x); }
static inline vf load(const float* p) { return _mm256_loadu_ps(p); }
static inline void store(float* p, vf x) { _mm256_storeu_ps(p, x); }
static inline vf fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf vabs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.f), a); }
static inline vf round_even(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline float sum(vf a) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
static inline __m128 sum4(vf a, vf b, vf c, vf d) {
    vf x = _mm256_unpacklo_ps(a, b) + _mm256_unpackhi_ps(a, b), y = _mm256_unpacklo_ps(c, d) + _mm256_unpackhi_ps(c, d);
    vf z = _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(x), _mm256_castps_pd(y))) +
           _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(x), _mm256_castps_pd(y)));
    return _mm256_castps256_ps128(z) + _mm256_extractf128_ps(z, 1);
}
static inline float maximum(vf a) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
static inline bool has_nan(vf a) { return _mm256_movemask_ps(_mm256_cmp_ps(a, a, _CMP_UNORD_Q)) != 0; }
static inline vf choose(vf a, vf b, vf yes, vf no) { return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_GT_OQ)); }
static inline vf exp2_of_whole(vf n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
static inline void load_bf16_pairs(const uint16_t* p, vf& even, vf& odd) {
    __m256i x = _mm256_loadu_si256((const __m256i*)p);
    even = _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
    odd = _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32((int)0xffff0000)));
}
static inline vf load_bf16(const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
}
static inline vf load_int8(const int8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
}
static inline void store_int8(int8_t* p, vf x) {
    alignas(32) int32_t whole[8];
    _mm256_store_si256((__m256i*)whole, _mm256_cvtps_epi32(x));
    for (int i = 0; i < 8; i++) p[i] = (int8_t)whole[i];
}
static inline void store_int16(int16_t* p, vf x) {  // rounded to even; within 16 bits
    const __m256i whole = _mm256_cvtps_epi32(x);
    _mm_storeu_si128((__m128i*)p, _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1)));
}
static inline vf load_fp8(const uint8_t* p) {
    __m128i x = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i*)p));
    __m128i half = _mm_or_si128(_mm_slli_epi16(_mm_and_si128(x, _mm_set1_epi16(0x80)), 8),
                                _mm_slli_epi16(_mm_and_si128(x, _mm_set1_epi16(0x7f)), 7));
    return _mm256_mul_ps(_mm256_cvtph_ps(half), splat(256.0f));
}
using vi16 = __m256i;
static inline vi16 widen(const int8_t* p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p)); }
static inline vi16 load_pairs(const void* p) { return _mm256_loadu_si256((const __m256i*)p); }
static inline void store_pairs(void* p, vi16 x) { _mm256_storeu_si256((__m256i*)p, x); }
static inline vi16 splat_pair(int32_t pair) { return _mm256_set1_epi32(pair); }
static inline vi16 no_pairs() { return _mm256_setzero_si256(); }
static inline vi16 add_products(vi16 total, vi16 a, vi16 b) { return _mm256_add_epi32(total, _mm256_madd_epi16(a, b)); }
static inline vf pairs_to_float(vi16 x) { return _mm256_cvtepi32_ps(x); }
static inline void pair_rows(const int8_t* a, const int8_t* b, vi16* out) {
    __m256i x = _mm256_loadu_si256((const __m256i*)a), y = b ? _mm256_loadu_si256((const __m256i*)b) : _mm256_setzero_si256();
    __m256i low = _mm256_unpacklo_epi8(x, y), high = _mm256_unpackhi_epi8(x, y);
    out[0] = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(low));
    out[1] = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(low, 1));
    out[2] = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(high));
    out[3] = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(high, 1));
}
static inline void load_mxfp4_pairs(const uint8_t* p, vf& even, vf& odd) {
    const vf low = _mm256_setr_ps(0, .5f, 1, 1.5f, 2, 3, 4, 6);
    __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
    __m256i high = _mm256_srli_epi32(x, 4);
    const __m256i eight = _mm256_set1_epi32(8);
    even = _mm256_or_ps(_mm256_permutevar8x32_ps(low, x), _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_and_si256(x, eight), 28)));
    odd = _mm256_or_ps(_mm256_permutevar8x32_ps(low, high), _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_and_si256(high, eight), 28)));
}
#endif

// Which of the 4W numbers of `pair_rows` is in a lane of one of its four results.
static inline int pair_place(int quarter, int lane) {
    const int half = quarter & 1, high = quarter >> 1;
    return (half * (W / 8) + lane / 8) * 16 + high * 8 + lane % 8;
}

static inline vf add(vf a, vf b) { return a + b; }
static inline vf mul(vf a, vf b) { return a * b; }

static inline float bf16_to_float(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float y;
    std::memcpy(&y, &bits, 4);
    return y;
}
static inline uint16_t float_to_bf16(float x) {  // to nearest, ties to even, as torch rounds
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

static inline vf to_bf16(vf x) {  // rounded, still as floats
    alignas(64) float lane[W];
    store(lane, x);
    for (int i = 0; i < W; i++) lane[i] = bf16_to_float(float_to_bf16(lane[i]));
    return load(lane);
}

// 2^(code - 127); 255 is the format's NaN
static inline float e8m0_to_float(uint8_t code) {
    uint32_t bits = code == 255 ? 0x7fc00000u : code == 0 ? 0x00400000u : (uint32_t)code << 23;
    float y;
    std::memcpy(&y, &bits, 4);
    return y;
}

// e^x to about one unit in the last place, for x up to 88; 0 below -87
static inline vf exponential(vf x) {
    x = vmax(vmin(x, splat(88.0f)), splat(-87.3f));
    vf n = round_even(mul(x, splat(1.44269504f)));
    vf r = fma(n, splat(-0.693359375f), x);
    r = fma(n, splat(2.12194440e-4f), r);
    vf p = splat(1.9875691500e-4f);
    p = fma(p, r, splat(1.3981999507e-3f));
    p = fma(p, r, splat(8.3334519073e-3f));
    p = fma(p, r, splat(4.1665795894e-2f));
    p = fma(p, r, splat(1.6666665459e-1f));
    p = fma(p, r, splat(5.0000001201e-1f));
    p = fma(p, mul(r, r), add(r, splat(1.0f)));
    return mul(p, exp2_of_whole(n));
}

// x · Φ(x) by the error function; its rational approximation is that of Abramowitz and Stegun 7.1.26 (1.5e-7)
static inline vf gelu(vf x) {
    vf z = mul(vabs(x), splat(0.70710678f));
    vf t = splat(1.0f) / fma(z, splat(0.3275911f), splat(1.0f));
    vf p = splat(1.061405429f);
    p = fma(p, t, splat(-1.453152027f));
    p = fma(p, t, splat(1.421413741f));
    p = fma(p, t, splat(-0.284496736f));
    p = fma(p, t, splat(0.254829592f));
    vf tail = mul(mul(p, t), mul(exponential(mul(mul(z, z), splat(-1.0f))), splat(0.5f)));  // 1 - Φ(|x|)
    return fma(mul(vabs(x), splat(-1.0f)), tail, vmax(x, zero()));
}

static inline vf silu(vf x) { return x / add(splat(1.0f), exponential(mul(x, splat(-1.0f)))); }
