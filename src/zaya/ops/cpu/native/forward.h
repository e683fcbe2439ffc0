// One pass of a few tokens through the whole model: the layers of zaya.model, in one call. Mirrored in kernels.py.

#pragma once

#include "matrix.h"

struct Merge {  // (branch + branch_bias) * branch_scale + (residual + residual_bias) * residual_scale
    const float *branch_scale, *branch_bias, *residual_scale, *residual_bias;
};

struct Layer {
    Matrix q, k, v_current, v_delayed, grouped, o, router_down, fc1, fc2, classes;
    const Matrix *gate_up, *down;  // one of each per expert
    const float *attention_norm, *moe_norm, *router_norm;
    const float *depthwise, *depthwise_bias, *grouped_bias, *key_temperature;  // depthwise [time0][channels]
    const float *router_down_bias, *state_scale, *fc1_bias, *fc2_bias, *balancing_bias;  // state_scale: null in layer 0
    Merge attention_merge, moe_merge;
    int32_t window;  // tokens seen, the token itself included; 0 for all
    int32_t span;    // 0 full, 1 sliding: which rotation
};

struct Model {
    int32_t layers, dim, heads, kv_heads, head_dim, time0, time1, experts, classes, expert_size, router_size, vocab;
    int32_t skip_passes_input;
    int32_t half_rotary[2];
    float eps;
    const Layer* layer;
    Matrix embed;
    const float *input_scale, *input_bias, *final_norm;
};

// Tokens of one pass, in segments that each continue a sequence, and where the past of the sequences lies.
struct Pass {
    int32_t tokens, segments;
    const int64_t* ids;      // [tokens]
    const int32_t* bounds;   // [segments + 1]
    const int32_t* starts;   // [segments] tokens that came before
    const int32_t* slots;    // [segments] of the states; whoever starts at 0 starts from zeros, whatever is there
    const int32_t* table;    // [segments][table_width] page of every `page_size` tokens
    int32_t table_width, page_size;
    void* const* keys;       // [layers], each (pages, kv_heads, page_size, head_dim) of kind `kv_kind`
    void* const* values;
    float* const* key_scales;    // [layers], each (pages, kv_heads, page_size); for int8 only
    float* const* value_scales;
    int32_t kv_kind;
    int32_t num_slots;
    float* columns;          // (layers, num_slots, time0 + time1 - 2, channels)
    float* delayed;          // (layers, num_slots, half)
    int32_t commit;          // put the state after the pass into the slots
    int32_t may_round;       // many tokens may meet a matrix in bfloat16, as those of a bfloat16 model do
    int32_t num_rows;        // whose logits are wanted
    const float *cos[2], *sin[2];  // per span [tokens][half_rotary]
    float* new_columns;      // (layers, tokens, channels) and
    float* new_delayed;      // (layers, tokens, half), where they are wanted
    uint8_t* routes;         // (tokens, layers), where they are wanted
    const uint8_t* forced;   // (tokens, layers) classes to use instead of the router's choice, or null
    const int32_t* rows;     // [num_rows]
    float* logits;           // (num_rows, vocab)
    char* scratch;
    int64_t scratch_bytes;
};
