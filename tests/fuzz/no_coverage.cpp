// For programs that use libraries with coverage and do not care.
extern "C" void __sanitizer_cov_trace_pc() {}
