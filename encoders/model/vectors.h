// SIMD vectors as wide as the processor's registers, and the matrix product and softmax made of them; for kernels.cpp.
// Numbers are float32 or bf16 in memory and float32 in every calculation.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

// A matrix product is computed in tiles of TILE_ROWS rows and TILE_VECTORS vectors of columns, whose sums stay in
// registers.
#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int LANES = 16, TILE_VECTORS = 4;  // 6 x 4 of 32 registers
#else
constexpr int LANES = 8, TILE_VECTORS = 2;  // 6 x 2 of 16 registers
#endif
constexpr int TILE_ROWS = 6;

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

struct bf16 {
    uint16_t bits;
};

template <class Vector>
inline Vector read(const void* from) {
    Vector vector;
    std::memcpy(&vector, from, sizeof vector);
    return vector;
}

inline Floats broadcast(float number) { return Floats{} + number; }

// 0, 1, 2, ...
inline Ints lane_numbers() {
    Ints lanes;
    for (int lane = 0; lane < LANES; lane++) lanes[lane] = lane;
    return lanes;
}

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
    const Words bits = (Words)numbers, odd = (bits >> 16) & 1;  // rounds to nearest, ties to even
    const Words rounded = numbers == numbers ? (bits + 0x7fff + odd) >> 16 : Words{} + 0x7fc0;
    const Halves halves = __builtin_convertvector(rounded, Halves);
    std::memcpy(to, &halves, sizeof halves);
#endif
}

// Reads LANES pairs of numbers; `first` gets the first number of each pair, `second` the second.
inline void load_pairs(const float* from, Floats& first, Floats& second) {
    const Floats low = load(from), high = load(from + LANES);
    const Ints evens = 2 * lane_numbers();
    first = __builtin_shuffle(low, high, evens);
    second = __builtin_shuffle(low, high, evens + 1);
}

inline void load_pairs(const bf16* from, Floats& first, Floats& second) {
    const Words both = read<Words>(from);
    first = (Floats)(both << 16);
    second = (Floats)(both & 0xffff0000u);
}

// e to the x, as two to the integer nearest to x / ln 2 times a polynomial of what remains.
inline Floats exponential(Floats x) {
    x = x < -87.0f ? broadcast(-87.0f) : x;
    x = x > 88.0f ? broadcast(88.0f) : x;
    const Floats shift = broadcast(12582912.0f);  // the last bits of a small number plus this are its nearest integer
    const Floats shifted = x * 1.44269504f + shift, power = shifted - shift;
    const Floats rest = x - power * 0.693359375f + power * 2.12194440e-4f;
    Floats result = broadcast(1.9875691500e-4f);
    result = result * rest + 1.3981999507e-3f;
    result = result * rest + 8.3334519073e-3f;
    result = result * rest + 4.1665795894e-2f;
    result = result * rest + 1.6666665459e-1f;
    result = result * rest + 5.0000001201e-1f;
    result = result * rest * rest + rest + 1.0f;
    return (Floats)((Ints)result + (((Ints)shifted - (Ints)shift) << 23));
}

inline Floats reciprocal(Floats x) {
#if defined(__AVX512F__)
    const Floats rough = (Floats)_mm512_rcp14_ps((__m512)x);
    return rough * (2.0f - x * rough);
#else
    return 1.0f / x;
#endif
}

// SiLU of the gate times `up`.
inline Floats swiglu(Floats gate, Floats up) { return gate * up * reciprocal(1.0f + exponential(-gate)); }

// Combines all lanes to one number: half of the lanes with the other half, and so on.
template <class Combine>
inline float reduce(Floats numbers, Combine combine) {
    const Ints lanes = lane_numbers();
    for (int half = LANES / 2; half > 0; half /= 2)
        numbers = combine(numbers, __builtin_shuffle(numbers, lanes ^ half));
    return numbers[0];
}

inline float sum(Floats numbers) {
    return reduce(numbers, [](Floats left, Floats right) { return left + right; });
}

inline Floats maximum(Floats left, Floats right) { return left > right ? left : right; }

inline float largest(Floats numbers) { return reduce(numbers, maximum); }

// The next multiple of `step`.
inline int64_t round_up(int64_t number, int64_t step) { return (number + step - 1) / step * step; }

inline int64_t longest(const int32_t* lengths, int64_t num_lengths) {
    int64_t result = 0;
    for (int64_t at = 0; at < num_lengths; at++) result = lengths[at] > result ? lengths[at] : result;
    return result;
}

// In the products below a `step` is how many numbers lie between the beginnings of two rows.

// One tile: to (TILE_ROWS, VECTORS * LANES) = left (TILE_ROWS, inner) times right (inner, VECTORS * LANES).
template <int VECTORS>
void multiply_tile(const float* left, int64_t left_step, const float* right, int64_t right_step, int64_t inner, float* to,
                   int64_t to_step) {
    Floats sums[TILE_ROWS][VECTORS] = {};
    for (int64_t at = 0; at < inner; at++) {
        Floats columns[VECTORS];
#pragma GCC unroll 4
        for (int vector = 0; vector < VECTORS; vector++)
            columns[vector] = load(right + at * right_step + vector * LANES);
#pragma GCC unroll 6
        for (int row = 0; row < TILE_ROWS; row++)
#pragma GCC unroll 4
            for (int vector = 0; vector < VECTORS; vector++)
                sums[row][vector] += left[row * left_step + at] * columns[vector];
    }
    for (int row = 0; row < TILE_ROWS; row++)
        for (int vector = 0; vector < VECTORS; vector++) store(to + row * to_step + vector * LANES, sums[row][vector]);
}

// to (TILE_ROWS, columns) = left (TILE_ROWS, inner) times right (inner, columns); `columns` is a multiple of LANES.
inline void multiply(const float* left, int64_t left_step, const float* right, int64_t right_step, int64_t inner,
                     float* to, int64_t to_step, int64_t columns) {
    int64_t at = 0;
    for (; columns - at >= TILE_VECTORS * LANES; at += TILE_VECTORS * LANES)
        multiply_tile<TILE_VECTORS>(left, left_step, right + at, right_step, inner, to + at, to_step);
    switch ((columns - at) / LANES) {
        case 3: return multiply_tile<3>(left, left_step, right + at, right_step, inner, to + at, to_step);
        case 2: return multiply_tile<2>(left, left_step, right + at, right_step, inner, to + at, to_step);
        case 1: return multiply_tile<1>(left, left_step, right + at, right_step, inner, to + at, to_step);
    }
}

struct Softmax {
    float largest_score, sum;
};

// Turns one query's scores into softmax weights that are not yet divided by their `sum`. The first `num_keys` columns
// are keys that the query sees; the columns after them become zeros.
inline Softmax softmax_weights(float* scores, int64_t num_keys, int64_t columns) {
    const Ints lanes = lane_numbers();
    const Floats unseen = broadcast(-std::numeric_limits<float>::infinity());
    Floats most = unseen;
    for (int64_t at = 0; at < num_keys; at += LANES)
        most = maximum(lanes + (int32_t)at < (int32_t)num_keys ? load(scores + at) : unseen, most);
    const float largest_score = largest(most);
    Floats sums = {};
    for (int64_t at = 0; at < columns; at += LANES) {
        Floats weights = {};
        if (at < num_keys) {
            weights = exponential(load(scores + at) - largest_score);
            weights = lanes + (int32_t)at < (int32_t)num_keys ? weights : Floats{};
        }
        sums += weights;
        store(scores + at, weights);
    }
    return {largest_score, sum(sums)};
}
