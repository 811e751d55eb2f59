// <linux/kvm.h> for C++. Headers before Linux 6.4 make arrays of unknown length with an empty structure,
// which has a size in C++: structures with such an array, and the numbers of the calls that take them, would
// be wrong.
#pragma once
#include <linux/stddef.h>
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(type, name) type name[0]
#include <linux/kvm.h>

static_assert(sizeof(kvm_cpuid2) == 8 && sizeof(kvm_irq_routing) == 8 && sizeof(kvm_signal_mask) == 4);
