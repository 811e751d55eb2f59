#!/usr/bin/python3
"""Makes a driver that does nothing but read what a call says that it reads, and write what it says that it writes, from
the Khronos registry. What depends on more than the call itself is in model_driver.cpp.

    make_model.py GENERATOR GL_XML RULES OUTPUT
"""
import importlib.util
import pathlib
import re
import sys

GENERATOR, XML, RULES, OUTPUT = sys.argv[1:]
spec = importlib.util.spec_from_file_location("generate", GENERATOR)
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)


def count(command, length):
    """How many elements: from the registry alone, not from the rules that the decoder is made from."""
    if length is None or length.startswith("COMPSIZE(pname)"):
        return "values_of(pname)" if length and any(p.name == "pname" for p in command.parameters) else None
    names = {p.name for p in command.parameters}
    factors = re.fullmatch(r"(\w+)(?:\*(\d+))?", length)
    if factors and (factors[1].isdigit() or factors[1] in names):
        return f"elements({factors[1]}) * {factors[2] or 1}"
    return None


def model(command):
    lines = [f"{command.returns} model_{command.name}({command.signature}) {{"]
    lines += [f"  (void){p.name};" for p in command.parameters]
    for p in command.parameters:
        if p.pointers != 1:
            continue
        of = count(command, p.length)
        if p.is_input and of:
            lines.append(f"  touch({p.name}, {of} * {p.element_size});")
        elif p.is_input and p.base == "GLchar":
            lines.append(f"  touch_text({p.name});")
        elif p.is_output and of:
            lines.append(f"  fill({p.name}, {of} * {p.element_size});")
    if command.returns != "void":
        lines.append(f"  return {command.returns}{{}};" if "*" not in command.returns else "  return nullptr;")
    return "\n".join(lines + ["}"])


registry = generate.Registry(XML, generate.read_rules(pathlib.Path(RULES)))
out = [generate.HEAD, "#include \"tests/gl/model_driver.h\"\n#include \"wire/sizes.h\"\n", "#include <cstring>\n\nnamespace stasis::gl {\nnamespace {\n"]
out += [model(c) for c in registry.commands]
out.append("const struct {\n  const char* name;\n  void* function;\n} kModels[] = {")
out += [f"  {{\"{c.gl_name}\", reinterpret_cast<void*>(model_{c.name})}}," for c in registry.commands]
out.append("};\n}  // namespace\n\nvoid* find_generated_model(const char* name) {\n  for (const auto& one : kModels) {\n"
           "    if (std::strcmp(one.name, name) == 0) return one.function;\n  }\n  return nullptr;\n}\n}  // namespace stasis::gl")
pathlib.Path(OUTPUT).write_text("\n".join(out) + "\n")
