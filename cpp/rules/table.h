// The update rules that exist, by the name of their kernel function. Everything else (kernels for
// every instruction set, dtype and slot configuration, bindings, checks) follows from this table.
#pragma once

#include "rules/adabelief.h"
#include "rules/adadelta.h"
#include "rules/adafactor.h"
#include "rules/adagrad.h"
#include "rules/adam.h"
#include "rules/adamax.h"
#include "rules/adan.h"
#include "rules/ademamix.h"
#include "rules/asgd.h"
#include "rules/clipup.h"
#include "rules/fromage.h"
#include "rules/ftrl.h"
#include "rules/lamb.h"
#include "rules/lars.h"
#include "rules/lion.h"
#include "rules/nadam.h"
#include "rules/novograd.h"
#include "rules/prodigy.h"
#include "rules/radam.h"
#include "rules/rmsprop.h"
#include "rules/rowwise_adagrad.h"
#include "rules/rprop.h"
#include "rules/schedule_free.h"
#include "rules/sgd.h"
#include "rules/sign_sgd.h"
#include "rules/signum.h"
#include "rules/sm3.h"
#include "rules/yogi.h"

// clang-format off
#define INSTEP_RULES(row)                           \
    row("adabelief", AdaBelief)                     \
    row("adadelta", Adadelta)                       \
    row("adafactor", Adafactor)                     \
    row("adagrad", Adagrad)                         \
    row("adam", Adam)                               \
    row("adamax", Adamax)                           \
    row("adan", Adan)                               \
    row("ademamix", AdEMAMix)                       \
    row("asgd", ASGD)                               \
    row("clipup", ClipUp)                           \
    row("fromage", Fromage)                         \
    row("ftrl", Ftrl)                               \
    row("lamb", Lamb)                               \
    row("lars", Lars)                               \
    row("lion", Lion)                               \
    row("nadam", Nadam)                             \
    row("novograd", NovoGrad)                       \
    row("prodigy", Prodigy)                         \
    row("radam", RAdam)                             \
    row("rmsprop", RMSprop)                         \
    row("rowwise_adagrad", RowwiseAdagrad)          \
    row("rprop", Rprop)                             \
    row("schedule_free_adamw", ScheduleFreeAdamW)   \
    row("schedule_free_sgd", ScheduleFreeSGD)       \
    row("sgd", SGD)                                 \
    row("sign_sgd", SignSGD)                        \
    row("signum", Signum)                           \
    row("sm3", SM3)                                 \
    row("yogi", Yogi)                               \
    /* end */

// clang-format on
