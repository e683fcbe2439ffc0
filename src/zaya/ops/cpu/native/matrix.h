// Products of a stored matrix with a few vectors: what decoding spends its time on.
//
// A dense matrix lies row by row. An int8 or int4 one lies in tiles of 16 rows, codes first and their scales behind
// them. For every 4 columns a tile has a line of 64 codes, 4 of each row, which is what the byte dot product reads; two
// lines of int4 share 64 bytes, the first in the low halves.
//
//     int8   per tile: codes [inner/4][16][4], of value + 128; then float32 scales [16], one per row
//     int4   per tile: codes [inner/8][16][4], of value + 8;   then bfloat16 scales [inner/32][16]
//     fp8    codes [outer][inner] e4m3;    apart: float32 scales [outer]
//     mxfp4  codes [outer][inner/2] e2m1;  apart: e8m0 scales [outer][inner/32]
//
// A vector meets them in the form that their kernel reads; `Vectors` holds it in all that are wanted. Every row of a
// result is computed the same way whatever other rows or vectors there are, so results do not depend on company.

#pragma once

#include <cstdint>

#include "simd.h"
#include "team.h"

enum Kind : int32_t { F32 = 0, BF16 = 1, INT8 = 2, INT4 = 3, FP8 = 4, MXFP4 = 5 };

struct Matrix {  // mirrored in kernels.py
    const void* data;
    const void* scale;  // of fp8 and mxfp4
    int32_t kind;
    int32_t outer;
    int32_t inner;
    int32_t unused;
};

constexpr int TILE = 16;   // rows of a tile
constexpr int GROUP = 32;  // columns that share a scale, of int4 weights and of quantised vectors
constexpr int MAX_VECTORS = W == 16 ? 4 : 2;  // that one kernel keeps in registers

static inline size_t tile_code_bytes(int32_t kind, int inner) { return (size_t)TILE * inner / (kind == INT4 ? 2 : 1); }
static inline size_t tile_bytes(int32_t kind, int inner) {
    return tile_code_bytes(kind, inner) + (kind == INT4 ? (size_t)inner / GROUP * TILE * 2 : TILE * 4);
}

// `count` vectors of `inner` floats, and the other forms of them.
struct Vectors {
    float* plain;     // [count][inner]
    float* pairs;     // [count][inner], in blocks of 2W the even places, then the odd ones
    int8_t* codes;    // [count][inner], of scale * code
    float* scales;    // [count][inner / GROUP]
    int32_t* sums;    // [count][inner / GROUP], of the codes
    int inner;

    static size_t bytes(int count, int inner) {
        size_t groups = (size_t)(inner + GROUP - 1) / GROUP;
        return (size_t)count * ((size_t)inner * 9 + groups * 8) + 5 * 64;
    }
    // Lay the parts out in a piece of memory of `bytes(count, inner)`.
    void place(char* memory, int count, int inner_);
    // Fill the form that a matrix of this kind reads from the plain one: places [first, last) of one vector, in whole
    // blocks of 2W or GROUP.
    void prepare(int vector, int32_t kind, int first, int last);
    void prepare(int vector, int32_t kind) { prepare(vector, kind, 0, inner); }
};

// Rows [first, last) of matrix · vector for the vectors listed, into out[i][row]. first and last are multiples of TILE
// for int8 and int4.
void multiply(const Matrix& m, const Vectors& x, const int* vectors, int count, int first, int last, float* const* out);

// One row of a matrix, as floats.
void read_row(const Matrix& m, int row, float* out);

// Fill a tile of an int8 or int4 matrix from 16 rows of floats; the sum of the squares of what is lost.
double fill_tile(const Matrix& m, int tile, const float* rows);
