// The forward pass, phase by phase. Every thread runs all of it; `team.meet()` ends a phase.
//
// The computation is that of zaya/model/{transformer,block,cca,router,experts}.py, in float32 between the matrices. A
// token is computed the same way whatever else is in the pass: no sum depends on how work is shared out.

#include "forward.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

constexpr int SPLIT = 512;     // keys of one attention task; at fixed places of the text, so that sums do not move
constexpr int CHUNK = 64;      // rows of a matrix in one task; a multiple of TILE, GROUP and 2W
constexpr int MAX_GROUP = 4;   // query heads of a key head that are scored together

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
          half(m.kv_heads * m.head_dim / 2), context(m.time0 + m.time1 - 2) {
        segment_of.resize(T);
        for (int s = 0; s < p.segments; s++)
            for (int t = p.bounds[s]; t < p.bounds[s + 1]; t++) segment_of[t] = s;
        for (int span = 0; span < 2; span++) first_split[span].resize(T + 1);
        bool spans[2] = {};
        for (int l = 0; l < m.layers; l++) spans[m.layer[l].window > 0] = true, window = std::max(window, m.layer[l].window);
        size_t most = 1;
        for (int sliding = 0; sliding < 2; sliding++) {
            if (!spans[sliding]) continue;
            for (int t = 0; t < T; t++) {
                first_split[sliding][t] = (int)splits[sliding].size();
                int last = position(t) + 1, first = sliding ? std::max(0, last - window) : 0;
                for (int from = first / SPLIT * SPLIT; from < last; from += SPLIT)
                    splits[sliding].push_back({t, std::max(from, first), std::min(from + SPLIT, last)});
            }
            first_split[sliding][T] = (int)splits[sliding].size();
            most = std::max(most, splits[sliding].size());
        }
        Scratch s{p.scratch, nullptr};
        x = s.take<float>((size_t)T * D);
        y = s.take<float>((size_t)T * D);
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
        own = s.take<char>((size_t)threads * own_bytes());
        needed = s.at - p.scratch;
    }

    int64_t needed;  // bytes of scratch

    void run(Team& team, int thread) {
        char* memory = own + (size_t)thread * own_bytes();
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
        head(team);
    }

private:
    const Model& m;
    const Pass& p;
    const int T, D, C, Q, half, context;
    int window = 0;
    std::vector<int> segment_of, first_split[2];
    std::vector<Split> splits[2];
    float *x, *y, *columns, *current, *delayed, *queries, *partial, *state, *weight;
    int32_t* choice;
    char* own;
    Vectors normed, attended, route_in, route_mid, hidden;

    size_t own_bytes() const {  // of one thread
        size_t scores = (size_t)MAX_GROUP * SPLIT * 4 + (size_t)m.head_dim * 4 * (MAX_GROUP + 16);
        size_t conv = Vectors::bytes(1, m.head_dim * m.time1) + (size_t)m.head_dim * 4 * 4;
        size_t lists = ((size_t)T + m.experts + 2) * 4;
        return (std::max(std::max(scores, conv), lists) + 127) / 64 * 64;
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
        float *row = x + (size_t)t * D, *branch = y + (size_t)t * D;
        for (int i = 0; i < D; i += W) {
            vf a = mul(add(load(branch + i), load(w.branch_bias + i)), load(w.branch_scale + i));
            vf b = mul(add(load(row + i), load(w.residual_bias + i)), load(w.residual_scale + i));
            store(row + i, add(a, b));
        }
    }

    void skip(int t) {
        float* to = y + (size_t)t * D;
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
        for (int task; (task = team.take(chunks(layer.o))) >= 0;) chunk_times(layer.o, attended, T, task, y, D);
        team.meet();
    }

    // The column of token t, `back` tokens before it: of the pass, or of the state before it.
    const float* column(const float* u, int l, int t, int back) const {
        int s = segment_of[t], offset = t - p.bounds[s] - back;
        if (offset >= 0) return u + (size_t)(t - back) * C;
        return p.columns + (((size_t)l * p.num_slots + p.slots[s]) * context + context + offset) * C;
    }

    // Convolutions, means, norm and rotation of one head of one token. Key heads also put their key and value in place.
    void mix(const Layer& layer, int l, int t, int h, const float* u, const float* d, float* memory) {
        const int size = m.head_dim, groups = m.heads / m.kv_heads;
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
        const float* before = t > p.bounds[s] ? d + (size_t)(t - 1) * half
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
            const float* from = offset >= 0 ? u + (size_t)(p.bounds[s] + offset) * C : to + (size_t)(context + offset) * C;
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
        const int size = m.head_dim, keys = split.last - split.first, page = p.page_size;
        const int32_t* table = p.table + (size_t)segment_of[split.token] * p.table_width;
        const float scale = 1.0f / std::sqrt((float)size);
        float* scores = memory;  // [HEADS][SPLIT]
        for (int at = split.first; at < split.last;) {
            const size_t row = ((size_t)table[at / page] * m.kv_heads + g) * page + at % page;
            const int some = std::min(page - at % page, split.last - at), to = at - split.first;
            for (int k = 0; k < some; k++) {
                vf total[4] = {zero(), zero(), zero(), zero()};
                for (int i = 0; i < size; i += W) {
                    vf key = load_kv<KIND>(p.keys[l], (row + k) * size + i);
                    for (int h = 0; h < HEADS; h++) total[h] = fma(key, load(q + h * size + i), total[h]);
                }
                alignas(16) float dots[4];
                _mm_store_ps(dots, sum4(total[0], total[1], total[2], total[3]));
                const float by = KIND == INT8 ? scale * p.key_scales[l][row + k] : scale;
                for (int h = 0; h < HEADS; h++) scores[h * SPLIT + to + k] = dots[h] * by;
            }
            at += some;
        }
        for (int h = 0; h < HEADS; h++) {
            float* s = scores + h * SPLIT;
            for (int k = keys; k % W; k++) s[k] = -INFINITY;  // SPLIT is a multiple of W
            vf top = splat(-INFINITY), total = zero();
            for (int k = 0; k < keys; k += W) top = vmax(top, load(s + k));
            const float largest = maximum(top);
            for (int k = 0; k < keys; k += W) {
                vf e = exponential(add(load(s + k), splat(-largest)));
                store(s + k, e);
            }
            for (int k = keys; k % W; k++) s[k] = 0;
            for (int k = 0; k < keys; k += W) total = add(total, load(s + k));
            out[h * (size + 2)] = largest;
            out[h * (size + 2) + 1] = sum(total);
            for (int i = 0; i < size; i++) out[h * (size + 2) + 2 + i] = 0;
        }
        for (int at = split.first; at < split.last;) {
            const size_t row = ((size_t)table[at / page] * m.kv_heads + g) * page + at % page;
            const int some = std::min(page - at % page, split.last - at), from = at - split.first;
            if constexpr (KIND == INT8)
                for (int h = 0; h < HEADS; h++)
                    for (int k = 0; k < some; k++) scores[h * SPLIT + from + k] *= p.value_scales[l][row + k];
            int i = 0;
            for (; i + 2 * W <= size; i += 2 * W) add_values<KIND, HEADS, 2>(p.values[l], row, some, size, i, scores + from, out);
            for (; i < size; i += W) add_values<KIND, HEADS, 1>(p.values[l], row, some, size, i, scores + from, out);
            at += some;
        }
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
                vf by = splat(scores[h * SPLIT + k]);
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
            for (int t = 0; t < T; t++) {
                float *e = route_mid.plain + (size_t)t * R, *before = state + (size_t)t * R;
                for (int i = first; i < last; i++) {
                    float now = e[i] + layer.router_down_bias[i];
                    before[i] = layer.state_scale && l > 0 ? now + before[i] * layer.state_scale[i] : now;
                }
            }
        }
        team.meet();
        for (int t; (t = team.take(T)) >= 0;) {
            const float* e = state + (size_t)t * R;
            float* to = route_in.plain + (size_t)t * R;
            float squares = 0;
            for (int i = 0; i < R; i++) squares += e[i] * e[i];
            const float scale = 1.0f / std::sqrt(squares / (float)R + m.eps);
            for (int i = 0; i < R; i++) to[i] = e[i] * scale * layer.router_norm[i];
            route_in.prepare(t, layer.fc1.kind);
        }
        team.meet();
        dense_gelu(team, layer.fc1, layer.fc1_bias, route_in, route_mid, layer.fc2.kind);
        dense_gelu(team, layer.fc2, layer.fc2_bias, route_mid, route_in, layer.classes.kind);
        for (int t; (t = team.take(T)) >= 0;) {
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
        team.meet();
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

    void experts(Team& team, const Layer& layer, int32_t* memory) {
        // tokens by expert: every thread makes the list for itself
        int32_t *start = memory, *list = memory + m.experts + 2;
        for (int e = 0; e <= m.experts + 1; e++) start[e] = 0;
        for (int t = 0; t < T; t++) start[choice[t] + 1]++;
        for (int e = 0; e < m.experts; e++) start[e + 1] += start[e];
        for (int t = 0; t < T; t++)
            if (choice[t] < m.experts) list[start[choice[t]]++] = t;
        for (int e = m.experts; e > 0; e--) start[e] = start[e - 1];
        start[0] = 0;

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
                for (int i = 0; i < some; i++) to[i] = y + (size_t)list[at + i] * D;
                multiply(layer.down[e], hidden, list + at, some, first, last, to);
                for (int i = 0; i < some; i++) {
                    vf by = splat(weight[list[at + i]]);
                    for (int j = first; j < last; j += W) store(to[i] + j, mul(load(to[i] + j), by));
                }
            }
        }
        team.meet();
    }

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
