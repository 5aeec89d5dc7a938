// The update rules that exist, by the name of their kernel function. Everything else (kernels for
// every instruction set, dtype and slot configuration, bindings, checks) follows from this table.
#pragma once

#include "rules/adadelta.h"
#include "rules/adagrad.h"
#include "rules/adam.h"
#include "rules/rmsprop.h"
#include "rules/sgd.h"

// clang-format off
#define INSTEP_RULES(row)     \
    row("adadelta", Adadelta) \
    row("adagrad", Adagrad)   \
    row("adam", Adam)         \
    row("rmsprop", RMSprop)   \
    row("sgd", SGD)           \
    /* end */

// clang-format on
