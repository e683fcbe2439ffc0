// From rows of logits to tokens, without a sort of the vocabulary.

#pragma once

#include <cstdint>

struct Draws {  // mirrored in kernels.py; settings that are null are off for all rows
    const float* logits;  // [rows][vocab]; -inf for what is barred
    int32_t rows, vocab;
    const double* points;  // [rows] from 0 to 1: where on the cumulative distribution
    const float* temperature;
    const int32_t* top_k;  // vocab for all
    const float* top_p;
    const float* min_p;
    int64_t* ids;     // [rows], out
    float* logprobs;  // [rows], out: of the id in what was drawn from; NaN where the row's logits are not numbers
};

// `memory` has room for `vocab` floats.
void draw_row(const Draws& d, int row, float* memory);

// log Σ exp of one row; NaN where it has a NaN.
float log_sum(const float* logits, int vocab);
