// Vectors of numbers as wide as the processor's, for kernels.cpp and the trainer's. Numbers are float32 or bf16 in
// memory and float32 in every calculation.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

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

// 0, 1, 2, ...
inline Ints lane_numbers() {
    Ints found;
    for (int lane = 0; lane < LANES; lane++) found[lane] = lane;
    return found;
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
    const Words bits = (Words)numbers, even = (bits >> 16) & 1;  // to the nearest, of two the even one
    const Words rounded = numbers == numbers ? (bits + 0x7fff + even) >> 16 : Words{} + 0x7fc0;
    const Halves halves = __builtin_convertvector(rounded, Halves);
    std::memcpy(to, &halves, sizeof halves);
#endif
}

// The first and the second numbers of as many pairs as there are lanes.
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

inline Floats gated(Floats gate, Floats up) { return gate * up * reciprocal(1.0f + exponential(-gate)); }

// One number of all lanes: each half of them put together with the other.
template <class Together>
inline float across(Floats numbers, Together together) {
    const Ints lanes = lane_numbers();
    for (int half = LANES / 2; half > 0; half /= 2)
        numbers = together(numbers, __builtin_shuffle(numbers, lanes ^ half));
    return numbers[0];
}

inline float sum(Floats numbers) {
    return across(numbers, [](Floats one, Floats other) { return one + other; });
}

inline Floats larger(Floats one, Floats other) { return one > other ? one : other; }

inline float largest(Floats numbers) { return across(numbers, larger); }

inline int64_t whole(int64_t number, int64_t of) { return (number + of - 1) / of * of; }

inline int64_t longest(const int32_t* lengths, int64_t num_texts) {
    int64_t found = 0;
    for (int64_t text = 0; text < num_texts; text++) found = lengths[text] > found ? lengths[text] : found;
    return found;
}

// Numbers of a matrix that may lie in any order: `row` from one row to the next, `step` within a row.
struct Left {
    const float* numbers;
    int64_t row, step;
};

// to (ROWS, COLUMNS * LANES) = left (ROWS, inner) times right (inner, COLUMNS * LANES).
template <int COLUMNS>
void multiply(Left left, const float* right, int64_t right_row, int64_t inner, float* to, int64_t to_row) {
    Floats sums[ROWS][COLUMNS] = {};
    for (int64_t at = 0; at < inner; at++) {
        Floats columns[COLUMNS];
#pragma GCC unroll 4
        for (int column = 0; column < COLUMNS; column++)
            columns[column] = load(right + at * right_row + column * LANES);
#pragma GCC unroll 6
        for (int row = 0; row < ROWS; row++)
#pragma GCC unroll 4
            for (int column = 0; column < COLUMNS; column++)
                sums[row][column] += left.numbers[row * left.row + at * left.step] * columns[column];
    }
    for (int row = 0; row < ROWS; row++)
        for (int column = 0; column < COLUMNS; column++) store(to + row * to_row + column * LANES, sums[row][column]);
}

// As above for any number of columns that fills whole vectors.
inline void multiply(Left left, const float* right, int64_t right_row, int64_t inner, float* to, int64_t to_row,
                     int64_t columns) {
    int64_t at = 0;
    for (; columns - at >= WIDE * LANES; at += WIDE * LANES)
        multiply<WIDE>(left, right + at, right_row, inner, to + at, to_row);
    switch ((columns - at) / LANES) {
        case 3: return multiply<3>(left, right + at, right_row, inner, to + at, to_row);
        case 2: return multiply<2>(left, right + at, right_row, inner, to + at, to_row);
        case 1: return multiply<1>(left, right + at, right_row, inner, to + at, to_row);
    }
}

struct Weighed {
    float largest, sum;
};

// The weights of a row's first `seen` keys, not yet divided by their sum; of the others zeros.
// `largest` is of the scores.
inline Weighed weigh(float* scores, int64_t seen, int64_t columns) {
    const Ints lanes = lane_numbers();
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
    return {top, sum(sums)};
}
