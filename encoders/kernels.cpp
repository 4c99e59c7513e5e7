// What happens between the matrix products of a layer, each in one pass over its numbers. Compiled for the machine it
// runs on; see kernels.py. Numbers are float32 or bf16 in memory and float32 in every calculation.
// Shapes: T tokens of a packed batch, H the model's size, I the size within, N heads, K heads of keys and values,
// D size of a head, P tokens of a prefix.

#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int LANES = 16, WIDE = 4;  // of a tile's sums: 6 x 4 of 32 registers
#else
constexpr int LANES = 8, WIDE = 2;  // 6 x 2 of 16 registers
#endif
constexpr int ROWS = 6;

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

struct bf16 {
    uint16_t bits;
};

template <class Vector>
inline Vector read(const void* from) {
    Vector found;
    std::memcpy(&found, from, sizeof found);
    return found;
}

inline Floats all(float number) { return Floats{} + number; }

inline Floats load(const float* from) { return read<Floats>(from); }

inline Floats load(const bf16* from) {
    return (Floats)(__builtin_convertvector(read<Halves>(from), Words) << 16);
}

inline void store(float* to, Floats numbers) { std::memcpy(to, &numbers, sizeof numbers); }

inline void store(bf16* to, Floats numbers) {
#if defined(__AVX512BF16__)
    const __m256bh rounded = _mm512_cvtneps_pbh((__m512)numbers);
    std::memcpy(to, &rounded, sizeof rounded);
#else
    const Words bits = (Words)numbers, even = (bits >> 16) & 1;  // to the nearest, of two the even one
    const Words rounded = numbers == numbers ? (bits + 0x7fff + even) >> 16 : Words{} + 0x7fc0;
    const Halves halves = __builtin_convertvector(rounded, Halves);
    std::memcpy(to, &halves, sizeof halves);
#endif
}

// The first and the second numbers of as many pairs as there are lanes.
inline void load_pairs(const float* from, Floats& first, Floats& second) {
    const Floats low = load(from), high = load(from + LANES);
    Ints evens;
    for (int lane = 0; lane < LANES; lane++) evens[lane] = 2 * lane;
    first = __builtin_shuffle(low, high, evens);
    second = __builtin_shuffle(low, high, evens + 1);
}

inline void load_pairs(const bf16* from, Floats& first, Floats& second) {
    const Words both = read<Words>(from);
    first = (Floats)(both << 16);
    second = (Floats)(both & 0xffff0000u);
}

inline Floats exponential(Floats x) {
    x = x < -87.0f ? all(-87.0f) : x;
    x = x > 88.0f ? all(88.0f) : x;
    const Floats shift = all(12582912.0f);  // added to a small number, its last bits are the nearest integer
    const Floats shifted = x * 1.44269504f + shift, whole = shifted - shift;
    const Floats rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    Floats found = all(1.9875691500e-4f);
    found = found * rest + 1.3981999507e-3f;
    found = found * rest + 8.3334519073e-3f;
    found = found * rest + 4.1665795894e-2f;
    found = found * rest + 1.6666665459e-1f;
    found = found * rest + 5.0000001201e-1f;
    found = found * rest * rest + rest + 1.0f;
    return (Floats)((Ints)found + (((Ints)shifted - (Ints)shift) << 23));
}

inline Floats reciprocal(Floats x) {
#if defined(__AVX512F__)
    const Floats rough = (Floats)_mm512_rcp14_ps((__m512)x);
    return rough * (2.0f - x * rough);
#else
    return 1.0f / x;
#endif
}

// One number of all lanes: each half of them put together with the other.
template <class Together>
inline float across(Floats numbers, Together together) {
    Ints lanes;
    for (int lane = 0; lane < LANES; lane++) lanes[lane] = lane;
    for (int half = LANES / 2; half > 0; half /= 2)
        numbers = together(numbers, __builtin_shuffle(numbers, lanes ^ half));
    return numbers[0];
}

inline float sum(Floats numbers) {
    return across(numbers, [](Floats one, Floats other) { return one + other; });
}

inline Floats larger(Floats one, Floats other) { return one > other ? one : other; }

inline float largest(Floats numbers) { return across(numbers, larger); }

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
        for (int64_t at = 0; at < size; at += LANES) {
            const Floats gates = load(from + at);
            store(to + at, gates * load(from + size + at) * reciprocal(1.0f + exponential(-gates)));
        }
}

// sums (ROWS, COLUMNS * LANES) = left (ROWS, inner) times right (inner, COLUMNS * LANES), all by rows.
template <int COLUMNS>
inline void tile(const float* left, int64_t left_row, const float* right, int64_t right_row, int64_t inner,
                 Floats (&sums)[ROWS][COLUMNS]) {
    for (auto& row : sums)
        for (auto& one : row) one = Floats{};
    for (int64_t at = 0; at < inner; at++) {
        Floats columns[COLUMNS];
#pragma GCC unroll 4
        for (int column = 0; column < COLUMNS; column++) columns[column] = load(right + at * right_row + column * LANES);
#pragma GCC unroll 6
        for (int row = 0; row < ROWS; row++)
#pragma GCC unroll 4
            for (int column = 0; column < COLUMNS; column++)
                sums[row][column] += left[row * left_row + at] * columns[column];
    }
}

template <int COLUMNS>
void multiply(const float* left, int64_t left_row, const float* right, int64_t right_row, int64_t inner, float* to,
              int64_t to_row) {
    Floats sums[ROWS][COLUMNS];
    tile(left, left_row, right, right_row, inner, sums);
    for (int row = 0; row < ROWS; row++)
        for (int column = 0; column < COLUMNS; column++) store(to + row * to_row + column * LANES, sums[row][column]);
}

// As above for any number of columns that fills whole vectors.
inline void multiply(const float* left, int64_t left_row, const float* right, int64_t right_row, int64_t inner,
                     float* to, int64_t to_row, int64_t columns) {
    int64_t at = 0;
    for (; columns - at >= WIDE * LANES; at += WIDE * LANES)
        multiply<WIDE>(left, left_row, right + at, right_row, inner, to + at, to_row);
    switch ((columns - at) / LANES) {
        case 3: return multiply<3>(left, left_row, right + at, right_row, inner, to + at, to_row);
        case 2: return multiply<2>(left, left_row, right + at, right_row, inner, to + at, to_row);
        case 1: return multiply<1>(left, left_row, right + at, right_row, inner, to + at, to_row);
    }
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

// The weights of a row's first `seen` keys, not yet divided by their sum, which is returned; of the others zeros.
inline float weigh(float* scores, int64_t seen, int64_t columns) {
    Ints lanes;
    for (int lane = 0; lane < LANES; lane++) lanes[lane] = lane;
    const Floats nothing = all(-std::numeric_limits<float>::infinity());
    Floats most = nothing;
    for (int64_t at = 0; at < seen; at += LANES)
        most = larger(lanes + (int32_t)at < (int32_t)seen ? load(scores + at) : nothing, most);
    const float top = largest(most);
    Floats sums = {};
    for (int64_t at = 0; at < columns; at += LANES) {
        Floats weights = {};
        if (at < seen) {
            weights = exponential(load(scores + at) - top);
            weights = lanes + (int32_t)at < (int32_t)seen ? weights : Floats{};
        }
        sums += weights;
        store(scores + at, weights);
    }
    return sum(sums);
}

inline int64_t whole(int64_t number, int64_t of) { return (number + of - 1) / of * of; }

struct Heads {
    int64_t queries, keys, size;
    float scale;
};

// qkv (T, N + 2 K, D), angles (T, D / 2, 2), prefix keys and values (K, P, D) -> (T, N, D). Causal attention of each
// text over the prefix and itself.
template <class Number>
void attend(const Number* qkv, const float* angles, const int32_t* lengths, int64_t num_texts, const Number* prefix_keys,
            const Number* prefix_values, int64_t prefix, Heads heads, Number* to) {
    const int64_t size = heads.size, row = (heads.queries + 2 * heads.keys) * size, group = heads.queries / heads.keys;
    int64_t longest = 0;
    for (int64_t text = 0; text < num_texts; text++) longest = lengths[text] > longest ? lengths[text] : longest;
    const int64_t width = whole(prefix + longest, LANES) + LANES;
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
                    multiply(queries, size, keys, width, size, scores, width, columns);
                    float sums[ROWS];
                    for (int64_t at = 0; at < rows; at++)
                        sums[at] = weigh(scores + at * width, prefix + first + at + 1, columns);
                    // The queries are used up; their memory holds the result.
                    multiply(scores, width, values, size, seen, queries, size, size);
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
