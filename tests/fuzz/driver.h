// What a fuzz target gives: libFuzzer's entry point, so that the target also works with it (clang
// -fsanitize=fuzzer), and inputs to begin with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

std::vector<std::string> fuzz_seeds();
