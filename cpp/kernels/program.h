// Programs, which formulas become: an operation after the other, for a chunk of elements each.
#pragma once

#include "engine/program.h"
#include "kernels/sums.h"

namespace instep::INSTEP_LEVEL {

/// Elements that go through a program together: what there is of their streams and temporaries fits
/// the first-level cache.
template <class T>
inline constexpr std::size_t chunk_elements = 1024 / sizeof(T);
/// Chunks are made of so many, the last one's rest by padding.
inline constexpr std::size_t grain = sum_lanes;

/// What `Coefficients` hold of a program.
template <class T>
struct PreparedProgram {
    const Program* program;
    Surroundings<T> around;
    Moment moment;
    double own[max_hyperparameters];
    T constants[max_constants];
};

// Numbers of a step

/// x**y of elementary operations alone, for any x and y.
inline double power(double x, double y) {
    constexpr double many = 0x1p62, infinite = __builtin_huge_val();
    if (!(-many < y && y < many)) {  // even, as numbers of that size are
        const double size = x < 0 ? -x : x;
        if (!(size >= 0) || y != y) return x + y;
        return size == 1 ? 1 : (size > 1) == (y > 0) ? infinite : 0;
    }
    if (y == __builtin_floor(y)) {
        const bool is_inverse = y < 0;
        double result = 1;
        auto n = static_cast<std::uint64_t>(is_inverse ? -y : y);
        for (double square = x; n > 0; n >>= 1, square *= square)
            if (n & 1) result *= square;
        return is_inverse ? 1 / result : result;
    }
    if (x == 0 || x == infinite) return (x == 0) == (y < 0) ? infinite : 0;
    if (!(x > 0)) return __builtin_nan("");
    return x < 1 ? portable_power(1 / x, -y) : portable_power(x, y);
}

inline double result_of(NumberOperation operation, double a, double b, double c) {
    switch (operation) {
        case NumberOperation::add:
            return a + b;
        case NumberOperation::subtract:
            return a - b;
        case NumberOperation::multiply:
            return a * b;
        case NumberOperation::divide:
            return a / b;
        case NumberOperation::maximum:
            return a < b ? b : a;
        case NumberOperation::minimum:
            return b < a ? b : a;
        case NumberOperation::less:
            return a < b;
        case NumberOperation::less_equal:
            return a <= b;
        case NumberOperation::equal:
            return a == b;
        case NumberOperation::root:
            return sqrt(a);
        case NumberOperation::absolute:
            return a < 0 ? -a : a;
        case NumberOperation::sign:
            return a > 0 ? 1 : a < 0 ? -1 : a;
        case NumberOperation::where:
            return a > 0 ? b : c;
        case NumberOperation::power:
            return power(a, b);
        case NumberOperation::complement_of_power: {
            // Of the rates and counts that there are to averages; else as it stands there.
            const bool is_usual = 0 <= a && a <= 1 && 0 <= b && b <= 0x1p62;
            if (is_usual && b == __builtin_floor(b))
                return complement_of_power(a, static_cast<std::int64_t>(b));
            return 1 - power(a, b);
        }
    }
    return 0;
}

/// All numbers of a step, from what it is told. Where there are sums, those that hang on them are
/// right once these are known.
inline void find_numbers(const Program& program, const Moment& moment, const double* own,
                         const double* scalars, const Sums& sums, double* numbers) {
    numbers[rate_number] = moment.learning_rate;
    numbers[step_number] = static_cast<double>(moment.step);
    numbers[elements_number] = sums.elements;
    numbers[all_elements_number] = sums.all_elements;
    for (int k = 0; k < max_hyperparameters; ++k) numbers[first_hyperparameter_number + k] = own[k];
    for (int k = 0; k < program.scalar_count; ++k) numbers[first_scalar_number + k] = scalars[k];
    for (int k = 0; k < program.sum_count; ++k) numbers[first_sum_number + k] = sums.values[k];
    for (int k = 0; k < program.literal_count; ++k)
        numbers[first_literal_number + k] = program.literals[k];
    for (int k = 0; k < program.number_instruction_count; ++k) {
        const NumberInstruction& each = program.number_instructions[k];
        numbers[first_result_number + k] =
            result_of(each.operation, numbers[each.operand[0]], numbers[each.operand[1]],
                      numbers[each.operand[2]]);
    }
}

template <class T>
void set_constants(const Program& program, const double* numbers, T* constants) {
    const auto put = [&](const auto& constant) {
        __builtin_memcpy(constants, &constant, sizeof constant);
        constants += sizeof constant / sizeof(T);
    };
    for (int k = 0; k < program.constant_count; ++k) {
        const double number = numbers[program.constants[k].number];
        switch (program.constants[k].form) {
            case Form::number:
                put(static_cast<T>(number));
                break;
            case Form::average:
                put(Average<T>(number));
                break;
            case Form::decay:
            case Form::exponent: {
                Decay<T> digits(number);
                if (digits.high - digits.high != 0) digits.low = 0;  // an infinite one
                put(digits);
                break;
            }
        }
    }
}

template <class T>
static bool prepare_program(const Program* program, const Moment& moment, const double* own,
                            double* scalars, const Around& around, Coefficients* to) {
    PreparedProgram<T> prepared{program, Surroundings<T>(around), moment, {}, {}};
    static_assert(sizeof prepared <= sizeof(Coefficients));
    __builtin_memcpy(prepared.own, own, sizeof prepared.own);
    double numbers[number_count];
    find_numbers(*program, moment, own, scalars, Sums{}, numbers);
    set_constants(*program, numbers, prepared.constants);
    if (!program->sum_count)
        for (int k = 0; k < program->scalar_count; ++k) scalars[k] = numbers[program->scalars[k]];
    __builtin_memcpy(to, &prepared, sizeof prepared);
    return prepared.around.plain;
}

template <class T>
static void complete_program(const Sums& sums, double* scalars, Coefficients* coefficients) {
    auto& prepared = *reinterpret_cast<PreparedProgram<T>*>(coefficients);
    const Program& program = *prepared.program;
    double numbers[number_count];
    find_numbers(program, prepared.moment, prepared.own, scalars, sums, numbers);
    set_constants(program, numbers, prepared.constants);
    for (int k = 0; k < program.scalar_count; ++k) scalars[k] = numbers[program.scalars[k]];
}

// Elements

/// Memory that is fetched while an operation goes over a chunk, as evenly: from here on so many
/// times fewer bytes than those of its elements.
struct Fetch {
    const char* from;
    int shift;

    template <class T, std::size_t lanes>
    INSTEP_INLINE void at(std::size_t i) const {
        const char* const address = from + (i * sizeof(T) >> shift);
        for (std::size_t byte = 0; byte < lanes * sizeof(T); byte += 64)
            __builtin_prefetch(address + byte);
    }
};

/// Shares what is fetched ahead out among the operations of a program.
class Fetcher {
public:
    explicit Fetcher(int operations) : operations_(static_cast<std::size_t>(operations)) {}

    /// From now on what elements i on of a block need.
    template <class T>
    INSTEP_INLINE void look_at(const Block& block, std::size_t i) {
        count_ = 0;
        for (int s = 0; s < stream_count; ++s) {
            if (!block.data[s]) continue;
            const std::size_t item = s == grad_stream ? itemsize(block.grad_format) : sizeof(T);
            from_[count_++] = static_cast<const char*>(block.data[s]) + i * item;
        }
        for (shift_ = 0; count_ << (shift_ + 1) <= operations_; ++shift_) {
        }
        bytes_ = chunk_elements<T> * sizeof(T) >> shift_;
    }
    /// The part of the k-th operation. Where there are more streams than operations, it fetches
    /// others at once.
    INSTEP_INLINE Fetch part(std::size_t k) const {
        const std::size_t stream = k >> shift_;
        if (stream >= count_) return {nothing, 63};
        for (std::size_t other = stream + operations_; other < count_; other += operations_)
            for (std::size_t byte = 0; byte < bytes_; byte += 64)
                __builtin_prefetch(from_[other] + byte);
        return {from_[stream] + (k - (stream << shift_)) * bytes_, shift_};
    }

private:
    alignas(64) static constexpr char nothing[128] = {};
    std::size_t operations_;
    const char* from_[stream_count];
    std::size_t count_ = 0, bytes_ = 0;
    int shift_ = 0;
};

/// What operations work on.
template <class T>
class Elements {
public:
    explicit Elements(const PreparedProgram<T>& prepared) : prepared_(prepared) {
        for (int k = 0; k < max_temporaries; ++k)
            operands_[first_temporary + k] = {temporaries_[k], all};
        const Constant* constant = prepared.program->constants;
        for (int k = 0; k < max_constants;) {
            if (constant == prepared.program->constants + prepared.program->constant_count) break;
            const Form form = constant++->form;
            if (form == Form::number) {
                for (T& each : constants_[k]) each = prepared.constants[k];
                operands_[first_constant + k] = {constants_[k], none};
            }
            k += constants_of[static_cast<int>(form)];
        }
    }

    /// Makes operands of elements of a block, so many and from i on: of the gradient and of the
    /// parameter as rules see them. The parameter is changed to that where `changes_param`.
    template <bool changes_param>
    void open(const Block& block, std::size_t i, std::size_t count) {
        const Surroundings<T>& around = prepared_.around;
        T* const param = static_cast<T*>(block.data[param_stream]) + i;
        operands_[param_operand] = {param, all};
        for (int s = 0; s < max_slots; ++s)
            if (void* const slot = block.data[first_slot + s])
                operands_[first_slot_operand + s] = {static_cast<T*>(slot) + i, all};
        const bool is_plain = around.plain && block.factors.first == 1 &&
                              !block.data[accumulated_stream] && !around.decays;
        if (is_plain && block.grad_format == format_of_type<T>) {
            operands_[grad_operand] = {static_cast<T*>(block.data[grad_stream]) + i, all};
            return;
        }
        const Gradient<T> grad(block);
        const Stream<T> accumulated(block, accumulated_stream);
        const Factor<T> factor(block.factors);
        operands_[grad_operand] = {gradients_, all};
        T* const seen = changes_param ? param : params_;
        if (around.decays) operands_[param_operand] = {seen, all};
        for (std::size_t k = 0; k < count; k += P::lanes) {
            P p = P::load(param + k), g = grad.template load<P>(Whole{}, i + k);
            if (!is_plain) process(g, p, i + k, Whole{}, around, factor, accumulated);
            g.store(gradients_ + k);
            if (!around.decays) continue;
            p -= around.decay * p;
            p.store(seen + k);
        }
    }

    void run(const Instructions& instructions, std::size_t count, const Fetcher& fetcher) {
        for (int k = 0; k < instructions.count; ++k)
            run(instructions.item[k], count, fetcher.part(static_cast<std::size_t>(k)));
    }

    /// Lets averages follow the parameter, which may become its average.
    void follow(const Block& block, std::size_t i, std::size_t count) const {
        const Surroundings<T>& around = prepared_.around;
        T* const average = static_cast<T*>(block.data[average_stream]);
        T* const param = static_cast<T*>(block.data[param_stream]);
        if (!average) return;
        for (std::size_t k = i; k < i + count; k += P::lanes) {
            const P p = P::load(param + k);
            const P mean = around.first_average ? p : around.ema_momentum(P::load(average + k), p);
            mean.store(average + k);
            if (around.overwrite) mean.store(param + k);
        }
    }

    /// Adds the products of two operands of the first so many elements to `sum_lanes` sums.
    void add_products(const std::uint8_t* factors, std::size_t count, double* sums) const {
        using Q = Pack<T, sum_lanes * sizeof(T) / vector_bytes>;
        const Operand a = operands_[factors[0]], b = operands_[factors[1]];
        for (std::size_t i = 0; i < count; i += sum_lanes) {
            const Q x = load<Q>(a, i), y = load<Q>(b, i);
            const auto product = widened(x) * widened(y);
            if (i + sum_lanes <= count) {
                (decltype(product)::load(sums) + product).store(sums);
            } else {
                double all_products[sum_lanes];
                product.store(all_products);
                for (std::size_t k = 0; i + k < count; ++k) sums[k] += all_products[k];
            }
        }
    }

private:
    using P = Pack<T, vector_bytes == 64 ? 2 : 4>;
    static_assert(grain % P::lanes == 0);

    struct Operand {
        T* at;
        std::size_t moves;  ///< bits of an element's index
    };
    static constexpr std::size_t all = ~std::size_t{0}, none = 0;

    template <class Q>
    static INSTEP_INLINE Q load(const Operand& operand, std::size_t i) {
        if (sizeof(Q) > sizeof(T) * constant_lanes && operand.moves == none) return Q(*operand.at);
        return Q::load(operand.at + (i & operand.moves));
    }

    void run(const Instruction& instruction, std::size_t count, const Fetch fetch) {
        const auto operand = [&](int k)
                                 INSTEP_INLINE_LAMBDA { return operands_[instruction.operand[k]]; };
        const Operand a = operand(0), b = operand(1), c = operand(2), d = operand(3);
        T* const to = operands_[instruction.to].at;
        const auto each = [&](auto result) INSTEP_INLINE_LAMBDA {
            for (std::size_t i = 0; i < count; i += P::lanes) {
                fetch.at<T, P::lanes>(i);
                result([&](const Operand& x) INSTEP_INLINE_LAMBDA {
                    return P::load(x.at + (i & x.moves));
                }).store(to + i);
            }
        };
        const auto constant = [&]<class Type>(int k, Type) INSTEP_INLINE_LAMBDA {
            Type value;
            __builtin_memcpy(static_cast<void*>(&value),
                             prepared_.constants + instruction.operand[k] - first_constant,
                             sizeof value);
            return value;
        };
#define INSTEP_RESULT(...) \
    return each([&](auto of) INSTEP_INLINE_LAMBDA -> P { return __VA_ARGS__; })
        switch (instruction.operation) {
            case ElementOperation::copy:
                INSTEP_RESULT(of(a));
            case ElementOperation::add:
                INSTEP_RESULT(of(a) + of(b));
            case ElementOperation::subtract:
                INSTEP_RESULT(of(a) - of(b));
            case ElementOperation::multiply:
                INSTEP_RESULT(of(a) * of(b));
            case ElementOperation::divide:
                INSTEP_RESULT(of(a) / of(b));
            case ElementOperation::maximum:
                INSTEP_RESULT(max(of(a), of(b)));
            case ElementOperation::minimum:
                INSTEP_RESULT(select(of(b) < of(a), of(b), of(a)) + P(T(0)));
            case ElementOperation::less:
                INSTEP_RESULT(select(of(a) < of(b), P(T(1)), P(T(0))));
            case ElementOperation::less_equal:
                INSTEP_RESULT(select(of(a) <= of(b), P(T(1)), P(T(0))));
            case ElementOperation::equal:
                INSTEP_RESULT(
                    select(of(a) <= of(b), select(of(b) <= of(a), P(T(1)), P(T(0))), P(T(0))));
            case ElementOperation::root:
                INSTEP_RESULT(sqrt(of(a)));
            case ElementOperation::absolute:
                INSTEP_RESULT(abs(of(a)));
            case ElementOperation::sign:
                INSTEP_RESULT(sign(of(a)));
            case ElementOperation::where:
                INSTEP_RESULT(select(P(T(0)) < of(a), of(b), of(c)));
            case ElementOperation::multiply_add:
                INSTEP_RESULT(of(a) * of(b) + of(c));
            case ElementOperation::root_add:
                INSTEP_RESULT(sqrt(of(a) * of(b)) + of(c));
            case ElementOperation::product_over:
                INSTEP_RESULT(of(a) * of(b) / of(c));
            case ElementOperation::add_product_over:
                INSTEP_RESULT(of(a) + of(b) * of(c) / of(d));
            case ElementOperation::add_product_over_root: {
                const Operand e = operand(4), f = operand(5);
                INSTEP_RESULT(of(a) + of(b) * of(c) / (sqrt(of(d) * of(e)) + of(f)));
            }
            case ElementOperation::average: {
                const auto beta = constant(2, Average<T>());
                INSTEP_RESULT(beta(of(a), of(b)));
            }
            case ElementOperation::average_of_squares: {
                const auto beta = constant(3, Average<T>());
                INSTEP_RESULT(beta.of_squares(of(a), beta.share(of(b) * of(c))));
            }
            case ElementOperation::decay_add: {
                const auto rate = constant(2, Decay<T>());
                INSTEP_RESULT(rate * of(a) + of(b));
            }
            case ElementOperation::power: {
                const auto digits = constant(1, Decay<T>());
                const double exponent = double(digits.high) + double(digits.low);
                INSTEP_RESULT(real_power(of(a), exponent));
            }
        }
#undef INSTEP_RESULT
    }

    /// As many of each constant as operations load at a time.
    static constexpr std::size_t constant_lanes = P::lanes;

    const PreparedProgram<T>& prepared_;
    Operand operands_[operand_count];
    alignas(64) T gradients_[chunk_elements<T>], params_[chunk_elements<T>];
    alignas(64) T temporaries_[max_temporaries][chunk_elements<T>];
    alignas(64) T constants_[max_constants][constant_lanes];
};

/// The last elements of a block, in memory of their own with zeros behind them.
template <class T>
class Padded {
public:
    Block block;

    Padded(const Block& from, std::size_t start) : block(from), from_(from), start_(start) {
        block.count = grain;
        for (int s = 0; s < stream_count; ++s) {
            if (!from.data[s]) continue;
            __builtin_memset(elements_[s], 0, sizeof elements_[s]);
            __builtin_memcpy(elements_[s], place(s), bytes(s));
            block.data[s] = elements_[s];
        }
    }
    /// Writes what a rule changes back.
    void put() const {
        for (int s = 0; s < stream_count; ++s)
            if (from_.data[s] && s != grad_stream && s != accumulated_stream)
                __builtin_memcpy(place(s), elements_[s], bytes(s));
    }

private:
    std::size_t item(int s) const {
        return s == grad_stream ? itemsize(block.grad_format) : sizeof(T);
    }
    char* place(int s) const { return static_cast<char*>(from_.data[s]) + start_ * item(s); }
    std::size_t bytes(int s) const { return (from_.count - start_) * item(s); }

    const Block& from_;
    std::size_t start_;
    alignas(64) unsigned char elements_[stream_count][grain * sizeof(double)];
};

template <class T>
INSTEP_NOINLINE void update_rest(Elements<T>& elements, const Program& program, const Block& block,
                                 std::size_t start) {
    Padded<T> rest(block, start);
    const Fetcher nothing(0);
    elements.template open<true>(rest.block, 0, grain);
    elements.run(program.update, grain, nothing);
    elements.follow(rest.block, 0, grain);
    rest.put();
}

template <class T>
static void update_program(const Blocks& blocks, const Ahead& ahead,
                           const Coefficients& coefficients) {
    const auto& prepared = reinterpret_cast<const PreparedProgram<T>&>(coefficients);
    const Program& program = *prepared.program;
    choose_square_roots<T>(ahead.manner.half_of_roots);
    Elements<T> elements(prepared);
    Fetcher fetcher(program.update.count);
    const std::size_t chunk = chunk_elements<T>;
    const std::size_t bytes_ahead = ahead.manner.bytes_ahead;
    const std::size_t distance = (bytes_ahead / sizeof(T) + chunk - 1) / chunk * chunk;
    for (std::size_t k = 0; k < blocks.count; ++k) {
        const Block& block = blocks[k];
        const std::size_t whole = block.count - block.count % grain;
        for (std::size_t i = 0; i < whole; i += chunk) {
            const std::size_t count = whole - i < chunk ? whole - i : chunk;
            if (bytes_ahead) {
                const bool is_here = i + distance < block.count;
                fetcher.look_at<T>(is_here ? block : block_ahead<T>(blocks, k, ahead),
                                   is_here ? i + distance : 0);
            }
            elements.template open<true>(block, i, count);
            elements.run(program.update, count, fetcher);
            elements.follow(block, i, count);
        }
        if (whole < block.count) update_rest(elements, program, block, whole);
    }
}

template <class T>
static void measure_program(const Block& block, std::size_t, const Coefficients& coefficients,
                            double* sums) {
    const auto& prepared = reinterpret_cast<const PreparedProgram<T>&>(coefficients);
    const Program& program = *prepared.program;
    Elements<T> elements(prepared);
    const Fetcher nothing(0);
    const auto measure = [&](const Block& from, std::size_t i, std::size_t count,
                             std::size_t counted) {
        elements.template open<false>(from, i, count);
        elements.run(program.measure, count, nothing);
        for (int s = 0; s < program.sum_count; ++s)
            elements.add_products(program.factors[s], counted,
                                  sums + static_cast<std::size_t>(s) * sum_lanes);
    };
    const std::size_t whole = block.count - block.count % grain, chunk = chunk_elements<T>;
    for (std::size_t i = 0; i < whole; i += chunk) {
        const std::size_t count = whole - i < chunk ? whole - i : chunk;
        measure(block, i, count, count);
    }
    if (whole == block.count) return;
    const Padded<T> rest(block, whole);
    measure(rest.block, 0, grain, block.count - whole);
}

/// The kernels of all programs, of which those of slots stand where none are in use.
template <class T>
constexpr RuleKernels program_kernels() {
    RuleKernels kernels{};
    kernels.prepare = prepare_program<T>;
    kernels.complete = complete_program<T>;
    kernels.measure[0] = measure_program<T>;
    kernels.update[0] = update_program<T>;
    return kernels;
}

}  // namespace instep::INSTEP_LEVEL
