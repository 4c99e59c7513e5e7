// What happens between the matrix products of a layer: RMS norm, SwiGLU gate, rotary positions and attention, each in
// one pass over its numbers. Compiled for the machine it runs on; see kernels.py.
// Shapes: T tokens of a packed batch, H the model's size, I the size of the MLP, N heads of queries, K heads of keys and
// of values, D size of a head, P tokens of a prefix. A tensor is a pointer to its first number; rows follow one another.

#include "vectors.h"

#include <vector>

// (T, H) -> (T, H): each row divided by its root mean square.
template <class Number>
void rms_norm(const Number* from, Number* to, int64_t rows, int64_t size, float eps) {
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

// (T, 2 I) -> (T, I): SiLU of the first half (the gate) times the second half.
template <class Number>
void swiglu(const Number* gate_up, Number* to, int64_t rows, int64_t size) {
    for (int64_t row = 0; row < rows; row++, gate_up += 2 * size, to += size)
        for (int64_t at = 0; at < size; at += LANES)
            store(to + at, swiglu(load(gate_up + at), load(gate_up + size + at)));
}

// One head (D) rotated by its position's angles (D / 2 pairs of cosine and sine), times `scale`. A rotation takes pairs
// of numbers that lie side by side. The result holds the first numbers of all pairs, then the second ones: queries and
// keys in the same order have the same products.
template <class Number>
inline void rotate(const Number* from, const float* angles, float scale, int64_t size, float* to) {
    for (int64_t at = 0; at < size / 2; at += LANES) {
        Floats first, second, cosine, sine;
        load_pairs(from + 2 * at, first, second);
        load_pairs(angles + 2 * at, cosine, sine);
        store(to + at, (first * cosine - second * sine) * scale);
        store(to + size / 2 + at, (first * sine + second * cosine) * scale);
    }
}

struct Heads {
    int64_t queries, keys, size;  // N, K and D
    float scale;                  // of a query's products with keys
    int64_t row() const { return (queries + 2 * keys) * size; }  // of qkv
    int64_t group() const { return queries / keys; }             // heads of queries that share one head of keys
};

// Keys and values (K, P, D) of the text that all prompts continue. The keys are rotated already.
template <class Number>
struct Prefix {
    const Number *keys, *values;
    int64_t tokens;
};

// Memory for one head of keys and values and for a tile of its queries, in float32. Each thread has one and uses it
// again.
struct Scratch {
    int64_t size, width;  // D, and how many keys there is room for
    float* keys;          // (D, width): one key in each column
    float* values;        // (width, D)
    float* scores;        // (TILE_ROWS, width)
    float* queries;       // (TILE_ROWS, D)
    float* key;           // (D): the key that `put` takes

    Scratch(int64_t size, int64_t width) : size(size), width(width) {
        thread_local std::vector<float> memory;
        memory.resize(width * (2 * size + TILE_ROWS) + (TILE_ROWS + 1) * size);
        keys = memory.data();
        values = keys + width * size;
        scores = values + width * size;
        queries = scores + TILE_ROWS * width;
        key = queries + TILE_ROWS * size;
    }

    template <class Number>
    void put(int64_t column, const Number* value) const {
        for (int64_t at = 0; at < size; at++) keys[at * width + column] = key[at];
        for (int64_t at = 0; at < size; at += LANES) store(values + column * size + at, load(value + at));
    }
};

// Keys and values of one head (P, D) become the first columns.
template <class Number>
inline void put_prefix(const Scratch& scratch, const Number* keys, const Number* values, int64_t tokens) {
    const int64_t size = scratch.size;
    for (int64_t token = 0; token < tokens; token++, keys += size, values += size) {
        for (int64_t at = 0; at < size / 2; at += LANES) {
            Floats first, second;
            load_pairs(keys + 2 * at, first, second);
            store(scratch.key + at, first);
            store(scratch.key + size / 2 + at, second);
        }
        scratch.put(token, values);
    }
}

// Up to TILE_ROWS queries of one head, of tokens that follow one another. The first query attends to the first
// `num_keys` keys, each later one to one more.
template <class Number>
inline void attend_tile(const Scratch& scratch, Heads heads, const Number* queries, const float* angles, int64_t rows,
                        int64_t num_keys, Number* to) {
    const int64_t size = heads.size, width = scratch.width;
    const int64_t all_keys = num_keys + rows - 1, columns = round_up(all_keys, LANES);
    for (int64_t row = 0; row < rows; row++)
        rotate(queries + row * heads.row(), angles + row * size, heads.scale, size, scratch.queries + row * size);
    multiply(scratch.queries, size, scratch.keys, width, size, scratch.scores, width, columns);
    float sums[TILE_ROWS];
    for (int64_t row = 0; row < rows; row++)
        sums[row] = softmax_weights(scratch.scores + row * width, num_keys + row, columns).sum;
    // The queries are not needed any more; their memory takes the result.
    multiply(scratch.scores, width, scratch.values, size, all_keys, scratch.queries, size, size);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t at = 0; at < size; at += LANES)
            store(to + row * heads.queries * size + at, load(scratch.queries + row * size + at) * (1.0f / sums[row]));
}

// qkv (T, N + 2 K, D), angles (T, D / 2, 2), lengths (prompts) -> (T, N, D). Each prompt attends causally to the prefix
// and to itself.
template <class Number>
void attend(const Number* qkv, const float* angles, const int32_t* lengths, int64_t num_prompts, Prefix<Number> prefix,
            Heads heads, Number* to) {
    const int64_t size = heads.size, row = heads.row();
    const Scratch scratch(size, round_up(prefix.tokens + longest(lengths, num_prompts), LANES) + LANES);
    for (int64_t head = 0; head < heads.keys; head++) {
        const int64_t first_key = head * prefix.tokens * size;
        put_prefix(scratch, prefix.keys + first_key, prefix.values + first_key, prefix.tokens);
        int64_t start = 0;
        for (int64_t prompt = 0; prompt < num_prompts; start += lengths[prompt++]) {
            const int64_t length = lengths[prompt];
            for (int64_t token = 0; token < length; token++) {
                const Number* key = qkv + (start + token) * row + (heads.queries + head) * size;
                rotate(key, angles + (start + token) * size, 1.0f, size, scratch.key);
                scratch.put(prefix.tokens + token, key + heads.keys * size);
            }
            for (int64_t query = head * heads.group(); query < (head + 1) * heads.group(); query++)
                for (int64_t first = 0; first < length; first += TILE_ROWS) {
                    const int64_t token = start + first;
                    attend_tile(scratch, heads, qkv + token * row + query * size, angles + token * size,
                                length - first < TILE_ROWS ? length - first : TILE_ROWS, prefix.tokens + first + 1,
                                to + (token * heads.queries + query) * size);
                }
        }
    }
}

extern "C" int32_t lanes() { return LANES; }

#define FOR_NUMBER(Number, name)                                                                                       \
    extern "C" void rms_norm_##name(const Number* from, Number* to, int64_t rows, int64_t size, float eps) {           \
        rms_norm(from, to, rows, size, eps);                                                                           \
    }                                                                                                                  \
    extern "C" void swiglu_##name(const Number* gate_up, Number* to, int64_t rows, int64_t size) {                     \
        swiglu(gate_up, to, rows, size);                                                                               \
    }                                                                                                                  \
    extern "C" void attend_##name(const Number* qkv, const float* angles, const int32_t* lengths, int64_t num_prompts, \
                                  const Number* prefix_keys, const Number* prefix_values, int64_t prefix_tokens,       \
                                  int64_t queries, int64_t keys, int64_t size, float scale, Number* to) {              \
        attend<Number>(qkv, angles, lengths, num_prompts, {prefix_keys, prefix_values, prefix_tokens},                 \
                       {queries, keys, size, scale}, to);                                                              \
    }

FOR_NUMBER(float, fp32)
FOR_NUMBER(bf16, bf16)
