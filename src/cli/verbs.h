// The verbs of the command. Each adds its subcommand with options, help and examples; its callback, which
// CLI11 runs after parsing, leaves the process's exit code (output.h) in `status`.
#pragma once

#include <CLI/CLI.hpp>

namespace stasis::cli {

CLI::App* add_launch(CLI::App& app, int& status);
CLI::App* add_checkpoint(CLI::App& app, int& status);
CLI::App* add_restart(CLI::App& app, int& status);
CLI::App* add_ps(CLI::App& app, int& status);
CLI::App* add_attach(CLI::App& app, int& status);
CLI::App* add_signal(CLI::App& app, int& status);
CLI::App* add_list(CLI::App& app, int& status);
CLI::App* add_inspect(CLI::App& app, int& status);
CLI::App* add_verify(CLI::App& app, int& status);
CLI::App* add_rm(CLI::App& app, int& status);
CLI::App* add_prune(CLI::App& app, int& status);
CLI::App* add_export(CLI::App& app, int& status);
CLI::App* add_import(CLI::App& app, int& status);
CLI::App* add_gl(CLI::App& app, int& status);
CLI::App* add_check(CLI::App& app, int& status);

}  // namespace stasis::cli
