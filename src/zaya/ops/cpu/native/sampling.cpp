#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "simd.h"

namespace {

constexpr int BLOCK = 512;  // numbers whose sum is kept
constexpr float NOT_A_NUMBER = std::numeric_limits<float>::quiet_NaN();

float largest_of(const float* x, int count) {  // NaN where there is one
    vf top = splat(-INFINITY);
    bool bad = false;
    int i = 0;
    for (; i + W <= count; i += W) {
        vf v = load(x + i);
        bad |= has_nan(v);
        top = vmax(top, v);
    }
    float most = maximum(top);
    for (; i < count; i++) {
        bad |= x[i] != x[i];
        most = std::max(most, x[i]);
    }
    return bad ? NOT_A_NUMBER : most;
}

float exp_of_one(float x) {  // as the vectors compute it
    alignas(64) float lane[W] = {x};
    store(lane, exponential(load(lane)));
    return x == -INFINITY ? 0.0f : lane[0];
}

// out = e^((x - top) * by), 0 for -inf; the sums of its blocks, and of all.
double exponentials(const float* x, int count, float top, float by, float* out, std::vector<double>& sums) {
    double total = 0;
    sums.clear();
    for (int from = 0; from < count; from += BLOCK) {
        const int to = std::min(from + BLOCK, count);
        vf sum_of = zero();
        double sum_of_block = 0;
        int i = from;
        for (; i + W <= to; i += W) {
            vf v = load(x + i);
            vf e = choose(v, splat(-INFINITY), exponential(mul(add(v, splat(-top)), splat(by))), zero());
            if (out) store(out + i, e);
            sum_of = add(sum_of, e);
        }
        for (; i < to; i++) {
            float e = exp_of_one((x[i] - top) * by);
            if (out) out[i] = e;
            sum_of_block += e;
        }
        sum_of_block += sum(sum_of);
        sums.push_back(sum_of_block);
        total += sum_of_block;
    }
    return total;
}

// Where a point lies among numbers that are summed in order: the first whose sum lies above. Never one that is 0.
int find(const float* e, int count, const std::vector<double>& sums, double target) {
    double before = 0;
    size_t block = 0;
    while (block + 1 < sums.size() && before + sums[block] <= target) before += sums[block++];
    // a block that adds nothing cannot hold it, whatever rounding says
    while (block > 0 && sums[block] == 0) block--;
    int last = -1;
    for (int i = (int)block * BLOCK; i < std::min((int)(block + 1) * BLOCK, count); i++) {
        if (e[i] <= 0) continue;
        last = i;
        before += e[i];
        if (before > target) break;
    }
    return std::max(last, 0);
}

struct Candidate {
    float e;
    int id;
};

// The likeliest ids that a row's settings keep, by id. The largest of e is 1.
std::vector<Candidate> kept(const float* e, int count, double total, int top_k, float top_p, float min_p) {
    // Numbers from 0 to 1 in buckets by their leading bits, to find how far down the cut can reach.
    constexpr int BUCKETS = 1 << 10;
    std::vector<int> counts(BUCKETS);
    std::vector<double> masses(BUCKETS);
    auto bucket = [](float x) {
        uint32_t bits;
        std::memcpy(&bits, &x, 4);
        return (int)(bits >> 20);
    };
    for (int i = 0; i < count; i++) {
        const int b = bucket(e[i]);
        counts[b]++;
        masses[b] += e[i];
    }
    int lowest = BUCKETS - 1, many = 0;
    double mass = 0;
    for (;; lowest--) {
        many += counts[lowest];
        mass += masses[lowest];
        if (lowest == 0 || many >= top_k) break;
        if (top_k < count && top_p < 1) continue;  // top_p is of the sum of all that top_k keeps
        if ((top_p < 1 && mass >= top_p * total) || (min_p > 0 && lowest < bucket(min_p))) break;
    }
    std::vector<Candidate> found;
    for (int i = 0; i < count; i++)
        if (e[i] > 0 && bucket(e[i]) >= lowest) found.push_back({e[i], i});
    std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) { return a.e > b.e || (a.e == b.e && a.id < b.id); });
    if ((int)found.size() > top_k) found.resize(top_k);
    if (top_p < 1) {
        double all = top_k < count ? 0 : total, before = 0;
        if (top_k < count)
            for (const Candidate& c : found) all += c.e;
        size_t keep = 0;
        while (keep < found.size() && before < top_p * all) before += found[keep++].e;
        found.resize(std::max<size_t>(keep, 1));
    }
    if (min_p > 0) {
        size_t keep = 1;
        while (keep < found.size() && found[keep].e >= min_p * found[0].e) keep++;
        found.resize(keep);
    }
    std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
    return found;
}

}  // namespace

void draw_row(const Draws& d, int row, float* memory) {
    const float* x = d.logits + (size_t)row * d.vocab;
    const float top = largest_of(x, d.vocab), temperature = d.temperature ? d.temperature[row] : 1.0f;
    d.ids[row] = 0;
    d.logprobs[row] = NOT_A_NUMBER;
    if (!std::isfinite(top)) return;
    if (temperature == 0) {
        d.ids[row] = std::find(x, x + d.vocab, top) - x;
        d.logprobs[row] = 0;
        return;
    }
    std::vector<double> sums;
    const double total = exponentials(x, d.vocab, top, 1.0f / temperature, memory, sums);
    const int top_k = d.top_k ? d.top_k[row] : d.vocab;
    const float top_p = d.top_p ? d.top_p[row] : 1.0f, min_p = d.min_p ? d.min_p[row] : 0.0f;
    auto below = [&](double all) { return std::min(d.points[row] * all, std::nextafter(all, 0.0)); };
    if (top_k >= d.vocab && top_p >= 1 && min_p <= 0) {
        const int id = find(memory, d.vocab, sums, below(total));
        d.ids[row] = id;
        d.logprobs[row] = (float)std::log(memory[id] / total);
        return;
    }
    const std::vector<Candidate> some = kept(memory, d.vocab, total, top_k, top_p, min_p);
    double all = 0, before = 0;
    for (const Candidate& c : some) all += c.e;
    const double target = below(all);
    size_t i = 0;
    while (i + 1 < some.size() && (before += some[i].e) <= target) i++;
    d.ids[row] = some[i].id;
    d.logprobs[row] = (float)std::log(some[i].e / all);
}

float log_sum(const float* logits, int vocab) {
    const float top = largest_of(logits, vocab);
    if (!std::isfinite(top)) return top;
    std::vector<double> sums;
    return top + (float)std::log(exponentials(logits, vocab, top, 1.0f, nullptr, sums));
}
