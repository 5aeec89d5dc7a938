// A parameter array with its state, and what must not change while it is bound.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/overlap.h"
#include "bindings/row_gradients.h"
#include "engine/fetch.h"
#include "engine/optimizer.h"

namespace instep::bindings {

/// A parameter as it was bound: what must not have changed since, and how its memory is visited.
class alignas(64) BoundParameter {
public:
    /// `state` has arrays by name: the rule's slots, of which optional ones may be missing or None,
    /// its scalars, and others that the engine does not know, but whose memory is the parameter's
    /// as well. Of `parts`, in which it may have the rule's divisible slot, there are the axes by
    /// name. `kept` are names of formats or codings, by the name of a slot or, for the parameter
    /// itself, "parameter": others are kept in what kernels compute in; what codings keep beside a
    /// slot is in `state`, too, under its name and "_scale", and beside the parameter under that of
    /// its coding. Average, accumulator and a rounded copy may be None; `axes` are those of the
    /// order to visit it in, None for that of its memory.
    BoundParameter(py::object param, std::string path, const py::dict& state, const py::dict& parts,
                   const py::dict& kept, py::object average, py::object accumulator,
                   py::object copy, const py::object& axes, const RuleInfo& rule);

    py::handle object() const { return param_; }
    const std::string& path() const { return path_; }
    const std::vector<int>& axes() const { return order_.axes; }
    /// For the engine; points into this object, wherever it moves.
    Array array();
    /// Adds all of its arrays, with this one for the parameter itself.
    void add_to(Memory& memory, py::handle param) const;
    /// Whether another array will do for the parameter, and nothing else changes.
    bool is_like(py::handle param) const {
        return is_in_its_order_ && as_bound_.is_like(View(param));
    }
    /// Takes it, and leaves in its place the one that was bound.
    void move(py::object& param) noexcept;
    /// Raises ValueError where the array was resized, moved or made read-only.
    void check_unchanged() const {
        if (!is_unchanged()) refuse_changes();
    }
    bool is_unchanged() const { return as_bound_.is_current(); }
    /// Fetches into the cache what the next two need of this object; then of the array as well.
    void fetch() const { instep::fetch(this, 2 * cache_line); }
    void fetch_array() const { as_bound_.fetch(); }
    void fetch_axes_of_array() const { fetch_axes(param_); }
    /// Sets a stream to a gradient, or to none for None; raises where it can't be read. Another
    /// library's array becomes NumPy's view of it. The stream holds until the next call.
    /// `looked_closer`: where it became true, Python code may have run.
    void read_gradient(py::object& object, const Memory& memory, Stream& to, bool& looked_closer) {
        if (is_c_contiguous_ && as_bound_.matches(object, free_)) {
            to.data = View(object).data();
            to.format = as_bound_.format();
            to.strides = nullptr;
            to.rows = nullptr;
            return;
        }
        looked_closer = true;
        to = checked_gradient(object, memory);
    }

    /// Reads Rows where the array is a part of one whose rows have so many elements; over a
    /// divisor.
    Stream read_rows_of_part(py::object& rows, std::size_t length, double divisor,
                             const Memory& memory);

    /// The rows that ids, or Rows, name; until the next gradient. Raises for what is neither. Those
    /// of a part have so many elements; 0 where it is whole.
    const Rows& named(py::handle ids, std::size_t length_in_part);
    /// Raises ValueError where parameter or gradient have changed since `gradient`.
    void check_still(py::handle object, const Stream& stream) const;

private:
    [[noreturn]] void refuse_changes() const;
    Stream checked_gradient(py::object& object, const Memory& memory);
    Stream rows_gradient(py::object& object, const Memory& memory, const Table& table,
                         const Name& its_name);
    Table table_of_part(std::size_t length) const;
    Name name(const char* role) const;
    Kept kept_copy() const;

    // Read in every step: neighbours, in two lines of the cache.
    Bounds free_{0, 0};     ///< memory next to ours, where the last gradient was
    bool is_c_contiguous_;  ///< and visited like that
    Snapshot as_bound_;

    py::object param_, average_, accumulator_, copy_;
    /// A part of the divisible slot.
    struct SlotPart {
        std::string name;
        py::object array;
        std::vector<int> axes;  ///< of the parameter's
    };
    Part part(const SlotPart& slot_part);

    /// What a coding keeps beside an array, under its name.
    struct Companion {
        std::string name;
        py::object array;
    };
    std::vector<py::object> slots_, scalars_;
    std::vector<Kept> kept_;  ///< of each slot
    Companion beside_param_;
    std::vector<Companion> beside_;  ///< each slot
    std::vector<SlotPart> slot_parts_;
    int divisible_slot_;
    Kept kept_param_;
    std::vector<const char*> slot_names_, scalar_names_;
    std::vector<std::pair<std::string, py::object>> others_;
    std::string path_;
    Order order_;
    bool is_in_its_order_ = true;  ///< visited as it lies in memory
    std::vector<std::vector<std::ptrdiff_t>> stream_strides_;
    std::vector<std::ptrdiff_t> gradient_strides_;
    Rows rows_;          ///< the gradient, where it is of some rows
    double number_ = 0;  ///< the gradient of a 0-d array, given as a number
};

}  // namespace instep::bindings
