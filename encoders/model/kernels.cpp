// What happens between the matrix products of a layer, each in one pass over its numbers. Compiled for the machine it
// runs on; see kernels.py.
// Shapes: T tokens of a packed batch, H the model's size, I the size within, N heads, K heads of keys and values,
// D size of a head, P tokens of a prefix.

#include "vectors.h"

#include <vector>

// (T, H) -> (T, H): each row divided by its root mean square.
template <class Number>
void norm(const Number* from, Number* to, int64_t rows, int64_t size, float eps) {
    for (int64_t row = 0; row < rows; row++, from += size, to += size) {
        Floats squares = {};
        for (int64_t at = 0; at < size; at += LANES) {
            const Floats numbers = load(from + at);
            squares += numbers * numbers;
        }
        const float scale = 1.0f / __builtin_sqrtf(sum(squares) / size + eps);
        for (int64_t at = 0; at < size; at += LANES) store(to + at, load(from + at) * scale);
    }
}

// (T, 2 I) -> (T, I): SiLU of the first half times the second.
template <class Number>
void gate(const Number* from, Number* to, int64_t rows, int64_t size) {
    for (int64_t row = 0; row < rows; row++, from += 2 * size, to += size)
        for (int64_t at = 0; at < size; at += LANES) store(to + at, gated(load(from + at), load(from + size + at)));
}

// A head turned by its position's angles (D / 2 pairs of cosine and sine). The first numbers of all pairs come before
// the second ones; products of queries with keys do not mind.
template <class Number>
inline void turn(const Number* from, const float* angles, float scale, int64_t size, float* to) {
    for (int64_t at = 0; at < size / 2; at += LANES) {
        Floats first, second, cosine, sine;
        load_pairs(from + 2 * at, first, second);
        load_pairs(angles + 2 * at, cosine, sine);
        store(to + at, (first * cosine - second * sine) * scale);
        store(to + size / 2 + at, (first * sine + second * cosine) * scale);
    }
}

struct Heads {
    int64_t queries, keys, size;
    float scale;
};

// qkv (T, N + 2 K, D), angles (T, D / 2, 2), prefix keys and values (K, P, D) -> (T, N, D). Causal attention of each
// text over the prefix and itself.
template <class Number>
void attend(const Number* qkv, const float* angles, const int32_t* lengths, int64_t num_texts,
            const Number* prefix_keys, const Number* prefix_values, int64_t prefix, Heads heads, Number* to) {
    const int64_t size = heads.size, row = (heads.queries + 2 * heads.keys) * size, group = heads.queries / heads.keys;
    const int64_t width = whole(prefix + longest(lengths, num_texts), LANES) + LANES;
    thread_local std::vector<float> memory;
    memory.resize(width * (2 * size + ROWS) + (ROWS + 1) * size);
    float* keys = memory.data();             // (D, width): one key in each column
    float* values = keys + width * size;     // (width, D)
    float* scores = values + width * size;   // (ROWS, width)
    float* queries = scores + ROWS * width;  // (ROWS, D)
    float* key = queries + ROWS * size;
    for (int64_t head = 0; head < heads.keys; head++) {
        const auto put = [&](int64_t column) {
            for (int64_t at = 0; at < size; at++) keys[at * width + column] = key[at];
        };
        for (int64_t at = 0; at < prefix; at++) {
            const int64_t from = (head * prefix + at) * size;
            for (int64_t pair = 0; pair < size / 2; pair += LANES) {
                Floats first, second;
                load_pairs(prefix_keys + from + 2 * pair, first, second);
                store(key + pair, first);
                store(key + size / 2 + pair, second);
            }
            put(at);
            for (int64_t lane = 0; lane < size; lane += LANES)
                store(values + at * size + lane, load(prefix_values + from + lane));
        }
        int64_t start = 0;
        for (int64_t text = 0; text < num_texts; start += lengths[text++]) {
            const int64_t length = lengths[text];
            for (int64_t at = 0; at < length; at++) {
                const Number* from = qkv + (start + at) * row + (heads.queries + head) * size;
                turn(from, angles + (start + at) * size, 1.0f, size, key);
                put(prefix + at);
                for (int64_t lane = 0; lane < size; lane += LANES)
                    store(values + (prefix + at) * size + lane, load(from + heads.keys * size + lane));
            }
            for (int64_t query = head * group; query < (head + 1) * group; query++)
                for (int64_t first = 0; first < length; first += ROWS) {
                    const int64_t rows = length - first < ROWS ? length - first : ROWS;
                    const int64_t seen = prefix + first + rows, columns = whole(seen, LANES);
                    for (int64_t at = 0; at < rows; at++) {
                        const int64_t token = start + first + at;
                        turn(qkv + token * row + query * size, angles + token * size, heads.scale, size,
                             queries + at * size);
                    }
                    multiply({queries, size, 1}, keys, width, size, scores, width, columns);
                    float sums[ROWS];
                    for (int64_t at = 0; at < rows; at++)
                        sums[at] = weigh(scores + at * width, prefix + first + at + 1, columns).sum;
                    // The queries are used up; their memory holds the result.
                    multiply({scores, width, 1}, values, size, seen, queries, size, size);
                    for (int64_t at = 0; at < rows; at++) {
                        Number* out = to + ((start + first + at) * heads.queries + query) * size;
                        for (int64_t lane = 0; lane < size; lane += LANES)
                            store(out + lane, load(queries + at * size + lane) * (1.0f / sums[at]));
                    }
                }
        }
    }
}

extern "C" int32_t lanes() { return LANES; }

#define FOR_NUMBER(Number, name)                                                                                       \
    extern "C" void norm_##name(const Number* from, Number* to, int64_t rows, int64_t size, float eps) {               \
        norm(from, to, rows, size, eps);                                                                               \
    }                                                                                                                  \
    extern "C" void gate_##name(const Number* from, Number* to, int64_t rows, int64_t size) {                          \
        gate(from, to, rows, size);                                                                                    \
    }                                                                                                                  \
    extern "C" void attend_##name(const Number* qkv, const float* angles, const int32_t* lengths, int64_t num_texts,   \
                                  const Number* prefix_keys, const Number* prefix_values, int64_t prefix,              \
                                  int64_t queries, int64_t keys, int64_t size, float scale, Number* to) {              \
        attend(qkv, angles, lengths, num_texts, prefix_keys, prefix_values, prefix, {queries, keys, size, scale}, to); \
    }

FOR_NUMBER(float, fp32)
FOR_NUMBER(bf16, bf16)
