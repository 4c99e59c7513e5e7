// What happens between the matrix products of a layer that is being trained, and the gradients of it: RMS norm, SwiGLU
// gate, rotary positions and attention, each in one pass over float32 numbers. Compiled for the machine it runs on; see
// kernels.py.
// Shapes: T tokens of a packed pass, H the model's size, I the size of the MLP, N heads of queries, K heads of keys and
// of values, D size of a head, L tokens of one text. `grad_x` is the gradient of the loss with respect to x.

#include <cmath>
#include <vector>

#include "vectors.h"

extern "C" int32_t lanes() { return LANES; }

// (T, H) -> (T, H): each row divided by its root mean square, times the weights (H). `inverse_rms` (T) is kept for the
// backward pass.
extern "C" void rms_norm(const float* from, const float* weights, int64_t rows, int64_t size, float eps,
                         float* inverse_rms, float* to) {
    for (int64_t row = 0; row < rows; row++, from += size, to += size) {
        Floats squares = {};
        for (int64_t at = 0; at < size; at += LANES) squares += load(from + at) * load(from + at);
        inverse_rms[row] = 1.0f / sqrtf(sum(squares) / size + eps);
        for (int64_t at = 0; at < size; at += LANES)
            store(to + at, load(from + at) * inverse_rms[row] * load(weights + at));
    }
}

// Adds to `grad_from` (T, H) and to `grad_weights` (H); `grad_to` (T, H) is the gradient of the norm's result.
extern "C" void rms_norm_backward(const float* from, const float* weights, const float* inverse_rms,
                                  const float* grad_to, int64_t rows, int64_t size, float* grad_from,
                                  float* grad_weights) {
    for (int64_t row = 0; row < rows; row++, from += size, grad_to += size, grad_from += size) {
        const float scale = inverse_rms[row];
        Floats dots = {};
        for (int64_t at = 0; at < size; at += LANES) {
            const Floats product = load(from + at) * scale * load(grad_to + at);
            store(grad_weights + at, load(grad_weights + at) + product);
            dots += product * load(weights + at);
        }
        const float share = sum(dots) / size * scale;
        for (int64_t at = 0; at < size; at += LANES) {
            const Floats grad = load(grad_to + at) * load(weights + at) - load(from + at) * share;
            store(grad_from + at, load(grad_from + at) + grad * scale);
        }
    }
}

// (T, 2 I) -> (T, I): SiLU of the first half (the gate) times the second half.
extern "C" void swiglu(const float* gate_up, int64_t rows, int64_t size, float* to) {
    for (int64_t row = 0; row < rows; row++, gate_up += 2 * size, to += size)
        for (int64_t at = 0; at < size; at += LANES)
            store(to + at, swiglu(load(gate_up + at), load(gate_up + size + at)));
}

// Writes the gradient over `gate_up` (T, 2 I); `grad_to` (T, I) is the gradient of swiglu's result.
extern "C" void swiglu_backward(float* gate_up, const float* grad_to, int64_t rows, int64_t size) {
    for (int64_t row = 0; row < rows; row++, gate_up += 2 * size, grad_to += size)
        for (int64_t at = 0; at < size; at += LANES) {
            const Floats gate = load(gate_up + at), grad = load(grad_to + at);
            const Floats sigmoid = reciprocal(1.0f + exponential(-gate));
            store(gate_up + at, grad * load(gate_up + size + at) * sigmoid * (1.0f + gate * (1.0f - sigmoid)));
            store(gate_up + size + at, grad * gate * sigmoid);
        }
}

// One head (D) rotated by its position's angles: D / 2 cosines, then as many sines. A rotation takes number i of the
// first half with number i of the second half. `direction` is 1, or -1 to rotate back.
inline void rotate(const float* from, const float* angles, float direction, int64_t size, float* to) {
    for (int64_t at = 0; at < size / 2; at += LANES) {
        const Floats cosine = load(angles + at), sine = load(angles + size / 2 + at) * direction;
        const Floats first = load(from + at), second = load(from + size / 2 + at);
        store(to + at, first * cosine - second * sine);
        store(to + size / 2 + at, second * cosine + first * sine);
    }
}

struct Heads {
    int64_t queries, keys, size;  // N, K and D
    float scale;                  // of a query's products with keys
    int64_t row() const { return (queries + 2 * keys) * size; }  // of qkv
    // Some heads of queries share one head of keys and values.
    int64_t group() const { return queries / keys; }
    bool is_first_of_group(int64_t head) const { return head % group() == 0; }
    bool is_last_of_group(int64_t head) const { return (head + 1) % group() == 0; }
    // Where in a row of qkv are the keys and the values of a head of queries.
    int64_t key_offset(int64_t head) const { return (queries + head / group()) * size; }
    int64_t value_offset(int64_t head) const { return key_offset(head) + keys * size; }
};

// Rows (L, D) of one head, `row` numbers apart -> (D, width): each of them becomes a column; zeros after the last one.
inline void transpose(const float* from, int64_t row, int64_t length, int64_t size, int64_t width, float* to) {
    for (int64_t lane = 0; lane < size; lane++) {
        for (int64_t at = 0; at < length; at++) to[lane * width + at] = from[at * row + lane];
        for (int64_t at = length; at < width; at++) to[lane * width + at] = 0.0f;
    }
}

// Rows (L, D) of one head, `row` numbers apart -> (rows, D), times `scale`; zeros after the last one.
inline void gather(const float* from, int64_t row, int64_t length, int64_t size, float scale, int64_t rows, float* to) {
    for (int64_t at = 0; at < rows; at++)
        for (int64_t lane = 0; lane < size; lane += LANES)
            store(to + at * size + lane, at < length ? load(from + at * row + lane) * scale : Floats{});
}

// Rotates all queries and keys of qkv in place; returns T.
inline int64_t rotate_all(float* qkv, const float* angles, const int32_t* lengths, int64_t num_texts, Heads heads) {
    int64_t token = 0;
    for (int64_t text = 0; text < num_texts; text++)
        for (int64_t position = 0; position < lengths[text]; position++, token++)
            for (int64_t head = 0; head < heads.queries + heads.keys; head++) {
                float* numbers = qkv + token * heads.row() + head * heads.size;
                rotate(numbers, angles + position * heads.size, 1.0f, heads.size, numbers);
            }
    return token;
}

// Memory for one head of one text.
struct Scratch {
    int64_t width;   // columns: room for the longest text
    std::vector<float> memory;
    float* keys;     // (D, width)
    float* queries;  // (L, D), times the scale
    float* mixed;    // (TILE_ROWS, D)
    float* scores;   // (TILE_ROWS, width)

    Scratch(int64_t most, int64_t size)
        : width(round_up(most, LANES) + LANES),
          memory(width * size + (round_up(most, TILE_ROWS) + TILE_ROWS) * size + TILE_ROWS * width) {
        keys = memory.data();
        queries = keys + width * size;
        mixed = queries + round_up(most, TILE_ROWS) * size;
        scores = mixed + TILE_ROWS * size;
    }
};

// One head of one text: its rotated qkv -> `to`, and the log-sum-exp of each query's scores.
inline void attend_head(const Scratch& scratch, Heads heads, int64_t head, const float* qkv, int64_t length, float* to,
                        float* log_sum_exp) {
    const int64_t size = heads.size, row = heads.row(), width = scratch.width;
    if (heads.is_first_of_group(head)) transpose(qkv + heads.key_offset(head), row, length, size, width, scratch.keys);
    gather(qkv + head * size, row, length, size, heads.scale, round_up(length, TILE_ROWS), scratch.queries);
    for (int64_t first = 0; first < length; first += TILE_ROWS) {
        const int64_t rows = length - first < TILE_ROWS ? length - first : TILE_ROWS, num_keys = first + rows;
        const int64_t columns = round_up(num_keys, LANES);
        multiply({scratch.queries + first * size, size, 1}, scratch.keys, width, size, scratch.scores, width, columns);
        float sums[TILE_ROWS];
        for (int64_t at = 0; at < rows; at++) {
            const Softmax softmax = softmax_weights(scratch.scores + at * width, first + at + 1, columns);
            sums[at] = softmax.sum;
            log_sum_exp[first + at] = softmax.largest_score + logf(softmax.sum);
        }
        const float* values = qkv + heads.value_offset(head);
        multiply({scratch.scores, width, 1}, values, row, num_keys, scratch.mixed, size, size);
        for (int64_t at = 0; at < rows; at++)
            for (int64_t lane = 0; lane < size; lane += LANES)
                store(to + (first + at) * heads.queries * size + lane,
                      load(scratch.mixed + at * size + lane) * (1.0f / sums[at]));
    }
}

// qkv (T, N + 2 K, D), whose queries and keys are rotated in place; angles (positions, D) -> (T, N, D), and the
// log-sum-exp of each query's scores (N, T). Each text attends causally to itself.
extern "C" void attend(float* qkv, const float* angles, const int32_t* lengths, int64_t num_texts, int64_t num_queries,
                       int64_t num_keys, int64_t size, float scale, float* to, float* log_sum_exp) {
    const Heads heads = {num_queries, num_keys, size, scale};
    const int64_t tokens = rotate_all(qkv, angles, lengths, num_texts, heads);
    const Scratch scratch(longest(lengths, num_texts), size);
    for (int64_t text = 0, start = 0; text < num_texts; start += lengths[text++])
        for (int64_t head = 0; head < num_queries; head++)
            attend_head(scratch, heads, head, qkv + start * heads.row(), lengths[text],
                        to + (start * num_queries + head) * size, log_sum_exp + head * tokens + start);
}

// Memory for the gradients of one head of one text.
struct BackwardScratch {
    int64_t width, tall;  // room for the longest text as columns and as rows
    std::vector<float> memory;
    float* keys;         // (D, width)
    float* values;       // (D, width)
    float* weights;      // (tall, width): softmax weights
    float* grad_scores;  // (tall, width)
    float* queries;      // (tall, D), times the scale
    float* grad_to;      // (tall, D)
    float* grad_keys;    // (tall, D), summed over the heads of queries that share the keys
    float* grad_values;  // (tall, D), summed likewise
    float* tile;         // (TILE_ROWS, D)

    BackwardScratch(int64_t most, int64_t size)
        : width(round_up(most, LANES) + LANES),
          tall(round_up(most, TILE_ROWS)),
          memory(2 * width * size + 2 * tall * width + (4 * tall + TILE_ROWS) * size) {
        keys = memory.data();
        values = keys + width * size;
        weights = values + width * size;
        grad_scores = weights + tall * width;
        queries = grad_scores + tall * width;
        grad_to = queries + tall * size;
        grad_keys = grad_to + tall * size;
        grad_values = grad_keys + tall * size;
        tile = grad_values + tall * size;
    }
};

// What of one text the gradients of a head are made from and written to; the first row of each.
struct Text {
    const float *qkv, *angles;
    int64_t length;
    const float *to, *grad_to, *log_sum_exp;  // of this head
    float* grad_qkv;
};

// The softmax weights of a tile's queries, from their scores and log-sum-exps, and the gradients of the scores.
inline void backward_scores(const BackwardScratch& scratch, Heads heads, const Text& text, int64_t first, int64_t rows) {
    const int64_t size = heads.size, width = scratch.width, columns = round_up(first + rows, LANES);
    float* weights = scratch.weights + first * width;
    float* grad_scores = scratch.grad_scores + first * width;
    multiply({scratch.queries + first * size, size, 1}, scratch.keys, width, size, weights, width, columns);
    multiply({scratch.grad_to + first * size, size, 1}, scratch.values, width, size, grad_scores, width, columns);
    const Ints lanes = lane_numbers();
    for (int64_t at = 0; at < TILE_ROWS; at++) {
        const int64_t token = first + at;
        const bool is_token = at < rows;  // the rows after the last token get zeros
        Floats dots = {};
        if (is_token)
            for (int64_t lane = 0; lane < size; lane += LANES)
                dots += load(text.to + token * heads.queries * size + lane) *
                        load(scratch.grad_to + token * size + lane);
        const float dot = sum(dots), log_sum_exp = is_token ? text.log_sum_exp[token] : 0.0f;
        const int32_t last_key = is_token ? (int32_t)token : -1;
        for (int64_t column = 0; column < columns; column += LANES) {
            Floats weight = exponential(load(weights + at * width + column) - log_sum_exp);
            weight = lanes + (int32_t)column <= last_key ? weight : Floats{};
            store(weights + at * width + column, weight);
            store(grad_scores + at * width + column, weight * (load(grad_scores + at * width + column) - dot));
        }
    }
}

// The gradients of a tile's queries, from those of their scores.
inline void backward_queries(const BackwardScratch& scratch, Heads heads, int64_t head, const Text& text, int64_t first,
                             int64_t rows) {
    const int64_t size = heads.size, row = heads.row(), width = scratch.width;
    const float* keys = text.qkv + heads.key_offset(head);
    multiply({scratch.grad_scores + first * width, width, 1}, keys, row, first + rows, scratch.tile, size, size);
    for (int64_t at = 0; at < rows; at++) {
        float* grad_query = scratch.tile + at * size;
        for (int64_t lane = 0; lane < size; lane += LANES)
            store(grad_query + lane, load(grad_query + lane) * heads.scale);
        const int64_t token = first + at;
        rotate(grad_query, text.angles + token * size, -1.0f, size, text.grad_qkv + token * row + head * size);
    }
}

// Adds this head's share to the gradients of a tile's keys and values: from the first query that sees a key on.
inline void backward_keys_values(const BackwardScratch& scratch, int64_t size, int64_t length, int64_t first) {
    const int64_t width = scratch.width, after = first * width + first, num_queries = length - first;
    const auto add_product = [&](const float* left, const float* right, float* sums) {
        multiply({left + after, 1, width}, right + first * size, size, num_queries, scratch.tile, size, size);
        float* rows = sums + first * size;
        for (int64_t at = 0; at < TILE_ROWS * size; at += LANES)
            store(rows + at, load(rows + at) + load(scratch.tile + at));
    };
    add_product(scratch.weights, scratch.grad_to, scratch.grad_values);
    add_product(scratch.grad_scores, scratch.queries, scratch.grad_keys);
}

inline void attend_head_backward(const BackwardScratch& scratch, Heads heads, int64_t head, const Text& text) {
    const int64_t size = heads.size, row = heads.row(), length = text.length, width = scratch.width;
    const int64_t tall = round_up(length, TILE_ROWS), key = heads.key_offset(head), value = heads.value_offset(head);
    if (heads.is_first_of_group(head)) {
        transpose(text.qkv + key, row, length, size, width, scratch.keys);
        transpose(text.qkv + value, row, length, size, width, scratch.values);
        std::memset(scratch.grad_keys, 0, scratch.tall * size * sizeof(float));
        std::memset(scratch.grad_values, 0, scratch.tall * size * sizeof(float));
    }
    gather(text.qkv + head * size, row, length, size, heads.scale, tall, scratch.queries);
    gather(text.grad_to, heads.queries * size, length, size, 1.0f, tall, scratch.grad_to);
    for (int64_t first = 0; first < length; first += TILE_ROWS) {
        const int64_t rows = length - first < TILE_ROWS ? length - first : TILE_ROWS;
        backward_scores(scratch, heads, text, first, rows);
        backward_queries(scratch, heads, head, text, first, rows);
    }
    for (int64_t first = 0; first < length; first += TILE_ROWS) backward_keys_values(scratch, size, length, first);
    if (heads.is_last_of_group(head))
        for (int64_t at = 0; at < length; at++) {
            float* to = text.grad_qkv + at * row;
            rotate(scratch.grad_keys + at * size, text.angles + at * size, -1.0f, size, to + key);
            for (int64_t lane = 0; lane < size; lane += LANES)
                store(to + value + lane, load(scratch.grad_values + at * size + lane));
        }
}

// The gradient of qkv as it was before `attend` rotated it, (T, N + 2 K, D). `qkv` is rotated; `to` and `log_sum_exp`
// are what `attend` gave, `grad_to` (T, N, D) is the gradient of its result.
extern "C" void attend_backward(const float* qkv, const float* angles, const int32_t* lengths, int64_t num_texts,
                                int64_t num_queries, int64_t num_keys, int64_t size, float scale, const float* to,
                                const float* log_sum_exp, const float* grad_to, float* grad_qkv) {
    const Heads heads = {num_queries, num_keys, size, scale};
    const BackwardScratch scratch(longest(lengths, num_texts), size);
    int64_t tokens = 0;
    for (int64_t text = 0; text < num_texts; text++) tokens += lengths[text];
    for (int64_t text = 0, start = 0; text < num_texts; start += lengths[text++])
        for (int64_t head = 0; head < num_queries; head++) {
            const int64_t first = (start * num_queries + head) * size;
            attend_head_backward(scratch, heads, head,
                                 {qkv + start * heads.row(), angles, lengths[text], to + first, grad_to + first,
                                  log_sum_exp + head * tokens + start, grad_qkv + start * heads.row()});
        }
}
