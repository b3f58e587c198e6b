// LoRA for the rows of a batch, each with the adapter in its own slot; built and called by row_kernel.py.
//
// Weights are read once for all tokens of their slot, four tokens at a time, and nothing is written but the layer's
// output. With a token a row, as in a step of generation, that takes as long as reading the adapters does.

#include <cstdint>
#include <cstring>

#ifdef _OPENMP
#include <omp.h>
#endif

#ifndef LANES
#define LANES 4  // floats in a register
#endif

namespace {

constexpr int64_t MOST_RANK = 512;

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef uint32_t Words __attribute__((vector_size(LANES * 4)));
typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));

inline float number(float value) { return value; }
inline float number(uint16_t value) {
    const uint32_t word = static_cast<uint32_t>(value) << 16;
    float result;
    std::memcpy(&result, &word, sizeof result);
    return result;
}

inline Floats load(const float *from) {
    Floats result;
    std::memcpy(&result, from, sizeof result);
    return result;
}
inline Floats load(const uint16_t *from) {
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    return reinterpret_cast<Floats>(__builtin_convertvector(halves, Words) << 16);
}

inline void store(float *to, Floats value) { std::memcpy(to, &value, sizeof value); }
inline void store(uint16_t *to, Floats value) {
    // Rounded to even. What is not a number stays so: the bits that are cut off it are 0, for it came from bfloat16.
    const Words words = reinterpret_cast<Words>(value);
    const Halves halves = __builtin_convertvector((words + 0x7fff + ((words >> 16) & 1)) >> 16, Halves);
    std::memcpy(to, &halves, sizeof halves);
}
inline void store_one(float *to, float value) { *to = value; }
inline void store_one(uint16_t *to, float value) {
    uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    *to = static_cast<uint16_t>((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}

inline float sum(Floats value) {
    float result = 0;
    for (int lane = 0; lane < LANES; ++lane) result += value[lane];
    return result;
}

// inner[token][j] = the states of each token times row j of A [rank, inputs], for RANKS rows from `first` on.
template <int TOKENS, int RANKS, typename T>
inline void into(const T *const *states, const T *a, int64_t inputs, int64_t first, float (*inner)[MOST_RANK]) {
    Floats sums[TOKENS][RANKS] = {};
    int64_t k = 0;
    for (; k + LANES <= inputs; k += LANES) {
        Floats entered[TOKENS];
        for (int t = 0; t < TOKENS; ++t) entered[t] = load(states[t] + k);
        for (int j = 0; j < RANKS; ++j) {
            const Floats weights = load(a + (first + j) * inputs + k);
            for (int t = 0; t < TOKENS; ++t) sums[t][j] += entered[t] * weights;
        }
    }
    for (int t = 0; t < TOKENS; ++t)
        for (int j = 0; j < RANKS; ++j) {
            float total = sum(sums[t][j]);
            for (int64_t rest = k; rest < inputs; ++rest)
                total += number(states[t][rest]) * number(a[(first + j) * inputs + rest]);
            inner[t][first + j] = total;
        }
}

// output[token][o] += inner[token] times column o of B [rank, outputs], for WIDE * LANES columns from `o` on.
template <int TOKENS, int WIDE, typename T>
inline void out_of(const float (*inner)[MOST_RANK], const T *b, int64_t outputs, int64_t rank, int64_t o, T *const *output) {
    Floats sums[TOKENS][WIDE];
    for (int t = 0; t < TOKENS; ++t)
        for (int w = 0; w < WIDE; ++w) sums[t][w] = load(output[t] + o + w * LANES);
    for (int64_t j = 0; j < rank; ++j)
        for (int w = 0; w < WIDE; ++w) {
            const Floats weights = load(b + j * outputs + o + w * LANES);
            for (int t = 0; t < TOKENS; ++t) sums[t][w] += inner[t][j] * weights;
        }
    for (int t = 0; t < TOKENS; ++t)
        for (int w = 0; w < WIDE; ++w) store(output[t] + o + w * LANES, sums[t][w]);
}

template <int TOKENS, typename T>
void add(const T *const *states, T *const *output, const T *a, const T *b, int64_t inputs, int64_t outputs, int64_t rank) {
    constexpr int RANKS = TOKENS == 1 ? 8 : LANES == 16 ? 4 : 2;
    constexpr int WIDE = TOKENS == 1 ? 4 : 2;
    float inner[TOKENS][MOST_RANK];
    int64_t j = 0, o = 0;
    for (; j + RANKS <= rank; j += RANKS) into<TOKENS, RANKS>(states, a, inputs, j, inner);
    for (; j < rank; ++j) into<TOKENS, 1>(states, a, inputs, j, inner);
    for (; o + WIDE * LANES <= outputs; o += WIDE * LANES) out_of<TOKENS, WIDE>(inner, b, outputs, rank, o, output);
    for (; o + LANES <= outputs; o += LANES) out_of<TOKENS, 1>(inner, b, outputs, rank, o, output);
    for (; o < outputs; ++o)
        for (int t = 0; t < TOKENS; ++t) {
            float total = number(output[t][o]);
            for (j = 0; j < rank; ++j) total += inner[t][j] * number(b[j * outputs + o]);
            store_one(output[t] + o, total);
        }
}

struct Layer {
    int64_t inputs, outputs, rank, most_rank;  // of `most_rank` rows a slot, `rank` are in use
};

struct Batch {
    const int64_t *slots, *starts, *rows;  // group g is rows[starts[g]] to rows[starts[g + 1]], all with slots[g]
    int64_t groups, length, threads;       // length: tokens a row
};

struct Call {
    const void *first, *second;  // A and B of all slots
    Layer layer;
    Batch batch;
};

template <typename T>
void add_all(const T *states, T *output, const Call &call) {
    const Layer &layer = call.layer;
    const Batch &batch = call.batch;
    const T *a = static_cast<const T *>(call.first), *b = static_cast<const T *>(call.second);
    const int64_t inputs = layer.inputs, outputs = layer.outputs;
#pragma omp parallel num_threads(batch.threads) if (batch.threads > 1)
    {
#ifdef _OPENMP
        const int64_t mine = omp_get_thread_num(), threads = omp_get_num_threads();
#else
        const int64_t mine = 0, threads = 1;
#endif
        int64_t turn = 0;
        for (int64_t g = 0; g < batch.groups; ++g) {
            const T *first = a + batch.slots[g] * layer.most_rank * inputs;
            const T *second = b + batch.slots[g] * layer.most_rank * outputs;
            const int64_t *rows = batch.rows + batch.starts[g];
            const int64_t tokens = (batch.starts[g + 1] - batch.starts[g]) * batch.length;
            for (int64_t n = 0; n < tokens; ++turn) {
                const int count = tokens - n < 4 ? 1 : 4;
                if (turn % threads == mine) {
                    const T *entered[4];
                    T *added[4];
                    for (int t = 0; t < count; ++t) {
                        const int64_t place = rows[(n + t) / batch.length] * batch.length + (n + t) % batch.length;
                        entered[t] = states + place * inputs;
                        added[t] = output + place * outputs;
                    }
                    if (count == 4)
                        add<4>(entered, added, first, second, inputs, outputs, layer.rank);
                    else
                        add<1>(entered, added, first, second, inputs, outputs, layer.rank);
                }
                n += count;
            }
        }
    }
}

}  // namespace

extern "C" {

int64_t most_rank() { return MOST_RANK; }

void add_float32(const float *states, float *output, const Call *call) { add_all(states, output, *call); }

void add_bfloat16(const uint16_t *states, uint16_t *output, const Call *call) { add_all(states, output, *call); }
}
