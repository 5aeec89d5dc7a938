// What is compiled once per instruction-set level sees its name, and inlines what must be.
#pragma once

#ifndef INSTEP_LEVEL
#error "rules are compiled by kernels/unit.cpp, with INSTEP_LEVEL set to the level's name"
#endif

/// A condition that holds more often than not, though its other branch is not to be slow.
#define INSTEP_OFTEN(condition) __builtin_expect_with_probability(condition, 1, 0.6)
#define INSTEP_INLINE inline __attribute__((always_inline))
#define INSTEP_INLINE_LAMBDA __attribute__((always_inline))
#define INSTEP_NOINLINE static __attribute__((noinline))
