// <linux/kvm.h>, as C sees it: in C++ the headers of 2022 make structures with a flexible array a byte
// larger, and with them the numbers of the requests that take them.
#pragma once

#include <linux/stddef.h>
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[0]
#include <linux/kvm.h>

static_assert(sizeof(kvm_msrs) == 8 && sizeof(kvm_cpuid2) == 8 && sizeof(kvm_irq_routing) == 8);
static_assert(KVM_SET_MSRS == 0x4008ae89);
