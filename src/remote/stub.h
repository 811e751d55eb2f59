// What stub.S defines.
#pragma once

extern "C" {
extern const char stasis_stub_begin[];
extern const char stasis_stub_context[];   // struct StubContext in executor.cpp
extern const char stasis_stub_reported[];  // behind the system call that reports
extern const char stasis_stub_end[];
}
