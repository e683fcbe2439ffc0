// The forward pass, phase by phase. Every thread runs all of it; `team.meet()` ends a phase.
//
// The computation is that of zaya/model/{transformer,block,cca,router,experts}.py, in float32 between the matrices. A
// token is computed the same way whatever else is in the pass: no sum depends on how work is shared out.

#include "forward.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "tiles.h"

namespace {

constexpr int SPLIT = 512;     // keys of one attention task; at fixed places of the text, so that sums do not move
constexpr int CHUNK = 64;      // rows of a matrix in one task; a multiple of TILE, GROUP and 2W
constexpr int MAX_GROUP = 4;   // query heads of a key head that are scored together

// With tile registers, passes of many tokens of a bfloat16 model go another way through the matrices and through
// attention. Sixteen tokens are a block, and a task takes as many as stay in the second-level cache.
constexpr int TILED_FROM = 32;  // tokens
constexpr int BLOCK = 16;
constexpr int BLOCKS = 16;      // of a task
constexpr int KEYS = 512;       // of a step of attention

struct Scratch {
    char* at;
    char* end;

    template <class T>
    T* take(size_t count) {
        char* start = at;
        at += (count * sizeof(T) + 63) / 64 * 64;
        return (T*)start;
    }
    Vectors vectors(int count, int inner) {
        Vectors v;
        v.place(take<char>(Vectors::bytes(count, inner)), count, inner);
        return v;
    }
};

struct Split {  // of one token's keys
    int32_t token, first, last;  // keys [first, last)
};

class Forward {
public:
    Forward(const Model& m, const Pass& p, int threads)
        : m(m), p(p), T(p.tokens), D(m.dim), C((m.heads + m.kv_heads) * m.head_dim), Q(m.heads * m.head_dim),
          half(m.kv_heads * m.head_dim / 2), context(m.time0 + m.time1 - 2), Y(m.dim + W), zeros(C) {
        segment_of.resize(T);
        for (int s = 0; s < p.segments; s++)
            for (int t = p.bounds[s]; t < p.bounds[s + 1]; t++) segment_of[t] = s;
        tiled = HAS_TILES && p.may_round && T >= TILED_FROM && can_tile();
        whole_tiles = HAS_TILES && p.kv_kind == INT8 && m.head_dim % 64 == 0 && p.page_size % 16 == 0;
        for (int span = 0; span < 2; span++) first_split[span].resize(T + 1);
        bool spans[2] = {};
        for (int l = 0; l < m.layers; l++) spans[m.layer[l].window > 0] = true, window = std::max(window, m.layer[l].window);
        size_t most = 1;
        for (int sliding = 0; sliding < 2; sliding++) {
            if (!spans[sliding]) continue;
            for (int t = 0; t < T; t++) {
                first_split[sliding][t] = (int)splits[sliding].size();
                if (is_block(segment_of[t])) continue;
                int last = position(t) + 1, first = sliding ? std::max(0, last - window) : 0;
                for (int from = first / SPLIT * SPLIT; from < last; from += SPLIT)
                    splits[sliding].push_back({t, std::max(from, first), std::min(from + SPLIT, last)});
            }
            first_split[sliding][T] = (int)splits[sliding].size();
            most = std::max(most, splits[sliding].size());
        }
        Scratch s{p.scratch, nullptr};
        x = s.take<float>((size_t)T * D);
        y = s.take<float>((size_t)T * Y);
        normed = s.vectors(T, D);
        columns = s.take<float>((size_t)T * C);
        current = s.take<float>((size_t)T * half);
        delayed = s.take<float>((size_t)T * half);
        queries = s.take<float>((size_t)T * Q);
        attended = s.vectors(T, Q);
        partial = s.take<float>(most * m.heads * (m.head_dim + 2));
        state = s.take<float>((size_t)T * m.router_size);
        route_in = s.vectors(T, m.router_size);
        route_mid = s.vectors(T, m.router_size);
        choice = s.take<int32_t>(T);
        weight = s.take<float>(T);
        hidden = s.vectors(T, m.expert_size);
        if (tiled) place_tiled(s);
        own = s.take<char>((size_t)threads * own_bytes());
        needed = s.at - p.scratch;
    }

    int64_t needed;  // bytes of scratch

    void run(Team& team, int thread) {
        char* memory = own + (size_t)thread * own_bytes();
#if HAS_TILES
        if (tiled) return run_tiled(team, memory);
        if (whole_tiles) start_tiles();
#endif
        for (int t; (t = team.take(T)) >= 0;) {
            float* row = x + (size_t)t * D;
            read_row(m.embed, (int)p.ids[t], row);
            for (int i = 0; i < D; i++) row[i] = (row[i] + m.input_bias[i]) * m.input_scale[i];
            norm_for_attention(t, 0);
        }
        team.meet();
        for (int l = 0; l < m.layers; l++) {
            const Layer& layer = m.layer[l];
            attention(team, layer, l, (float*)memory);
            for (int t; (t = team.take(T)) >= 0;) {
                merge(layer.attention_merge, t);
                norm(t, layer.moe_norm, normed);
                normed.prepare(t, layer.router_down.kind);
                if (layer.gate_up[0].kind != layer.router_down.kind) normed.prepare(t, layer.gate_up[0].kind);
            }
            team.meet();
            router(team, layer, l);
            experts(team, layer, (int32_t*)memory);
            for (int t; (t = team.take(T)) >= 0;) {
                if (choice[t] >= m.experts) skip(t);
                merge(layer.moe_merge, t);
                if (l + 1 < m.layers) norm_for_attention(t, l + 1);
            }
            team.meet();
        }
#if HAS_TILES
        if (whole_tiles) stop_tiles();
#endif
        head(team);
    }

private:
    const Model& m;
    const Pass& p;
    const int T, D, C, Q, half, context;
    const int Y;  // from one row of y to the next: no power of two, or those that are written together share a place in the cache
    const std::vector<float> zeros;
    int window = 0;
    bool tiled;
    bool whole_tiles;  // attention over int8 keys by tile registers
    std::vector<int> segment_of, first_split[2];
    std::vector<Split> splits[2];
    float *x, *y, *columns, *current, *delayed, *queries, *partial, *state, *weight;
    int32_t* choice;
    char* own;
    Vectors normed, attended, route_in, route_mid, hidden;

    size_t own_bytes() const {  // of one thread
        size_t scores = (size_t)MAX_GROUP * SPLIT * 4 + (size_t)m.head_dim * 4 * (MAX_GROUP + 16);
        if (whole_tiles) scores += whole_bytes();
        size_t conv = Vectors::bytes(1, m.head_dim * m.time1) + (size_t)m.head_dim * 4 * 4;
        size_t lists = ((size_t)T + m.experts + 2) * 4;
        return (std::max({scores, conv, lists, tiled ? tiled_bytes() : 0}) + 127) / 64 * 64;
    }

    int position(int t) const { return p.starts[segment_of[t]] + t - p.bounds[segment_of[t]]; }

    // ----- norms and residuals

    void norm(int t, const float* w, Vectors& out) {
        const float* row = x + (size_t)t * D;
        float* to = out.plain + (size_t)t * D;
        vf squares = zero();
        for (int i = 0; i < D; i += W) squares = fma(load(row + i), load(row + i), squares);
        vf scale = splat(1.0f / std::sqrt(sum(squares) / (float)D + m.eps));
        for (int i = 0; i < D; i += W) store(to + i, mul(mul(load(row + i), scale), load(w + i)));
    }

    void norm_for_attention(int t, int l) {
        const Layer& layer = m.layer[l];
        norm(t, layer.attention_norm, normed);
        normed.prepare(t, layer.q.kind);
    }

    void merge(const Merge& w, int t) {
        float *row = x + (size_t)t * D, *branch = y + (size_t)t * Y;
        for (int i = 0; i < D; i += W) {
            vf a = mul(add(load(branch + i), load(w.branch_bias + i)), load(w.branch_scale + i));
            vf b = mul(add(load(row + i), load(w.residual_bias + i)), load(w.residual_scale + i));
            store(row + i, add(a, b));
        }
    }

    void skip(int t) {
        float* to = y + (size_t)t * Y;
        for (int i = 0; i < D; i++) to[i] = m.skip_passes_input ? weight[t] * normed.plain[(size_t)t * D + i] : 0.0f;
    }

    // ----- matrices

    static int chunks(const Matrix& matrix) { return (matrix.outer + CHUNK - 1) / CHUNK; }

    // Rows of one chunk for all vectors, into out + vector * stride.
    static void chunk_times(const Matrix& matrix, const Vectors& v, int count, int chunk, float* out, size_t stride) {
        int first = chunk * CHUNK, last = std::min(first + CHUNK, matrix.outer);
        for (int at = 0; at < count; at += MAX_VECTORS) {
            int which[MAX_VECTORS], some = std::min(MAX_VECTORS, count - at);
            float* to[MAX_VECTORS];
            for (int i = 0; i < some; i++) which[i] = at + i, to[i] = out + (size_t)(at + i) * stride;
            multiply(matrix, v, which, some, first, last, to);
        }
    }

    // ----- compressed convolutional attention

    void attention(Team& team, const Layer& layer, int l, float* memory) {
        float* u = p.new_columns ? p.new_columns + (size_t)l * T * C : columns;
        float* d = p.new_delayed ? p.new_delayed + (size_t)l * T * half : delayed;
        const Matrix* parts[4] = {&layer.q, &layer.k, &layer.v_current, &layer.v_delayed};
        float* to[4] = {u, u + Q, current, d};
        size_t stride[4] = {(size_t)C, (size_t)C, (size_t)half, (size_t)half};
        int ends[4], total = 0;
        for (int i = 0; i < 4; i++) ends[i] = total += chunks(*parts[i]);
        for (int task; (task = team.take(total)) >= 0;) {
            int i = 0;
            while (task >= ends[i]) i++;
            chunk_times(*parts[i], normed, T, task - (i ? ends[i - 1] : 0), to[i], stride[i]);
        }
        team.meet();
        const int all_heads = m.heads + m.kv_heads;
        for (int task; (task = team.take(T * all_heads)) >= 0;)
            mix(layer, l, task / all_heads, task % all_heads, u, d, memory);
        team.meet();
        const bool slides = layer.window > 0;
        const int groups = m.heads / m.kv_heads, blocks = (groups + MAX_GROUP - 1) / MAX_GROUP;
        const int tasks = (int)splits[slides].size() * m.kv_heads * blocks;
        for (int task; (task = team.take(tasks)) >= 0;) {
            int block = task % blocks, g = task / blocks % m.kv_heads, split = task / blocks / m.kv_heads;
            int first = g * groups + block * MAX_GROUP, count = std::min(MAX_GROUP, groups - block * MAX_GROUP);
            score(l, splits[slides][split], split, g, first, count, memory);
        }
        team.meet();
        for (int t; (t = team.take(T)) >= 0;) {
            for (int h = 0; h < m.heads; h++) join_splits(t, h, first_split[slides][t], first_split[slides][t + 1]);
            attended.prepare(t, layer.o.kind);
            int s = segment_of[t];
            if (p.commit && t + 1 == p.bounds[s + 1]) keep_state(l, s, u, d);
        }
        team.meet();
        for (int task; (task = team.take(chunks(layer.o))) >= 0;) chunk_times(layer.o, attended, T, task, y, Y);
        team.meet();
    }

    // The column of token t, `back` tokens before it: of the pass, or of the state before it.
    const float* column(const float* u, int l, int t, int back) const {
        int s = segment_of[t], offset = t - p.bounds[s] - back;
        if (offset >= 0) return u + (size_t)(t - back) * C;
        if (p.starts[s] == 0) return zeros.data();
        return p.columns + (((size_t)l * p.num_slots + p.slots[s]) * context + context + offset) * C;
    }

    // Everything between the projections and attention, of one head of one token.
    void mix(const Layer& layer, int l, int t, int h, const float* u, const float* d, float* memory) {
        const int size = m.head_dim;
        Vectors taps;
        taps.place((char*)memory, 1, size * m.time1);
        float* head = (float*)((char*)memory + Vectors::bytes(1, size * m.time1));
        for (int tap = 0; tap < m.time1; tap++) {
            int back = m.time1 - 1 - tap;
            for (int i = 0; i < size; i += W) {
                vf total = load(layer.depthwise_bias + h * size + i);
                for (int k = 0; k < m.time0; k++)
                    total = fma(load(layer.depthwise + (size_t)k * C + h * size + i),
                                load(column(u, l, t, back + m.time0 - 1 - k) + h * size + i), total);
                alignas(64) float lane[W];
                store(lane, total);
                for (int j = 0; j < W; j++) taps.plain[(i + j) * m.time1 + tap] = lane[j];
            }
        }
        taps.prepare(0, layer.grouped.kind);
        const int zero_vector = 0;
        float* shifted = head - h * size;  // rows h * size on are written
        multiply(layer.grouped, taps, &zero_vector, 1, h * size, (h + 1) * size, &shifted);
        finish_head(layer, l, t, h, u, d, head);
    }

    // What follows the convolutions: means, norm, rotation. Key heads also put their key and value in place.
    void finish_head(const Layer& layer, int l, int t, int h, const float* u, const float* d, float* head) {
        const int size = m.head_dim, groups = m.heads / m.kv_heads;
        const float* row = u + (size_t)t * C;
        const bool is_key = h >= m.heads;
        const int g = is_key ? h - m.heads : h / groups;
        vf squares = zero();
        for (int i = 0; i < size; i += W) {
            vf k = load(row + Q + g * size + i), mean;
            if (is_key) {
                mean = zero();
                for (int j = 0; j < groups; j++) mean = add(mean, mul(add(load(row + (g * groups + j) * size + i), k), splat(0.5f)));
                mean = mul(mean, splat(1.0f / (float)groups));
            } else {
                mean = mul(add(load(row + h * size + i), k), splat(0.5f));
            }
            vf z = add(add(load(head + i), load(layer.grouped_bias + h * size + i)), mean);
            store(head + i, z);
            squares = fma(z, z, squares);
        }
        float scale = std::sqrt((float)size) / std::max(std::sqrt(sum(squares)), 1.1920929e-7f);
        if (is_key) scale *= layer.key_temperature[g];
        for (int i = 0; i < size; i++) head[i] *= scale;
        const int turned = m.half_rotary[layer.span];
        const float *cos = p.cos[layer.span] + (size_t)t * turned, *sin = p.sin[layer.span] + (size_t)t * turned;
        for (int i = 0; i < turned; i++) {
            float a = head[i], b = head[turned + i];
            head[i] = a * cos[i] - b * sin[i];
            head[turned + i] = b * cos[i] + a * sin[i];
        }
        if (!is_key) {
            std::memcpy(queries + (size_t)t * Q + h * size, head, (size_t)size * 4);
            return;
        }
        put(p.keys[l], p.key_scales ? p.key_scales[l] : nullptr, t, g, head);
        int s = segment_of[t];
        const float* before = t > p.bounds[s]      ? d + (size_t)(t - 1) * half
                              : p.starts[s] == 0 ? zeros.data()
                                                 : p.delayed + ((size_t)l * p.num_slots + p.slots[s]) * half;
        for (int i = 0; i < size; i++) {
            int at = g * size + i;
            head[i] = at < half ? current[(size_t)t * half + at] : before[at - half];
        }
        put(p.values[l], p.value_scales ? p.value_scales[l] : nullptr, t, g, head);
    }

    size_t place(int t, int g) const {  // of a token's key, in rows of head_dim
        int s = segment_of[t], at = position(t);
        size_t page = p.table[(size_t)s * p.table_width + at / p.page_size];
        return (page * m.kv_heads + g) * p.page_size + at % p.page_size;
    }

    void put(void* pool, float* scales, int t, int g, const float* from) {
        const size_t row = place(t, g), at = row * m.head_dim;
        if (p.kv_kind == F32) {
            std::memcpy((float*)pool + at, from, (size_t)m.head_dim * 4);
        } else if (p.kv_kind == BF16) {
            for (int i = 0; i < m.head_dim; i++) ((uint16_t*)pool)[at + i] = float_to_bf16(from[i]);
        } else {
            float top = 0;
            for (int i = 0; i < m.head_dim; i++) top = std::max(top, std::fabs(from[i]));
            scales[row] = top / 127.0f;
            vf inverse = splat(top > 0 ? 127.0f / top : 0.0f);
            for (int i = 0; i < m.head_dim; i += W) store_int8((int8_t*)pool + at + i, round_even(mul(load(from + i), inverse)));
        }
    }

    void keep_state(int l, int s, const float* u, const float* d) {
        const int count = p.bounds[s + 1] - p.bounds[s], last = p.bounds[s + 1] - 1;
        float* to = p.columns + ((size_t)l * p.num_slots + p.slots[s]) * context * C;
        for (int j = 0; j < context; j++) {  // oldest first: what is read lies behind what is written
            int offset = count - context + j;
            const float* from = offset >= 0         ? u + (size_t)(p.bounds[s] + offset) * C
                                : p.starts[s] == 0 ? zeros.data()
                                                   : to + (size_t)(context + offset) * C;
            if (from != to + (size_t)j * C) std::memcpy(to + (size_t)j * C, from, (size_t)C * 4);
        }
        std::memcpy(p.delayed + ((size_t)l * p.num_slots + p.slots[s]) * half, d + (size_t)last * half, (size_t)half * 4);
    }

    // ----- attention over pages

    template <int KIND>
    static inline vf load_kv(const void* pool, size_t at) {
        if constexpr (KIND == F32) return load((const float*)pool + at);
        if constexpr (KIND == BF16) return load_bf16((const uint16_t*)pool + at);
        return load_int8((const int8_t*)pool + at);
    }

    // The part of `count` query heads' attention that is over the keys of one split, not yet divided by its sum.
    void score(int l, const Split& split, int index, int g, int first_head, int count, float* memory) {
        switch (p.kv_kind) {
            case F32: return score_heads<F32>(l, split, index, g, first_head, count, memory);
            case BF16: return score_heads<BF16>(l, split, index, g, first_head, count, memory);
            default: return score_heads<INT8>(l, split, index, g, first_head, count, memory);
        }
    }

    template <int KIND>
    void score_heads(int l, const Split& split, int index, int g, int first_head, int count, float* memory) {
        const float* q = queries + (size_t)split.token * Q + first_head * m.head_dim;
        float* out = partial + ((size_t)index * m.heads + first_head) * (m.head_dim + 2);
        switch (count) {
            case 1: return score_some<KIND, 1>(l, split, g, q, out, memory);
            case 2: return score_some<KIND, 2>(l, split, g, q, out, memory);
            case 3: return score_some<KIND, 3>(l, split, g, q, out, memory);
            case 4: return score_some<KIND, 4>(l, split, g, q, out, memory);
        }
    }

    template <int KIND, int HEADS>
    void score_some(int l, const Split& split, int g, const float* q, float* out, float* memory) {
#if HAS_TILES
        if (KIND == INT8 && whole_tiles) return score_whole(l, split, g, q, HEADS, out, memory);
#endif
        const int size = m.head_dim, keys = split.last - split.first, page = p.page_size;
        const int32_t* table = p.table + (size_t)segment_of[split.token] * p.table_width;
        const float scale = 1.0f / std::sqrt((float)size);
        const size_t row_bytes = (size_t)size * (KIND == F32 ? 4 : KIND == BF16 ? 2 : 1);
        float* scores = memory;  // [SPLIT][4]: the heads of a key side by side
        // int8 keys and values meet queries and weights of 16 bits, in whole numbers
        const bool is_whole = KIND == INT8 && size % (4 * W) == 0;
        int16_t* whole_q = (int16_t*)(memory + 4 * SPLIT);  // [4][size]
        float by_head[4] = {};
        if (is_whole)
            for (int h = 0; h < HEADS; h++) by_head[h] = scale * to_whole(q + h * size, size, 32000, whole_q + h * size);
        for (int at = split.first; at < split.last;) {
            const size_t row = ((size_t)table[at / page] * m.kv_heads + g) * page + at % page;
            const int some = std::min(page - at % page, split.last - at), to = at - split.first;
            // Pages lie apart, so nobody fetches the next one unasked; values are read by then in columns.
            const size_t next = at + some < split.last ? ((size_t)table[(at + some) / page] * m.kv_heads + g) * page : row;
            for (int k = 0; k < some; k++) {
                for (size_t line = 0; line < row_bytes; line += 64) {
                    _mm_prefetch((const char*)p.keys[l] + (next + k) * row_bytes + line, _MM_HINT_T0);
                    _mm_prefetch((const char*)p.values[l] + (row + k) * row_bytes + line, _MM_HINT_T1);
                }
                if (is_whole) {
                    vi16 sums[4] = {no_pairs(), no_pairs(), no_pairs(), no_pairs()};
                    const int8_t* key = (const int8_t*)p.keys[l] + (row + k) * size;
                    for (int i = 0; i < size; i += 2 * W) {
                        const vi16 wide = widen(key + i);
                        for (int h = 0; h < HEADS; h++) sums[h] = add_products(sums[h], wide, load_pairs(whole_q + h * size + i));
                    }
                    const __m128 dots = sum4(pairs_to_float(sums[0]), pairs_to_float(sums[1]), pairs_to_float(sums[2]), pairs_to_float(sums[3]));
                    _mm_storeu_ps(scores + (size_t)(to + k) * 4,
                                  _mm_mul_ps(_mm_mul_ps(dots, _mm_loadu_ps(by_head)), _mm_set1_ps(p.key_scales[l][row + k])));
                    continue;
                }
                vf total[4] = {zero(), zero(), zero(), zero()};
                for (int i = 0; i < size; i += W) {
                    vf key = load_kv<KIND>(p.keys[l], (row + k) * size + i);
                    for (int h = 0; h < HEADS; h++) total[h] = fma(key, load(q + h * size + i), total[h]);
                }
                const float by = KIND == INT8 ? scale * p.key_scales[l][row + k] : scale;
                const __m128 dots = sum4(total[0], total[1], total[2], total[3]);
                _mm_storeu_ps(scores + (size_t)(to + k) * 4, _mm_mul_ps(dots, _mm_set1_ps(by)));
            }
            at += some;
        }
        weigh(scores, keys, HEADS, out);
        if (is_whole) return add_whole_values<HEADS>(l, split, g, scores, whole_q, out);
        for (int at = split.first; at < split.last;) {
            const size_t row = ((size_t)table[at / page] * m.kv_heads + g) * page + at % page;
            const int some = std::min(page - at % page, split.last - at), from = at - split.first;
            if constexpr (KIND == INT8)
                for (int k = 0; k < some; k++)
                    for (int h = 0; h < 4; h++) scores[(from + k) * 4 + h] *= p.value_scales[l][row + k];
            int i = 0;
            for (; i + 2 * W <= size; i += 2 * W) add_values<KIND, HEADS, 2>(p.values[l], row, some, size, i, scores + (size_t)from * 4, out);
            for (; i < size; i += W) add_values<KIND, HEADS, 1>(p.values[l], row, some, size, i, scores + (size_t)from * 4, out);
            at += some;
        }
    }

    // Scores [key][4 heads] to weights, of which the largest is 1. Into `out` of each head [size + 2]: its largest score,
    // the sum of its weights, zeros.
    void weigh(float* scores, int keys, int heads, float* out) const {
        const int size = m.head_dim;
        const int numbers = 4 * keys;
        for (int i = numbers; i % W; i++) scores[i] = -INFINITY;  // 4 * SPLIT is a multiple of W
        alignas(64) float lane[W];
        float tops[4], sums[4] = {};
        vf top = splat(-INFINITY), total = zero();
        for (int i = 0; i < numbers; i += W) top = vmax(top, load(scores + i));
        store(lane, top);
        for (int h = 0; h < 4; h++) tops[h] = lane[h];
        for (int i = 4; i < W; i++) tops[i % 4] = std::max(tops[i % 4], lane[i]);
        for (int i = 0; i < W; i++) lane[i] = -tops[i % 4];
        const vf shift = load(lane);
        for (int i = 0; i < numbers; i += W) {
            vf e = exponential(add(load(scores + i), shift));
            store(scores + i, e);
            if (i + W > numbers)  // what pads the last vector is not 0: e^-87 is a number
                for (int j = numbers; j < i + W; j++) scores[j] = 0;
            total = add(total, load(scores + i));
        }
        store(lane, total);
        for (int i = 0; i < W; i++) sums[i % 4] += lane[i];
        for (int h = 0; h < heads; h++) {
            out[h * (size + 2)] = tops[h];
            out[h * (size + 2) + 1] = sums[h];
            for (int i = 0; i < size; i++) out[h * (size + 2) + 2 + i] = 0;
        }
    }

    // Numbers as whole ones of up to `most`; what one is worth.
    static float to_whole(const float* x, int count, float most, int16_t* out) {
        vf tops = zero();
        for (int i = 0; i < count; i += W) tops = vmax(tops, vabs(load(x + i)));
        const float top = maximum(tops);
        const vf inverse = splat(top > 0 ? most / top : 0.0f);
        for (int i = 0; i < count; i += W) store_int16(out + i, mul(load(x + i), inverse));
        return top / most;
    }

#if HAS_TILES
    // The same for int8, by tile registers. A split begins at a multiple of 16 keys here; what lies before its first key
    // has no weight.
    void score_whole(int l, const Split& split, int g, const float* q, int heads, float* out, float* memory) {
        const int size = m.head_dim, page = p.page_size, base = split.first / 16 * 16, keys = split.last - base;
        const int32_t* table = p.table + (size_t)segment_of[split.token] * p.table_width;
        size_t row_of[SPLIT / 16 + 1];  // where each 16 keys are
        const int groups = (keys + 15) / 16;
        for (int i = 0; i < groups; i++) {
            const int key = base + i * 16;
            row_of[i] = ((size_t)table[key / page] * m.kv_heads + g) * page + key % page;
        }
        const int8_t *all_keys = (const int8_t*)p.keys[l], *all_values = (const int8_t*)p.values[l];
        float* scores = memory;  // [SPLIT][4]
        char* at = (char*)(memory + 4 * SPLIT);
        int16_t* whole_q = (int16_t*)at;                            // [4][size]
        int8_t* q_tiles = (int8_t*)(at += (size_t)size * 8);
        uint8_t* rows = (uint8_t*)(at += (size_t)size * 16);        // [16][SPLIT + 64], of which 8 are used
        int32_t* sums = (int32_t*)(at += 16 * WEIGHT_STRIDE);       // [4][64]
        int8_t* value_tiles = (int8_t*)(at + 1024);                 // four for every 64 keys and 64 channels
        float by_head[4] = {}, tops[4], inverse[4];
        for (int h = 0; h < heads; h++) by_head[h] = to_whole(q + h * size, size, 32000, whole_q + h * size) / std::sqrt((float)size);
        pack_whole(whole_q, heads, size, q_tiles);
        for (int key = 0; key < keys; key += 16) {
            const size_t row = row_of[key / 16], next = key + page < keys ? row_of[(key + page) / 16] : row;
            // Values are put in order while keys are multiplied: a core gets more from two places at once. Pages lie
            // apart, so nobody fetches the next one unasked.
            for (int k = 0; k < 16; k += 4) {
                int8_t* to = value_tiles + (size_t)(key / WHOLE_KEYS) * WHOLE_KEYS * size;
                for (int channel = 0; channel < size; channel += 64, to += 64 * WHOLE_KEYS) {
                    for (int line = k * size + channel * 4; line < k * size + channel * 4 + 256; line += 64) {
                        _mm_prefetch((const char*)all_keys + next * size + line, _MM_HINT_T0);
                        _mm_prefetch((const char*)all_values + next * size + line, _MM_HINT_T0);
                    }
                    pack_values(all_values + (row + k) * size + channel, size, to, (key % WHOLE_KEYS + k) / 4);
                }
            }
            alignas(64) int32_t dots[64];
            whole_dots(all_keys + row * size, size, q_tiles, dots);
            for (int k = 0; k < 16; k++) {
                const __m128 by = _mm_mul_ps(_mm_loadu_ps(by_head), _mm_set1_ps(p.key_scales[l][row + k]));
                _mm_storeu_ps(scores + (size_t)(key + k) * 4, _mm_mul_ps(_mm_cvtepi32_ps(_mm_load_si128((__m128i*)(dots + k * 4))), by));
            }
        }
        for (int i = 0; i < (split.first - base) * 4; i++) scores[i] = -INFINITY;
        weigh(scores, keys, heads, out);

        __m128 most = _mm_setzero_ps();
        for (int key = 0; key < keys; key++) {
            const float by = key < split.first - base ? 0.0f : p.value_scales[l][row_of[key / 16] + key % 16];
            const __m128 scaled = _mm_mul_ps(_mm_loadu_ps(scores + (size_t)key * 4), _mm_set1_ps(by));
            _mm_storeu_ps(scores + (size_t)key * 4, scaled);
            most = _mm_max_ps(most, scaled);
        }
        _mm_storeu_ps(tops, most);
        for (int h = 0; h < 4; h++) inverse[h] = tops[h] > 0 ? 32000.0f / tops[h] : 0.0f;
        const vf scale = _mm512_broadcast_f32x4(_mm_loadu_ps(inverse));
        const int rounded = (keys + WHOLE_KEYS - 1) / WHOLE_KEYS * WHOLE_KEYS;
        std::memset(scores + (size_t)keys * 4, 0, (size_t)(rounded - keys) * 16);
        for (int key = 0; key < rounded; key += 16) pack_weights(scores + (size_t)key * 4, scale, rows, WEIGHT_STRIDE, key);
        std::memset(rows + 8 * WEIGHT_STRIDE, 0, 8 * WEIGHT_STRIDE);
        for (int channel = 0; channel < size; channel += 64) {
            whole_sums(rows, WEIGHT_STRIDE, keys, value_tiles + (size_t)channel * WHOLE_KEYS, (size_t)WHOLE_KEYS * size, sums);
            for (int h = 0; h < heads; h++)
                for (int i = 0; i < 64; i++) out[h * (size + 2) + 2 + channel + i] = (float)sums[h * 64 + i] * (tops[h] / 32000.0f);
        }
    }

    static constexpr int WEIGHT_STRIDE = SPLIT + 64;  // no power of two
    size_t whole_bytes() const { return (size_t)m.head_dim * 24 + 16 * WEIGHT_STRIDE + 1024 + (size_t)SPLIT * m.head_dim; }
#else
    size_t whole_bytes() const { return 0; }
#endif

    // Weights [key][4], to be multiplied with each key's scale, times int8 values, two keys at a time. Sums of whole
    // numbers: 512 keys of 127 times 32,000 just fit 31 bits.
    template <int HEADS>
    void add_whole_values(int l, const Split& split, int g, float* weights, int16_t* memory, float* out) {
        const int size = m.head_dim, page = p.page_size, wide = 4 * W, chunks_of_row = size / wide;
        const int32_t* table = p.table + (size_t)segment_of[split.token] * p.table_width;
        float tops[4], inverse[4];
        __m128 most = _mm_setzero_ps();
        for (int at = split.first; at < split.last; at++) {
            const size_t row = ((size_t)table[at / page] * m.kv_heads + g) * page + at % page;
            float* w = weights + (size_t)(at - split.first) * 4;
            const __m128 scaled = _mm_mul_ps(_mm_loadu_ps(w), _mm_set1_ps(p.value_scales[l][row]));
            _mm_storeu_ps(w, scaled);
            most = _mm_max_ps(most, scaled);
        }
        _mm_storeu_ps(tops, most);
        for (int h = 0; h < 4; h++) inverse[h] = tops[h] > 0 ? 32000.0f / tops[h] : 0.0f;
        const __m128 scales = _mm_loadu_ps(inverse);
        int32_t* sums = (int32_t*)memory;  // [HEADS][size]
        std::memset(sums, 0, (size_t)HEADS * size * 4);
        for (int at = split.first; at < split.last;) {
            const size_t row = ((size_t)table[at / page] * m.kv_heads + g) * page + at % page;
            const int some = std::min(page - at % page, split.last - at);
            float* w = weights + (size_t)(at - split.first) * 4;
            const int8_t* values = (const int8_t*)p.values[l] + row * size;
            for (int k = 0; k < some; k += 2) {  // over what is no longer needed: a pair takes the place of its first key
                const __m128i a = _mm_cvtps_epi32(_mm_mul_ps(_mm_loadu_ps(w + k * 4), scales));
                const __m128i b = k + 1 == some ? _mm_setzero_si128() : _mm_cvtps_epi32(_mm_mul_ps(_mm_loadu_ps(w + k * 4 + 4), scales));
                _mm_storeu_si128((__m128i*)(w + k * 4), _mm_or_si128(a, _mm_slli_epi32(b, 16)));
            }
            for (int chunk = 0; chunk < chunks_of_row; chunk++) {
                vi16 total[HEADS][4];
                for (int h = 0; h < HEADS; h++)
                    for (int i = 0; i < 4; i++) total[h][i] = load_pairs(sums + h * size + chunk * wide + i * W);
                for (int k = 0; k < some; k += 2) {
                    int32_t pairs[4];
                    std::memcpy(pairs, w + k * 4, sizeof pairs);
                    vi16 both[4];
                    pair_rows(values + (size_t)k * size + chunk * wide, k + 1 == some ? nullptr : values + (size_t)(k + 1) * size + chunk * wide, both);
                    for (int h = 0; h < HEADS; h++)
                        for (int i = 0; i < 4; i++) total[h][i] = add_products(total[h][i], both[i], splat_pair(pairs[h]));
                }
                for (int h = 0; h < HEADS; h++)
                    for (int i = 0; i < 4; i++) store_pairs(sums + h * size + chunk * wide + i * W, total[h][i]);
            }
            at += some;
        }
        for (int h = 0; h < HEADS; h++)
            for (int chunk = 0; chunk < chunks_of_row; chunk++)
                for (int i = 0; i < 4; i++)
                    for (int lane = 0; lane < W; lane++)
                        out[h * (size + 2) + 2 + chunk * wide + pair_place(i, lane)] =
                            (float)sums[h * size + chunk * wide + i * W + lane] * (tops[h] / 32000.0f);
    }

    template <int KIND, int HEADS, int WIDE>
    static void add_values(const void* pool, size_t row, int count, int size, int i, const float* scores, float* out) {
        vf total[HEADS][WIDE];
        for (int h = 0; h < HEADS; h++)
            for (int w = 0; w < WIDE; w++) total[h][w] = load(out + h * (size + 2) + 2 + i + w * W);
        for (int k = 0; k < count; k++) {
            vf value[WIDE];
            for (int w = 0; w < WIDE; w++) value[w] = load_kv<KIND>(pool, (row + k) * size + i + w * W);
            for (int h = 0; h < HEADS; h++) {
                vf by = splat(scores[k * 4 + h]);
                for (int w = 0; w < WIDE; w++) total[h][w] = fma(value[w], by, total[h][w]);
            }
        }
        for (int h = 0; h < HEADS; h++)
            for (int w = 0; w < WIDE; w++) store(out + h * (size + 2) + 2 + i + w * W, total[h][w]);
    }

    // The splits of one head of one token, weighed against each other.
    void join_splits(int t, int h, int first, int last) {
        const int size = m.head_dim;
        const size_t stride = (size_t)m.heads * (size + 2);
        const float* part = partial + (size_t)first * stride + h * (size + 2);
        float top = -INFINITY, total = 0;
        for (int s = 0; s < last - first; s++) top = std::max(top, part[s * stride]);
        float* to = attended.plain + (size_t)t * Q + h * size;
        for (int i = 0; i < size; i++) to[i] = 0;
        for (int s = 0; s < last - first; s++) {
            float by = std::exp(part[s * stride] - top);
            total += by * part[s * stride + 1];
            for (int i = 0; i < size; i += W) store(to + i, fma(load(part + s * stride + 2 + i), splat(by), load(to + i)));
        }
        for (int i = 0; i < size; i += W) store(to + i, mul(load(to + i), splat(1.0f / total)));
    }

    // ----- router

    void router(Team& team, const Layer& layer, int l) {
        const int R = m.router_size;
        for (int task; (task = team.take(chunks(layer.router_down))) >= 0;) {
            chunk_times(layer.router_down, normed, T, task, route_mid.plain, R);
            int first = task * CHUNK, last = std::min(first + CHUNK, R);
            for (int t = 0; t < T; t++) keep_route(layer, l, t, first, last);
        }
        team.meet();
        for (int t; (t = team.take(T)) >= 0;) {
            norm_route(layer, t);
            route_in.prepare(t, layer.fc1.kind);
        }
        team.meet();
        dense_gelu(team, layer.fc1, layer.fc1_bias, route_in, route_mid, layer.fc2.kind);
        dense_gelu(team, layer.fc2, layer.fc2_bias, route_mid, route_in, F32);
        for (int t; (t = team.take(T)) >= 0;) choose_class(layer, l, t);
        team.meet();
    }

    // What was projected, and the state of the layer before: the state of this one. It lies in route_mid until then.
    void keep_route(const Layer& layer, int l, int t, int first, int last) {
        const float* projected = route_mid.plain + (size_t)t * m.router_size;
        float* now = state + (size_t)t * m.router_size;
        for (int i = first; i < last; i++) {
            float e = projected[i] + layer.router_down_bias[i];
            now[i] = layer.state_scale && l > 0 ? e + now[i] * layer.state_scale[i] : e;
        }
    }

    void norm_route(const Layer& layer, int t) {
        const int R = m.router_size;
        const float* e = state + (size_t)t * R;
        float* to = route_in.plain + (size_t)t * R;
        vf squares = zero();
        for (int i = 0; i < R; i += W) squares = fma(load(e + i), load(e + i), squares);
        const vf scale = splat(1.0f / std::sqrt(sum(squares) / (float)R + m.eps));
        for (int i = 0; i < R; i += W) store(to + i, mul(mul(load(e + i), scale), load(layer.router_norm + i)));
    }

    // From the last of the router's hidden layers to a class and its weight.
    void choose_class(const Layer& layer, int l, int t) {
        route_in.prepare(t, layer.classes.kind);
            float scores[257];
            float* to = scores;
            multiply(layer.classes, route_in, &t, 1, 0, m.classes, &to);
            float top = scores[0], total = 0;
            for (int c = 1; c < m.classes; c++) top = std::max(top, scores[c]);
            for (int c = 0; c < m.classes; c++) total += scores[c] = std::exp(scores[c] - top);
            int best = 0;
            for (int c = 0; c < m.classes; c++) {
                scores[c] /= total;
                if (scores[c] + layer.balancing_bias[c] > scores[best] + layer.balancing_bias[best]) best = c;
            }
            if (p.forced) best = p.forced[(size_t)t * m.layers + l];
            choice[t] = best;
            weight[t] = scores[best];
            if (p.routes) p.routes[(size_t)t * m.layers + l] = (uint8_t)best;
    }

    void dense_gelu(Team& team, const Matrix& matrix, const float* bias, const Vectors& in, Vectors& out, int32_t next) {
        for (int task; (task = team.take(chunks(matrix))) >= 0;) {
            chunk_times(matrix, in, T, task, out.plain, matrix.outer);
            int first = task * CHUNK, last = std::min(first + CHUNK, matrix.outer);
            for (int t = 0; t < T; t++) {
                float* row = out.plain + (size_t)t * matrix.outer;
                for (int i = first; i < last; i += W) store(row + i, gelu(add(load(row + i), load(bias + i))));
                out.prepare(t, next, first, last);
            }
        }
        team.meet();
    }

    // ----- experts

    // Tokens by expert: those of e are list[start[e]] to list[start[e + 1] - 1].
    void list_tokens(int32_t* start, int32_t* list) const {
        for (int e = 0; e <= m.experts + 1; e++) start[e] = 0;
        for (int t = 0; t < T; t++) start[choice[t] + 1]++;
        for (int e = 0; e < m.experts; e++) start[e + 1] += start[e];
        for (int t = 0; t < T; t++)
            if (choice[t] < m.experts) list[start[choice[t]]++] = t;
        for (int e = m.experts; e > 0; e--) start[e] = start[e - 1];
        start[0] = 0;
    }

    void experts(Team& team, const Layer& layer, int32_t* memory) {
        int32_t *start = memory, *list = memory + m.experts + 2;  // every thread makes them for itself
        list_tokens(start, list);
        const int F = m.expert_size, wide = (F + CHUNK - 1) / CHUNK, tall = (D + CHUNK - 1) / CHUNK;
        int32_t busy[257];
        int count = 0;
        for (int e = 0; e < m.experts; e++)
            if (start[e + 1] > start[e]) busy[count++] = e;
        for (int task; (task = team.take(count * wide)) >= 0;) {
            const int e = busy[task / wide], first = task % wide * CHUNK, last = std::min(first + CHUNK, F);
            for (int at = start[e]; at < start[e + 1]; at += MAX_VECTORS) {
                const int some = std::min(MAX_VECTORS, start[e + 1] - at);
                alignas(64) float gate[MAX_VECTORS][CHUNK], up[MAX_VECTORS][CHUNK];
                float *gates[MAX_VECTORS], *ups[MAX_VECTORS];
                for (int i = 0; i < some; i++) gates[i] = gate[i] - first, ups[i] = up[i] - F - first;
                multiply(layer.gate_up[e], normed, list + at, some, first, last, gates);
                multiply(layer.gate_up[e], normed, list + at, some, F + first, F + last, ups);
                for (int i = 0; i < some; i++) {
                    const int t = list[at + i];
                    float* to = hidden.plain + (size_t)t * F + first;
                    for (int j = 0; j < last - first; j += W) store(to + j, mul(silu(load(gate[i] + j)), load(up[i] + j)));
                    hidden.prepare(t, layer.down[e].kind, first, last);
                }
            }
        }
        team.meet();
        for (int task; (task = team.take(count * tall)) >= 0;) {
            const int e = busy[task / tall], first = task % tall * CHUNK, last = std::min(first + CHUNK, D);
            for (int at = start[e]; at < start[e + 1]; at += MAX_VECTORS) {
                const int some = std::min(MAX_VECTORS, start[e + 1] - at);
                float* to[MAX_VECTORS];
                for (int i = 0; i < some; i++) to[i] = y + (size_t)list[at + i] * Y;
                multiply(layer.down[e], hidden, list + at, some, first, last, to);
                for (int i = 0; i < some; i++) {
                    vf by = splat(weight[list[at + i]]);
                    for (int j = first; j < last; j += W) store(to[i] + j, mul(load(to[i] + j), by));
                }
            }
        }
        team.meet();
    }

    // ----- many tokens, on tile registers

    uint16_t *normed_blocks = nullptr, *attended_blocks, *route_blocks, *expert_blocks, *hidden_blocks, *all_keys, *all_values;
    int blocks = 0, expert_blocks_max = 0;
    struct Span {  // up to a block of tokens of one segment
        int32_t segment, first, count;
    };
    std::vector<Span> query_blocks;
    std::vector<size_t> kept_at;     // of each segment, where its keys begin among all, in keys
    std::vector<int> kept_keys;      // of each segment, how many there is room for: a multiple of 32

    // Whether the sizes are whole tiles.
    bool can_tile() const {
        const Layer& l = m.layer[0];
        for (const Matrix* w : {&l.q, &l.k, &l.v_current, &l.v_delayed, &l.o, &l.router_down, &l.fc1, &l.fc2, &l.gate_up[0], &l.down[0]})
            if (w->outer % 16 || w->inner % 32 || w->inner > 8192 || w->kind == F32) return false;
        return l.grouped.kind == BF16 && m.head_dim % 32 == 0 && m.time1 == 2 && m.expert_size % 16 == 0;
    }

    // A segment of many tokens attends block by block; others token by token.
    bool is_block(int s) const { return tiled && p.bounds[s + 1] - p.bounds[s] >= BLOCK; }

    void place_tiled(Scratch& s) {
        blocks = (T + BLOCK - 1) / BLOCK;
        expert_blocks_max = T / BLOCK + m.experts;
        normed_blocks = s.take<uint16_t>((size_t)blocks * BLOCK * D);
        attended_blocks = s.take<uint16_t>((size_t)blocks * BLOCK * Q);
        route_blocks = s.take<uint16_t>((size_t)blocks * BLOCK * m.router_size * 2);
        expert_blocks = s.take<uint16_t>((size_t)expert_blocks_max * BLOCK * D);
        hidden_blocks = s.take<uint16_t>((size_t)expert_blocks_max * BLOCK * m.expert_size);
        size_t keys = 0;
        kept_at.resize(p.segments);
        kept_keys.resize(p.segments);
        for (int i = 0; i < p.segments; i++) {
            if (!is_block(i)) continue;
            const int count = p.bounds[i + 1] - p.bounds[i];
            kept_at[i] = keys;
            kept_keys[i] = (p.starts[i] + count + 31) / 32 * 32;
            keys += kept_keys[i];
            for (int first = 0; first < count; first += BLOCK)
                query_blocks.push_back({i, p.bounds[i] + first, std::min(BLOCK, count - first)});
        }
        all_keys = s.take<uint16_t>(keys * m.kv_heads * m.head_dim);
        all_values = s.take<uint16_t>(keys * m.kv_heads * m.head_dim);
    }

    size_t tiled_bytes() const {
        size_t widest = std::max({D, Q, m.expert_size, m.router_size});
        size_t product = 32 * (widest + 32) * 2 + 4096;
        size_t conv = 2 * BLOCK * (size_t)m.head_dim * 2 * 2 + 2 * BLOCK * (size_t)m.head_dim * 4 + 4096;
        size_t attention = MAX_GROUP * ((size_t)KEYS * BLOCK * 6 + (size_t)m.head_dim * BLOCK * 6) + 4096;
        return std::max({product, conv, attention, ((size_t)T + 3 * m.experts + 4) * 4});
    }

#if HAS_TILES
    static size_t block_size(int inner) { return (size_t)BLOCK * inner; }

    // All tasks of a phase: run(task, next). Who knows its next task can ask for what that reads.
    template <class Run>
    static void each_task(Team& team, int count, Run run) {
        for (int task = team.take(count); task >= 0;) {
            const int next = team.take(count);
            run(task, next);
            task = next;
        }
    }

    // Two times 16 rows of a matrix, as they are stored: where they begin, and their bytes.
    static Ahead stored_rows(const Matrix& w, int first, int second) {
        Ahead ahead;
        const bool is_packed = w.kind == INT8 || w.kind == INT4;
        ahead.bytes = is_packed ? tile_bytes(w.kind, w.inner) : w.kind == BF16 ? (size_t)TILE * w.inner * 2 : 0;
        ahead.first = (const char*)w.data + ahead.bytes * (first / TILE);
        ahead.second = second < w.outer ? (const char*)w.data + ahead.bytes * (second / TILE) : ahead.first;
        return ahead;
    }

    // Two times 16 rows of a matrix for blocks [from, to): use(block, c) gets [2][16][16], the rows of each.
    template <class Use>
    static void rows_by_blocks(const Matrix& w, int first, int second, const uint16_t* data, int from, int to, char* memory, Ahead ahead, Use use) {
        ahead.spread((int64_t)(to - from + 1) / 2 * (w.inner / 32));
        float* c = (float*)memory;
        size_t stride;
        uint16_t* room = (uint16_t*)(memory + 4096);
        const uint16_t* a = rows_in_bf16(w, first, room, &stride);
        const uint16_t* b = second < w.outer ? rows_in_bf16(w, second, room + (size_t)16 * (w.inner + 32), &stride) : a;
        for (int block = from; block < to; block += 2) {
            const uint16_t* x = data + block_size(w.inner) * block;
            if (block + 1 == to) {
                tiles_times(a, b, stride, x, w.inner, c, ahead);
                use(block, c, c + 256);
                return;
            }
            tiles_times(a, b, stride, x, x + block_size(w.inner), w.inner, c, ahead);
            use(block, c, c + 512);
            use(block + 1, c + 256, c + 768);
        }
    }

    static int row_pairs(const Matrix& w) { return (w.outer + 31) / 32; }

    // One task of a dense product: 32 rows for some blocks, into out + token * stride.
    void dense_task(const Matrix& w, int task, const uint16_t* data, float* out, size_t stride, char* memory, Ahead ahead) {
        const int from = task / row_pairs(w) * BLOCKS, to = std::min(from + BLOCKS, blocks), row = task % row_pairs(w) * 32;
        rows_by_blocks(w, row, row + 16, data, from, to, memory, ahead, [&](int block, const float* c, const float* d) {
            float* rows[BLOCK];
            const int count = std::min(BLOCK, T - block * BLOCK);
            for (int i = 0; i < count; i++) rows[i] = out + (size_t)(block * BLOCK + i) * stride + row;
            turn(c, rows, count);
            if (row + 16 >= w.outer) return;
            for (int i = 0; i < count; i++) rows[i] += 16;
            turn(d, rows, count);
        });
    }

    static Ahead dense_ahead(const Matrix& w, int task) {
        const int row = task % row_pairs(w) * 32;
        return stored_rows(w, row, row + 16);
    }

    // A whole dense product.
    void dense_product(Team& team, const Matrix& w, const uint16_t* data, float* out, size_t stride, char* memory) {
        each_task(team, dense_tasks(w), [&](int task, int next) {
            dense_task(w, task, data, out, stride, memory, next < 0 ? Ahead() : dense_ahead(w, next));
        });
        team.meet();
    }

    int dense_tasks(const Matrix& w) const { return row_pairs(w) * ((blocks + BLOCKS - 1) / BLOCKS); }

    void pack_tokens(const Vectors& from, int block, uint16_t* to) const {
        const float* rows[BLOCK];
        const int count = std::min(BLOCK, T - block * BLOCK);
        for (int i = 0; i < count; i++) rows[i] = from.plain + (size_t)(block * BLOCK + i) * from.inner;
        pack_block(rows, count, from.inner, to + block_size(from.inner) * block);
    }

    void run_tiled(Team& team, char* memory) {
        start_tiles();
        for (int block; (block = team.take(blocks)) >= 0;) {
            for (int t = block * BLOCK; t < std::min(T, (block + 1) * BLOCK); t++) {
                float* row = x + (size_t)t * D;
                read_row(m.embed, (int)p.ids[t], row);
                for (int i = 0; i < D; i += W) store(row + i, mul(add(load(row + i), load(m.input_bias + i)), load(m.input_scale + i)));
                norm(t, m.layer[0].attention_norm, normed);
            }
            pack_tokens(normed, block, normed_blocks);
        }
        team.meet();
        for (int l = 0; l < m.layers; l++) {
            const Layer& layer = m.layer[l];
            attention_tiled(team, layer, l, memory);
            for (int block; (block = team.take(blocks)) >= 0;) {
                for (int t = block * BLOCK; t < std::min(T, (block + 1) * BLOCK); t++) {
                    merge(layer.attention_merge, t);
                    norm(t, layer.moe_norm, normed);
                }
                pack_tokens(normed, block, normed_blocks);
            }
            team.meet();
            router_tiled(team, layer, l, memory);
            experts_tiled(team, layer, memory);
            for (int block; (block = team.take(blocks)) >= 0;) {
                for (int t = block * BLOCK; t < std::min(T, (block + 1) * BLOCK); t++) {
                    if (choice[t] >= m.experts) skip(t);
                    merge(layer.moe_merge, t);
                    if (l + 1 < m.layers) norm(t, m.layer[l + 1].attention_norm, normed);
                }
                if (l + 1 < m.layers) pack_tokens(normed, block, normed_blocks);
            }
            team.meet();
        }
        stop_tiles();
        head(team);
    }

    void attention_tiled(Team& team, const Layer& layer, int l, char* memory) {
        float* u = p.new_columns ? p.new_columns + (size_t)l * T * C : columns;
        float* d = p.new_delayed ? p.new_delayed + (size_t)l * T * half : delayed;
        const Matrix* parts[4] = {&layer.q, &layer.k, &layer.v_current, &layer.v_delayed};
        float* to[4] = {u, u + Q, current, d};
        size_t stride[4] = {(size_t)C, (size_t)C, (size_t)half, (size_t)half};
        int ends[4], total = 0;
        for (int i = 0; i < 4; i++) ends[i] = total += dense_tasks(*parts[i]);
        each_task(team, total, [&](int task, int next) {
            auto part = [&](int task) { return (int)(std::upper_bound(ends, ends + 4, task) - ends); };
            const int i = part(task), j = next < 0 ? 0 : part(next);
            dense_task(*parts[i], task - (i ? ends[i - 1] : 0), normed_blocks, to[i], stride[i], memory,
                       next < 0 ? Ahead() : dense_ahead(*parts[j], next - (j ? ends[j - 1] : 0)));
        });
        team.meet();
        const int all_heads = m.heads + m.kv_heads, pairs = (blocks + 1) / 2;
        for (int task; (task = team.take(pairs * all_heads)) >= 0;)
            mix_tiled(layer, l, task / all_heads * 2 * BLOCK, task % all_heads, u, d, memory);
        team.meet();
        std::vector<int> gathers;  // segments, once for every KEYS keys and key head
        for (int s = 0; s < p.segments; s++)
            for (int at = 0; is_block(s) && at < kept_keys[s]; at += KEYS) gathers.push_back(s), gathers.push_back(at);
        for (int task; (task = team.take((int)gathers.size() / 2 * m.kv_heads)) >= 0;)
            gather(l, gathers[task / m.kv_heads * 2], gathers[task / m.kv_heads * 2 + 1], task % m.kv_heads);
        team.meet();
        const bool slides = layer.window > 0;
        const int groups = m.heads / m.kv_heads, parts_of_group = (groups + MAX_GROUP - 1) / MAX_GROUP;
        const int singles = (int)splits[slides].size() * m.kv_heads * parts_of_group;
        const int wide = (int)query_blocks.size() * m.kv_heads * parts_of_group;
        for (int task; (task = team.take(singles + wide)) >= 0;) {
            // the last blocks have the most keys: they come first
            const bool is_single = task >= wide;
            const int at = is_single ? task - wide : wide - 1 - task;
            const int part = at % parts_of_group, g = at / parts_of_group % m.kv_heads, index = at / parts_of_group / m.kv_heads;
            const int first = g * groups + part * MAX_GROUP, count = std::min(MAX_GROUP, groups - part * MAX_GROUP);
            if (is_single) score(l, splits[slides][index], index, g, first, count, (float*)memory);
            else attend_block(query_blocks[index], layer.window, g, first, count, memory);
        }
        team.meet();
        for (int block; (block = team.take(blocks)) >= 0;) {
            for (int t = block * BLOCK; t < std::min(T, (block + 1) * BLOCK); t++) {
                const int s = segment_of[t];
                if (!is_block(s))
                    for (int h = 0; h < m.heads; h++) join_splits(t, h, first_split[slides][t], first_split[slides][t + 1]);
                if (p.commit && t + 1 == p.bounds[s + 1]) keep_state(l, s, u, d);
            }
            pack_tokens(attended, block, attended_blocks);
        }
        team.meet();
        dense_product(team, layer.o, attended_blocks, y, Y, memory);
    }

    // Everything between the projections and attention, of one head of two blocks of tokens.
    void mix_tiled(const Layer& layer, int l, int first, int h, const float* u, const float* d, char* memory) {
        const int size = m.head_dim, count = std::min(2 * BLOCK, T - first);
        const size_t block = block_size(2 * size);
        float* c = (float*)memory;
        uint16_t* taps = (uint16_t*)(memory + 4096);                          // two blocks of 2 * size places
        float* heads = (float*)(memory + 4096 + 2 * block * sizeof(uint16_t));  // [2 * BLOCK][size]
        for (int half_block = 0; half_block < 2; half_block++) {
            for (int at = 0; at < size; at += 16) {
                float deltas[2 * BLOCK][16];  // a token's older tap, then its newer one
                for (int i = 0; i < BLOCK; i++) {
                    const int t = first + half_block * BLOCK + i;
                    for (int tap = 0; tap < 2; tap++) {
                        vf total = load(layer.depthwise_bias + h * size + at);
                        for (int k = 0; t < T && k < m.time0; k++)
                            total = fma(load(layer.depthwise + (size_t)k * C + h * size + at),
                                        load(column(u, l, t, 1 - tap + m.time0 - 1 - k) + h * size + at), total);
                        store(deltas[2 * i + tap], total);
                    }
                }
                // a line of `pairs` is a token's 16 pairs; turned, it is a pair of 16 tokens
                alignas(64) uint16_t pairs[BLOCK][32];
                float* lines[BLOCK];
                pair_lines(deltas[0], 2 * BLOCK, pairs[0]);
                for (int i = 0; i < BLOCK; i++) lines[i] = (float*)(taps + half_block * block + (size_t)(at + i) * 32);
                turn((const float*)pairs, lines, BLOCK);
            }
        }
        const Matrix& w = layer.grouped;
        for (int row = 0; row < size; row += 32) {
            const uint16_t* a = (const uint16_t*)w.data + (size_t)(h * size + row) * w.inner;
            Ahead nothing;
            tiles_times(a, a + (size_t)16 * w.inner, w.inner, taps, taps + block, w.inner, c, nothing);
            for (int part = 0; part < 4; part++) {  // rows 0 and 16 on, blocks 0 and 1
                float* lines[BLOCK];
                for (int i = 0; i < BLOCK; i++) lines[i] = heads + (size_t)((part & 1) * BLOCK + i) * size + row + (part >> 1) * 16;
                turn(c + part * 256, lines, BLOCK);
            }
        }
        for (int i = 0; i < count; i++) finish_head(layer, l, first + i, h, u, d, heads + (size_t)i * size);
    }

    // Keys [at, at + KEYS) of a segment as bfloat16, a row each; values with a channel in each row.
    void gather(int l, int s, int at, int g) {
        const int size = m.head_dim, room = kept_keys[s], length = p.starts[s] + p.bounds[s + 1] - p.bounds[s];
        uint16_t* keys = all_keys + (kept_at[s] * m.kv_heads + (size_t)g * room) * size;
        uint16_t* values = all_values + (kept_at[s] * m.kv_heads + (size_t)g * room) * size;
        alignas(64) uint16_t some[32 * 16];
        for (int from = at; from < std::min(at + KEYS, room); from += 32) {
            for (int k = from; k < from + 32; k++) {
                if (k < length) read_kv(p.keys[l], p.key_scales ? p.key_scales[l] : nullptr, s, k, g, 0, size, keys + (size_t)k * size);
                else std::memset(keys + (size_t)k * size, 0, (size_t)size * 2);
            }
            for (int i = 0; i < size; i += 16) {
                for (int k = 0; k < 32; k++) {
                    if (from + k < length) read_kv(p.values[l], p.value_scales ? p.value_scales[l] : nullptr, s, from + k, g, i, 16, some + k * 16);
                    else std::memset(some + k * 16, 0, 32);
                }
                turn_16bit(some, 16, values + (size_t)i * room + from, room);
            }
        }
    }

    void read_kv(const void* pool, const float* scales, int s, int k, int g, int first, int count, uint16_t* to) const {
        const size_t page = p.table[(size_t)s * p.table_width + k / p.page_size];
        const size_t row = (page * m.kv_heads + g) * p.page_size + k % p.page_size, at = row * m.head_dim + first;
        if (p.kv_kind == BF16) {
            std::memcpy(to, (const uint16_t*)pool + at, (size_t)count * 2);
            return;
        }
        for (int i = 0; i < count; i++)
            to[i] = float_to_bf16(p.kv_kind == F32 ? ((const float*)pool)[at + i] : (float)((const int8_t*)pool)[at + i] * scales[row]);
    }

    // Attention of a block of tokens, for `count` query heads of key head g. A token is a lane.
    void attend_block(const Span& span, int window, int g, int first_head, int count, char* memory) {
        const int size = m.head_dim, s = span.segment, room = kept_keys[s];
        const int start = p.starts[s] + span.first - p.bounds[s], last = start + span.count;  // keys [.., last)
        const uint16_t* keys = all_keys + (kept_at[s] * m.kv_heads + (size_t)g * room) * size;
        const uint16_t* values = all_values + (kept_at[s] * m.kv_heads + (size_t)g * room) * size;
        float* scores = (float*)memory;                                                  // [KEYS][16]
        uint16_t* weights = (uint16_t*)(scores + (size_t)KEYS * BLOCK);                  // [KEYS / 2][16][2]
        uint16_t* q = weights + (size_t)KEYS * BLOCK;                                    // [size / 2][16][2]
        float* out = (float*)(q + block_size(size));                                     // [size][16]
        const vf scale = splat(1.44269504f / std::sqrt((float)size));  // scores are exponents of 2
        alignas(64) int32_t lane_position[BLOCK];
        for (int i = 0; i < BLOCK; i++) lane_position[i] = i < span.count ? start + i : start;
        const __m512i position = _mm512_load_si512(lane_position);
        const int begin = window ? std::max(0, start - window + 1) / 32 * 32 : 0;
        for (int h = first_head; h < first_head + count; h++) {
            const float* rows[BLOCK];
            for (int i = 0; i < span.count; i++) rows[i] = queries + (size_t)(span.first + i) * Q + h * size;
            pack_block(rows, span.count, size, q);
            vf top = splat(-INFINITY), total = zero();
            std::memset(out, 0, (size_t)size * BLOCK * 4);
            for (int at = begin; at < last; at += KEYS) {
                const int some = std::min(KEYS, (last - at + 31) / 32 * 32);
                for (int k = 0; k < some; k += 32) {
                    _tile_zero(0);
                    _tile_zero(1);
                    for (int i = 0; i < size; i += 32) {
                        _tile_loadd(6, q + (size_t)i * 16, 64);
                        _tile_loadd(4, keys + (size_t)(at + k) * size + i, size * 2);
                        _tile_dpbf16ps(0, 4, 6);
                        _tile_loadd(5, keys + (size_t)(at + k + 16) * size + i, size * 2);
                        _tile_dpbf16ps(1, 5, 6);
                    }
                    _tile_stored(0, scores + (size_t)k * 16, 64);
                    _tile_stored(1, scores + (size_t)(k + 16) * 16, 64);
                }
                vf new_top = top;
                for (int k = 0; k < some; k++) {
                    vf v = mul(load(scores + (size_t)k * 16), scale);
                    if (at + k > start || (window && at + k <= last - 1 - window)) {
                        const __m512i key = _mm512_set1_epi32(at + k);
                        __mmask16 seen = _mm512_cmple_epi32_mask(key, position);
                        if (window) seen &= _mm512_cmpgt_epi32_mask(key, _mm512_sub_epi32(position, _mm512_set1_epi32(window)));
                        v = _mm512_mask_blend_ps(seen, splat(-INFINITY), v);
                    }
                    store(scores + (size_t)k * 16, v);
                    new_top = vmax(new_top, v);
                }
                const vf shift = _mm512_mask_blend_ps(_mm512_cmp_ps_mask(new_top, splat(-INFINITY), _CMP_EQ_OQ), new_top, zero());
                const vf fade = exp2_rounded(_mm512_sub_ps(top, shift));
                total = mul(total, fade);
                for (int i = 0; i < size; i++) store(out + i * 16, mul(load(out + i * 16), fade));
                for (int k = 0; k < some; k++) {
                    vf e = exp2_rounded(_mm512_sub_ps(load(scores + (size_t)k * 16), shift));
                    store(scores + (size_t)k * 16, e);
                    total = add(total, e);
                }
                pair_lines(scores, some, weights);
                for (int i = 0; i < size; i += 32) {
                    _tile_loadd(0, out + (size_t)i * 16, 64);
                    _tile_loadd(1, out + (size_t)(i + 16) * 16, 64);
                    for (int k = 0; k < some; k += 32) {
                        _tile_loadd(6, weights + (size_t)k * 16, 64);
                        _tile_loadd(4, values + (size_t)i * room + at + k, room * 2);
                        _tile_dpbf16ps(0, 4, 6);
                        _tile_loadd(5, values + (size_t)(i + 16) * room + at + k, room * 2);
                        _tile_dpbf16ps(1, 5, 6);
                    }
                    _tile_stored(0, out + (size_t)i * 16, 64);
                    _tile_stored(1, out + (size_t)(i + 16) * 16, 64);
                }
                top = new_top;
            }
            const vf by = splat(1.0f) / total;
            for (int i = 0; i < size; i++) store(out + i * 16, mul(load(out + i * 16), by));
            for (int i = 0; i < size; i += 16) {
                float* lines[BLOCK];
                for (int j = 0; j < span.count; j++) lines[j] = attended.plain + (size_t)(span.first + j) * Q + h * size + i;
                turn(out + (size_t)i * 16, lines, span.count);
            }
        }
    }

    void router_tiled(Team& team, const Layer& layer, int l, char* memory) {
        const int R = m.router_size;
        uint16_t* next_blocks = route_blocks + (size_t)blocks * BLOCK * R;
        dense_product(team, layer.router_down, normed_blocks, route_mid.plain, R, memory);
        for (int block; (block = team.take(blocks)) >= 0;) {
            for (int t = block * BLOCK; t < std::min(T, (block + 1) * BLOCK); t++) {
                keep_route(layer, l, t, 0, R);
                norm_route(layer, t);
            }
            pack_tokens(route_in, block, route_blocks);
        }
        team.meet();
        gelu_tiled(team, layer.fc1, layer.fc1_bias, route_blocks, route_mid, next_blocks, memory);
        gelu_tiled(team, layer.fc2, layer.fc2_bias, next_blocks, route_in, nullptr, memory);
        for (int t; (t = team.take(T)) >= 0;) choose_class(layer, l, t);
        team.meet();
    }

    void gelu_tiled(Team& team, const Matrix& w, const float* bias, const uint16_t* data, Vectors& out, uint16_t* next, char* memory) {
        dense_product(team, w, data, out.plain, w.outer, memory);
        for (int block; (block = team.take(blocks)) >= 0;) {
            for (int t = block * BLOCK; t < std::min(T, (block + 1) * BLOCK); t++) {
                float* row = out.plain + (size_t)t * w.outer;
                for (int i = 0; i < w.outer; i += W) store(row + i, gelu(add(load(row + i), load(bias + i))));
            }
            if (next) pack_tokens(out, block, next);
        }
        team.meet();
    }

    void experts_tiled(Team& team, const Layer& layer, char* memory) {
        // tokens by expert, and how many blocks come before those of each: every thread makes the lists for itself
        std::vector<int32_t> start(m.experts + 2), list(T), before(m.experts + 1);
        list_tokens(start.data(), list.data());
        for (int e = 0; e < m.experts; e++) before[e + 1] = before[e] + (start[e + 1] - start[e] + BLOCK - 1) / BLOCK;
        const int F = m.expert_size, all = before[m.experts];
        int busy[257], count = 0;
        for (int e = 0; e < m.experts; e++)
            if (start[e + 1] > start[e]) busy[count++] = e;
        for (int block; (block = team.take(all)) >= 0;) {
            const int e = (int)(std::upper_bound(before.begin(), before.end(), block) - before.begin()) - 1;
            const int first = start[e] + (block - before[e]) * BLOCK, count = std::min(BLOCK, start[e + 1] - first);
            const float* rows[BLOCK];
            for (int i = 0; i < count; i++) rows[i] = normed.plain + (size_t)list[first + i] * D;
            pack_block(rows, count, D, expert_blocks + block_size(D) * block);
        }
        team.meet();
        const int wide = F / 16, tall = (D + 31) / 32;
        each_task(team, count * wide, [&](int task, int next) {
            const int e = busy[task / wide], row = task % wide * 16, next_row = next % wide * 16;
            rows_by_blocks(layer.gate_up[e], row, F + row, expert_blocks, before[e], before[e + 1], memory,
                           next < 0 ? Ahead() : stored_rows(layer.gate_up[busy[next / wide]], next_row, F + next_row),
                           [&](int block, float* gate, const float* up) {
                               for (int i = 0; i < 256; i += W) store(gate + i, mul(silu_rounded(load(gate + i)), load(up + i)));
                               pair_lines(gate, 16, hidden_blocks + block_size(F) * block + (size_t)row * BLOCK);
                           });
        });
        team.meet();
        each_task(team, count * tall, [&](int task, int next) {
            const int e = busy[task / tall], row = task % tall * 32;
            rows_by_blocks(layer.down[e], row, row + 16, hidden_blocks, before[e], before[e + 1], memory,
                           next < 0 ? Ahead() : dense_ahead(layer.down[busy[next / tall]], next % tall),
                           [&](int block, float* c, float* d) {
                               const int first = start[e] + (block - before[e]) * BLOCK, count = std::min(BLOCK, start[e + 1] - first);
                               alignas(64) float by[BLOCK] = {};
                               float* rows[BLOCK];
                               for (int i = 0; i < count; i++) by[i] = weight[list[first + i]], rows[i] = y + (size_t)list[first + i] * Y + row;
                               for (int i = 0; i < 256; i += W) store(c + i, mul(load(c + i), load(by)));
                               turn(c, rows, count);
                               if (row + 16 >= D) return;
                               for (int i = 0; i < 256; i += W) store(d + i, mul(load(d + i), load(by)));
                               for (int i = 0; i < count; i++) rows[i] += 16;
                               turn(d, rows, count);
                           });
        });
        team.meet();
    }
#endif

    // ----- logits

    void head(Team& team) {
        for (int r; (r = team.take(p.num_rows)) >= 0;) {
            int t = p.rows[r];
            norm(t, m.final_norm, normed);
            normed.prepare(t, m.embed.kind);
        }
        team.meet();
        const int rows = m.vocab >= 65536 ? 4 * CHUNK : CHUNK;
        for (int task; (task = team.take((m.vocab + rows - 1) / rows)) >= 0;) {
            int first = task * rows, last = std::min(first + rows, m.vocab);
            for (int at = 0; at < p.num_rows; at += MAX_VECTORS) {
                int some = std::min(MAX_VECTORS, p.num_rows - at);
                float* to[MAX_VECTORS];
                for (int i = 0; i < some; i++) to[i] = p.logits + (size_t)(at + i) * m.vocab;
                multiply(m.embed, normed, p.rows + at, some, first, last, to);
            }
        }
    }
};

}  // namespace

extern "C" {

// Bytes of scratch that a pass needs. `scratch` of the pass need not be set.
int64_t zaya_forward_scratch(const Model* m, const Pass* p, int threads) { return Forward(*m, *p, threads).needed; }

// Run a pass. Returns 0, or the bytes of scratch that are missing.
int64_t zaya_forward(const Model* m, const Pass* p, int threads) {
    Forward forward(*m, *p, threads);
    if (forward.needed > p->scratch_bytes) return forward.needed - p->scratch_bytes;
    run_team(threads, [&](Team& team, int thread) { forward.run(team, thread); });
    return 0;
}
}
