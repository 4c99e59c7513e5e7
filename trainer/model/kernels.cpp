// What happens between the matrix products of a layer that learns, and its gradients, each in one pass over float32
// numbers. Compiled for the machine it runs on; see kernels.py.
// Shapes: T tokens of a packed pass, H the model's size, I the size within, N heads, K heads of keys and values, D size
// of a head.

#include <cmath>
#include <vector>

#include "vectors.h"

extern "C" int32_t lanes() { return LANES; }

// (T, H) -> (T, H): each row divided by its root mean square, times the weights (H). `scales` (T) is kept for later.
extern "C" void norm(const float* from, const float* weights, int64_t rows, int64_t size, float eps, float* scales,
                     float* to) {
    for (int64_t row = 0; row < rows; row++, from += size, to += size) {
        Floats squares = {};
        for (int64_t at = 0; at < size; at += LANES) squares += load(from + at) * load(from + at);
        scales[row] = 1.0f / sqrtf(sum(squares) / size + eps);
        for (int64_t at = 0; at < size; at += LANES) store(to + at, load(from + at) * scales[row] * load(weights + at));
    }
}

// Adds to the gradients of what went into a norm (T, H) and of its weights (H), given that of what came out (T, H).
extern "C" void norm_gradient(const float* from, const float* weights, const float* scales, const float* out_gradient,
                              int64_t rows, int64_t size, float* gradient, float* weights_gradient) {
    for (int64_t row = 0; row < rows; row++, from += size, out_gradient += size, gradient += size) {
        const float scale = scales[row];
        Floats dots = {};
        for (int64_t at = 0; at < size; at += LANES) {
            const Floats normed = load(from + at) * scale * load(out_gradient + at);
            store(weights_gradient + at, load(weights_gradient + at) + normed);
            dots += normed * load(weights + at);
        }
        const float share = sum(dots) / size * scale;
        for (int64_t at = 0; at < size; at += LANES) {
            const Floats one = load(out_gradient + at) * load(weights + at) - load(from + at) * share;
            store(gradient + at, load(gradient + at) + one * scale);
        }
    }
}

// (T, 2 I) -> (T, I): SiLU of the first half times the second.
extern "C" void gate(const float* from, int64_t rows, int64_t size, float* to) {
    for (int64_t row = 0; row < rows; row++, from += 2 * size, to += size)
        for (int64_t at = 0; at < size; at += LANES) store(to + at, gated(load(from + at), load(from + size + at)));
}

// (T, 2 I) becomes its own gradient, given that of what came out (T, I).
extern "C" void gate_gradient(float* numbers, const float* out_gradient, int64_t rows, int64_t size) {
    for (int64_t row = 0; row < rows; row++, numbers += 2 * size, out_gradient += size)
        for (int64_t at = 0; at < size; at += LANES) {
            const Floats gates = load(numbers + at), given = load(out_gradient + at);
            const Floats open = reciprocal(1.0f + exponential(-gates));
            store(numbers + at, given * load(numbers + size + at) * open * (1.0f + gates * (1.0f - open)));
            store(numbers + size + at, given * gates * open);
        }
}

// A head turned by its position's angles: D / 2 cosines, then as many sines. `way` -1 turns it back.
inline void turn(const float* from, const float* angles, float way, int64_t size, float* to) {
    for (int64_t at = 0; at < size / 2; at += LANES) {
        const Floats cosine = load(angles + at), sine = load(angles + size / 2 + at) * way;
        const Floats first = load(from + at), second = load(from + size / 2 + at);
        store(to + at, first * cosine - second * sine);
        store(to + size / 2 + at, second * cosine + first * sine);
    }
}

struct Shape {
    int64_t queries, keys, size;
    float scale;
    int64_t row() const { return (queries + 2 * keys) * size; }
    int64_t group() const { return queries / keys; }
};

// Rows of heads that lie `row` apart -> one head in each column, `width` apart; zeros after the last.
inline void transpose(const float* from, int64_t row, int64_t length, int64_t size, int64_t width, float* to) {
    for (int64_t lane = 0; lane < size; lane++) {
        for (int64_t at = 0; at < length; at++) to[lane * width + at] = from[at * row + lane];
        for (int64_t at = length; at < width; at++) to[lane * width + at] = 0.0f;
    }
}

// Rows of heads that lie `row` apart -> rows side by side, times `scale`; zeros up to `rows`.
inline void gather(const float* from, int64_t row, int64_t length, int64_t size, float scale, int64_t rows, float* to) {
    for (int64_t at = 0; at < rows; at++)
        for (int64_t lane = 0; lane < size; lane += LANES)
            store(to + at * size + lane, at < length ? load(from + at * row + lane) * scale : Floats{});
}

// qkv (T, N + 2 K, D), its queries and keys turned where they lie; angles (positions, D) -> (T, N, D), and of each row
// the logarithm of its weights' sum, (N, T). Causal attention of each text to itself.
extern "C" void attend(float* qkv, const float* angles, const int32_t* lengths, int64_t num_texts, int64_t num_queries,
                       int64_t num_keys, int64_t size, float scale, float* to, float* logs) {
    const Shape shape = {num_queries, num_keys, size, scale};
    const int64_t row = shape.row(), most = longest(lengths, num_texts), width = whole(most, LANES) + LANES;
    int64_t rows = 0;
    for (int64_t text = 0; text < num_texts; text++)
        for (int64_t at = 0; at < lengths[text]; at++, rows++)
            for (int64_t head = 0; head < num_queries + num_keys; head++) {
                float* one = qkv + rows * row + head * size;
                turn(one, angles + at * size, 1.0f, size, one);
            }
    std::vector<float> memory(width * size + (whole(most, ROWS) + ROWS) * size + ROWS * width);
    float* keys = memory.data();                               // (D, width)
    float* queries = keys + width * size;                      // (rows, D)
    float* mixed = queries + whole(most, ROWS) * size;         // (ROWS, D)
    float* scores = mixed + ROWS * size;                       // (ROWS, width)
    for (int64_t text = 0, start = 0; text < num_texts; start += lengths[text++]) {
        const int64_t length = lengths[text];
        for (int64_t head = 0; head < num_queries; head++) {
            const float* from = qkv + start * row;
            const float* key = from + (num_queries + head / shape.group()) * size;
            if (head % shape.group() == 0) transpose(key, row, length, size, width, keys);
            gather(from + head * size, row, length, size, scale, whole(length, ROWS), queries);
            for (int64_t first = 0; first < length; first += ROWS) {
                const int64_t here = length - first < ROWS ? length - first : ROWS, seen = first + here;
                multiply({queries + first * size, size, 1}, keys, width, size, scores, width, whole(seen, LANES));
                float sums[ROWS];
                for (int64_t at = 0; at < here; at++) {
                    const Weighed weighed = weigh(scores + at * width, first + at + 1, whole(seen, LANES));
                    sums[at] = weighed.sum;
                    logs[head * rows + start + first + at] = weighed.largest + logf(weighed.sum);
                }
                multiply({scores, width, 1}, key + num_keys * size, row, seen, mixed, size, size);
                for (int64_t at = 0; at < here; at++)
                    for (int64_t lane = 0; lane < size; lane += LANES)
                        store(to + ((start + first + at) * num_queries + head) * size + lane,
                              load(mixed + at * size + lane) * (1.0f / sums[at]));
            }
        }
    }
}

// The gradient of qkv as it was before `attend` turned it, (T, N + 2 K, D), given that of what came out.
extern "C" void attend_gradient(const float* qkv, const float* angles, const int32_t* lengths, int64_t num_texts,
                                int64_t num_queries, int64_t num_keys, int64_t size, float scale, const float* out,
                                const float* logs, const float* out_gradient, float* gradient) {
    const Shape shape = {num_queries, num_keys, size, scale};
    const int64_t row = shape.row(), most = longest(lengths, num_texts), width = whole(most, LANES) + LANES;
    const int64_t tall = whole(most, ROWS);
    int64_t rows = 0;
    for (int64_t text = 0; text < num_texts; text++) rows += lengths[text];
    std::vector<float> memory(2 * width * size + 2 * tall * width + (4 * tall + ROWS) * size);
    float* keys = memory.data();                       // (D, width)
    float* values = keys + width * size;               // (D, width)
    float* weights = values + width * size;            // (tall, width)
    float* slopes = weights + tall * width;            // (tall, width): gradients of the scores
    float* queries = slopes + tall * width;            // (tall, D)
    float* given = queries + tall * size;              // (tall, D)
    float* keys_gradient = given + tall * size;        // (tall, D)
    float* values_gradient = keys_gradient + tall * size;
    float* tile = values_gradient + tall * size;       // (ROWS, D)
    const Ints lanes = lane_numbers();
    const auto add = [&](int64_t first, float* to) {
        float* rows_to = to + first * size;
        for (int64_t at = 0; at < ROWS * size; at += LANES) store(rows_to + at, load(rows_to + at) + load(tile + at));
    };
    for (int64_t text = 0, start = 0; text < num_texts; start += lengths[text++]) {
        const int64_t length = lengths[text], high = whole(length, ROWS);
        const float* from = qkv + start * row;
        float* to = gradient + start * row;
        for (int64_t head = 0; head < num_queries; head++) {
            const int64_t side = (num_queries + head / shape.group()) * size, other = side + num_keys * size;
            if (head % shape.group() == 0) {
                transpose(from + side, row, length, size, width, keys);
                transpose(from + other, row, length, size, width, values);
                std::memset(keys_gradient, 0, 2 * tall * size * sizeof(float));
            }
            const float* head_out = out + (start * num_queries + head) * size;
            const float* head_given = out_gradient + (start * num_queries + head) * size;
            gather(from + head * size, row, length, size, scale, high, queries);
            gather(head_given, num_queries * size, length, size, 1.0f, high, given);
            for (int64_t first = 0; first < length; first += ROWS) {
                const int64_t here = length - first < ROWS ? length - first : ROWS;
                const int64_t columns = whole(first + here, LANES);
                float* seen = weights + first * width;
                float* slope = slopes + first * width;
                multiply({queries + first * size, size, 1}, keys, width, size, seen, width, columns);
                multiply({given + first * size, size, 1}, values, width, size, slope, width, columns);
                for (int64_t at = 0; at < ROWS; at++) {
                    const int64_t token = first + at;
                    Floats dots = {};
                    const float log = at < here ? logs[head * rows + start + token] : 0.0f;
                    const float* came_out = head_out + token * num_queries * size;
                    if (at < here)
                        for (int64_t lane = 0; lane < size; lane += LANES)
                            dots += load(came_out + lane) * load(given + token * size + lane);
                    const float dot = sum(dots);
                    const int32_t last = at < here ? (int32_t)token : -1;
                    for (int64_t column = 0; column < columns; column += LANES) {
                        Floats weight = exponential(load(seen + at * width + column) - log);
                        weight = lanes + (int32_t)column <= last ? weight : Floats{};
                        store(seen + at * width + column, weight);
                        store(slope + at * width + column, weight * (load(slope + at * width + column) - dot));
                    }
                }
                multiply({slope, width, 1}, from + side, row, first + here, tile, size, size);
                for (int64_t at = 0; at < here; at++) {
                    float* one = tile + at * size;
                    for (int64_t lane = 0; lane < size; lane += LANES) store(one + lane, load(one + lane) * scale);
                    turn(one, angles + (first + at) * size, -1.0f, size, to + (first + at) * row + head * size);
                }
            }
            // Of each key, from the first query that sees it.
            for (int64_t first = 0; first < length; first += ROWS) {
                const int64_t after = first * width + first;
                multiply({weights + after, 1, width}, given + first * size, size, length - first, tile, size, size);
                add(first, values_gradient);
                multiply({slopes + after, 1, width}, queries + first * size, size, length - first, tile, size, size);
                add(first, keys_gradient);
            }
            if ((head + 1) % shape.group() == 0)
                for (int64_t at = 0; at < length; at++) {
                    turn(keys_gradient + at * size, angles + at * size, -1.0f, size, to + at * row + side);
                    for (int64_t lane = 0; lane < size; lane += LANES)
                        store(to + at * row + other + lane, load(values_gradient + at * size + lane));
                }
        }
    }
}
