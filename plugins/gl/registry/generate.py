#!/usr/bin/python3
"""Makes the encoder's stubs, the renderer's decoder and the keeper's table from the Khronos registry and commands.rules.

    generate.py GL_XML RULES OUTPUT_DIRECTORY

Fails when a command of an advertised version has no rule, or when the sizes of what it points to are not known.
"""

import fnmatch
import hashlib
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

VERSIONS = {"gl": 3.3, "gles2": 3.0}
# Advertising these would promise more than their commands.
NEVER = {"GL_AMD_pinned_memory", "GL_ARB_compressed_texture_pixel_storage", "GL_APPLE_client_storage", "GL_MESA_program_binary_formats", "GL_ARB_gl_spirv",
         "GL_OES_EGL_image_external", "GL_OES_EGL_image_external_essl3", "GL_EXT_YUV_target"}
# They have no commands, and the registry does not list them for this API.
WITHOUT_COMMANDS = {"GL_APPLE_packed_pixels", "GL_ATI_texture_compression_3dc", "GL_EXT_texture_edge_clamp",
                    "GL_EXT_texture_rectangle", "GL_MESA_texture_signed_rgba"}
NAME_TYPES = {"texture": "kTexture", "buffer": "kBuffer", "framebuffer": "kFramebuffer", "renderbuffer": "kRenderbuffer",
              "query": "kQuery", "program": "kProgram", "shader": "kProgram", "sampler": "kSampler",
              "vertex array": "kVertexArrayName", "transform feedback": "kTransformFeedback"}
SIZES = {"GLbyte": 1, "GLubyte": 1, "GLchar": 1, "GLboolean": 1, "GLshort": 2, "GLushort": 2, "GLhalfNV": 2, "GLint": 4,
         "GLuint": 4, "GLsizei": 4, "GLenum": 4, "GLbitfield": 4, "GLfloat": 4, "GLclampf": 4, "GLdouble": 8,
         "GLclampd": 8, "GLint64": 8, "GLuint64": 8, "GLintptr": 8, "GLsizeiptr": 8, "GLsync": 8, "GLhandleARB": 4,
         "GLcharARB": 1, "GLintptrARB": 8, "GLsizeiptrARB": 8}


class Parameter:
    def __init__(self, node):
        self.name = node.find("name").text
        text = "".join(node.itertext())
        self.type = " ".join(text[:text.rindex(self.name)].split())
        self.length = node.get("len")
        self.object = NAME_TYPES.get(node.get("class"))
        self.pointers = self.type.count("*")
        self.constant = "const" in self.type
        self.base = self.type.replace("const", "").replace("*", "").strip()
        if self.name in ("default", "near", "far", "ref"):
            self.name += "_"

    @property
    def is_input(self):
        return self.pointers > 0 and self.constant

    @property
    def is_output(self):
        return self.pointers > 0 and not self.constant

    @property
    def element_size(self):
        return SIZES.get(self.base, 1)


class Command:
    def __init__(self, node):
        proto = node.find("proto")
        self.gl_name = proto.find("name").text
        self.name = self.gl_name[2:]
        self.returns = " ".join("".join(proto.itertext()).replace(self.gl_name, "").split())
        self.parameters = [Parameter(p) for p in node.findall("param")]
        self.alias = node.find("alias").get("name") if node.find("alias") is not None else None
        self.rule = None

    @property
    def signature(self):
        return ", ".join(f"{p.type} {p.name}" for p in self.parameters) or "void"

    @property
    def inputs(self):
        return [p for p in self.parameters if p.is_input]

    @property
    def outputs(self):
        return [p for p in self.parameters if p.is_output]

    @property
    def scalars(self):
        return [p for p in self.parameters if p.pointers == 0]

    @property
    def is_query(self):
        return (self.returns != "void" or bool(self.outputs)) and "gen" not in self.rule.flags


class Rule:
    """One line: a pattern of names, the encoder's way, and the effect for the keeper (see the head of commands.rules)."""

    def __init__(self, line):
        words = line.split()
        self.pattern, self.effect = words[0], words[1]
        self.flags = {w for w in words[2:] if "=" not in w}
        self.values = dict(w.split("=", 1) for w in words[2:] if "=" in w)


def fail(text):
    sys.exit(f"generate.py: {text}")


def read_rules(path):
    rules = []
    for line in path.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line:
            rules.append(Rule(line))
    return rules


def commands_of(node):
    return list(dict.fromkeys(c.get("name") for r in node.findall("require") for c in r.findall("command")))


class Registry:
    def __init__(self, xml, rules):
        root = ElementTree.parse(xml).getroot()
        self.all = {}
        for node in root.find("commands").findall("command"):
            command = Command(node)
            self.all[command.gl_name] = command
        self.enums = {e.get("name"): int(e.get("value"), 0) for group in root.findall("enums") for e in group.findall("enum")
                      if e.get("api") in (None, "gl")}
        # What a version adds: (API, number) -> commands; what an extension adds, which newer versions may have, too.
        self.versions = {(f.get("api"), float(f.get("number"))): commands_of(f) for f in root.findall("feature")
                         if f.get("api") in VERSIONS}
        self.all_extensions = {e.get("name"): commands_of(e) for e in root.find("extensions").findall("extension")
                               if {"gl", "glcore", "gles2"} & set(e.get("supported").split("|"))}
        wanted = [name for (api, number), commands in self.versions.items() if number <= VERSIONS[api] for name in commands]
        for rule in rules:
            if "extension" in rule.flags:
                wanted += sorted(fnmatch.filter(self.all, rule.pattern))
        self.commands = []
        for name in dict.fromkeys(wanted):
            if name not in self.all:
                fail(f"{name} is not in the registry")
            command = self.all[name]
            command.rule = next((r for r in rules if fnmatch.fnmatchcase(name, r.pattern)), None)
            if command.rule is None:
                fail(f"{name} has no rule")
            if "names" in command.rule.values:
                for p in command.parameters:
                    p.object = p.object and command.rule.values["names"]
            if command.rule.effect not in ("absent", "same"):
                self.commands.append(command)
        own = {c.gl_name for c in self.commands}
        self.exported = {c.gl_name: c for c in self.commands}
        for rule in rules:
            if rule.effect == "same":
                self.exported[rule.pattern] = self.all[rule.values["as"]]
        for name, command in self.all.items():
            target = self.resolve(name)
            if name not in self.exported and target in own and self.same_call(command, self.all[target]):
                self.exported[name] = self.all[target]
        self.extensions = sorted(WITHOUT_COMMANDS) + sorted(name for name, commands in self.all_extensions.items()
                                 if all(c in self.exported for c in commands) and name not in NEVER)

    def resolve(self, name):
        seen = set()
        while self.all[name].alias and self.all[name].alias in self.all and name not in seen:
            seen.add(name)
            name = self.all[name].alias
        return name

    @staticmethod
    def same_call(a, b):
        return len(a.parameters) == len(b.parameters) and all(
            p.pointers == q.pointers and (p.pointers or SIZES.get(p.base) == SIZES.get(q.base)) for p, q in
            zip(a.parameters, b.parameters))


def count_of(command, parameter):
    """C++ expression: how many elements a pointer parameter has, or None. Taken from the rule, else from the registry."""
    if parameter.name in command.rule.values:
        return command.rule.values[parameter.name]
    length = parameter.length
    if length is None:
        return None
    names = {p.name for p in command.parameters}
    match = re.fullmatch(r"(\w+)(?:\*(\d+))?", length)
    if match and (match[1].isdigit() or match[1] in names):
        factor = match[2] or "1"
        return f"size_t({match[1]}) * {factor}" if not match[1].isdigit() else match[1]
    if length == "COMPSIZE(pname)":
        return "values_of(pname)"
    return None


def is_fixed(count):
    return count is not None and count.isdigit()


HEAD = "// Generated by plugins/gl/registry/generate.py; do not edit.\n"


def wire(registry):
    out = [HEAD, "#pragma once\n#include <GL/gl.h>\n#include <GL/glext.h>\n#include \"wire/packet.h\"\n",
           "namespace stasis::gl {\nenum GlOp : uint16_t {"]
    for i, c in enumerate(registry.commands):
        out.append(f"  kOp{c.name} = kOpFirstGl + {i},")
    out.append(f"  kOpGlEnd = kOpFirstGl + {len(registry.commands)},\n}};\n")
    for c in registry.commands:
        fields = []
        for p in c.parameters:
            if p.pointers == 0:
                kind = "uint64_t" if p.base == "GLsync" else p.type
                fields.append((SIZES[p.base], f"{kind} {p.name};"))
            elif p.is_input:
                count = count_of(c, p)
                if is_fixed(count) and p.pointers == 1 and "optional" not in c.rule.flags:
                    fields.append((p.element_size, f"{p.base if p.base != 'void' else 'uint8_t'} {p.name}[{count}];"))
                else:
                    if "offset" in c.rule.flags:
                        fields.append((8, f"uint64_t {p.name};"))
                    fields.append((4, f"uint32_t {p.name}_bytes;"))
        order = {8: 0, 4: 1, 2: 2, 1: 3}
        fields.sort(key=lambda f: order[f[0]])
        out.append(f"struct P{c.name} {{\n  Packet header;")
        out += [f"  {f}" for _, f in fields]
        out.append("};")
    # Rings and logs hold packets of exactly these forms: who was built from others must not read them.
    digest = hashlib.sha256("\n".join(out).encode()).hexdigest()[:16]
    out.append(f"constexpr uint64_t kCommandTable = 0x{digest};")
    out.append("}  // namespace stasis::gl")
    return "\n".join(out) + "\n"


def sized_inputs(c):
    return [p for p in c.inputs if not (is_fixed(count_of(c, p)) and "optional" not in c.rule.flags)]


def begin_function(c):
    """Reserves a packet and fills in the scalars; payloads follow in the order of the parameters."""
    sized = sized_inputs(c)
    arguments = ["Stream& stream_"] + [f"{p.type} {p.name}" for p in c.scalars] + [f"size_t {p.name}_bytes" for p in sized]
    total = " + ".join([f"padded(sizeof(P{c.name}))"] + [f"padded_payload({p.name}_bytes)" for p in sized])
    lines = [f"[[maybe_unused]] inline P{c.name}* begin_{c.name}({', '.join(arguments)}) {{",
             f"  auto* packet_ = static_cast<P{c.name}*>(stream_.begin(kOp{c.name}, {total}));"]
    for p in c.scalars:
        value = f"reinterpret_cast<uint64_t>({p.name})" if p.base == "GLsync" else p.name
        lines.append(f"  packet_->{p.name} = {value};")
    for p in sized:
        lines.append(f"  packet_->{p.name}_bytes = static_cast<uint32_t>({p.name}_bytes);")
    lines.append("  return packet_;\n}")
    return "\n".join(lines)


def notes_of(c):
    """What the program's own names mean for those that we will choose."""
    out = []
    if "bind" in c.rule.flags:
        for p in c.scalars:
            if p.object:
                out.append(f"  note_name(*stream_, {p.object}, {p.name});")
    return out


def stub(c):
    """A stub that needs nothing but the rules."""
    lines = [f"{c.returns} stub_{c.name}({c.signature}) {{", "  Stream* stream_ = stream();"]
    default = {"void": "return"}.get(c.returns, f"return {c.returns}{{}}" if "*" not in c.returns else "return nullptr")
    if "*" in c.returns or c.returns == "GLsync":
        default = "return nullptr"
    lines.append(f"  if (stream_ == nullptr) {default};")
    lines += notes_of(c)
    sized = sized_inputs(c)
    counts = []
    for p in sized:
        count = count_of(c, p)
        if p.base == "GLchar" and p.pointers == 1 and (p.length is None or "COMPSIZE" in (p.length or "")):
            count = f"length_with_end({p.name})"
        if count is None or p.pointers != 1:
            fail(f"{c.gl_name}: the size of {p.name} ({p.length}) is not known, and no hand-written stub is declared")
        counts.append((p, f"{p.name} == nullptr ? kNull : bytes_of({count}, {p.element_size})"))
    for p, expression in counts:
        lines.append(f"  const size_t {p.name}_bytes = {expression};")
    call = ", ".join(["*stream_"] + [p.name for p in c.scalars] + [f"{p.name}_bytes" for p in sized])
    lines.append(f"  [[maybe_unused]] auto* packet_ = begin_{c.name}({call});")
    for p in c.inputs:
        if p not in sized:
            lines.append(f"  copy(packet_->{p.name}, {p.name}, sizeof packet_->{p.name});")
    if sized:
        lines.append(f"  char* at_ = reinterpret_cast<char*>(packet_) + padded(sizeof *packet_);")
        for p in sized:
            lines.append(f"  at_ = put_payload(at_, {p.name}, {p.name}_bytes);")
    if not c.is_query:
        lines.append("  stream_->commit();" if sized else "  stream_->commit_small();")
        if "then" in c.rule.values:
            name, _, arguments = c.rule.values["then"].rstrip(")").partition("(")
            lines.append(f"  {name}({', '.join(['*stream_', arguments] if arguments else ['*stream_'])});")
    else:
        lines.append("  Answer answer = stream_->ask();")
        for p in c.outputs:
            lines.append(f"  answer.take({p.name}, {output_capacity(c, p)});")
        if c.returns != "void":
            lines.append(f"  return answer.result<{c.returns}>();")
    lines.append("}")
    return "\n".join(lines)


def output_capacity(c, p):
    """How many bytes the program's memory can take at most; the renderer finds out how many were written."""
    if p.name in c.rule.values:
        return f"bytes_of({c.rule.values[p.name]}, {p.element_size})"
    count = count_of(c, p)
    if count and count != "values_of(pname)":
        return f"bytes_of({count}, {p.element_size})"
    return "kAnySize"


def gen_stub(c):
    """Names are chosen on the program's side: no waiting."""
    if c.returns != "void":  # glCreateShader, glCreateProgram
        kind = "kProgram"
        arguments = ", ".join(["*s"] + [p.name for p in c.scalars] + ["sizeof(GLuint)"])
        return (f"{c.returns} stub_{c.name}({c.signature}) {{\n  Stream* s = stream();\n  if (s == nullptr) return 0;\n"
                f"  GLuint name = new_names(*s, {kind}, 1);\n  auto* packet = begin_named_{c.name}({arguments});\n"
                f"  *reinterpret_cast<GLuint*>(reinterpret_cast<char*>(packet) + padded(sizeof *packet)) = name;\n"
                f"  s->commit();\n  return name;\n}}")
    names = c.outputs[0]
    count = next(p.name for p in c.scalars)
    return (f"void stub_{c.name}({c.signature}) {{\n  Stream* s = stream();\n  if (s == nullptr) return;\n"
            f"  const size_t bytes = {count} < 0 ? 0 : size_t({count}) * sizeof(GLuint);\n"
            f"  GLuint first = {count} < 0 ? 0 : new_names(*s, {names.object or 'kTexture'}, static_cast<GLuint>({count}));\n"
            f"  auto* packet = begin_named_{c.name}(*s, {count}, bytes);\n"
            f"  auto* out = reinterpret_cast<GLuint*>(reinterpret_cast<char*>(packet) + padded(sizeof *packet));\n"
            f"  for (GLsizei i = 0; i < {count}; ++i) out[i] = {names.name}[i] = first + static_cast<GLuint>(i);\n"
            f"  s->commit();\n}}")


def gen_begin(c):
    arguments = ["Stream& stream_"] + [f"{p.type} {p.name}" for p in c.scalars] + ["size_t names_bytes"]
    lines = [f"[[maybe_unused]] inline P{c.name}* begin_named_{c.name}({', '.join(arguments)}) {{",
             f"  auto* packet_ = static_cast<P{c.name}*>(stream_.begin(kOp{c.name}, padded(sizeof(P{c.name})) + padded(names_bytes)));"]
    lines += [f"  packet_->{p.name} = {p.name};" for p in c.scalars]
    lines.append("  return packet_;\n}")
    return "\n".join(lines)


def packets_header(registry):
    out = [HEAD, "#pragma once\n#include \"encoder/stream.h\"\n#include \"generated/commands.h\"\n\nnamespace stasis::gl {\n"]
    for c in registry.commands:
        out.append(gen_begin(c) if "gen" in c.rule.flags else begin_function(c))
    for c in registry.commands:
        out.append(f"{c.returns} stub_{c.name}({c.signature});")
    out.append("}  // namespace stasis::gl")
    return "\n".join(out) + "\n"


def encoder(registry):
    out = [HEAD, "#include \"encoder/matrices.h\"\n#include \"encoder/program.h\"\n#include \"generated/packets.h\"\n\nnamespace stasis::gl {\n"]
    for c in registry.commands:
        if "hand" in c.rule.flags:
            continue
        out.append(gen_stub(c) if "gen" in c.rule.flags else stub(c))
    names = sorted(registry.exported)
    out.append("\nconst Exported kExported[] = {")
    out += [f"  {{\"{n}\", reinterpret_cast<void*>(stub_{registry.exported[n].name})}}," for n in names]
    out.append(f"}};\nconst size_t kExportedCount = {len(names)};\n")
    out.append("const char* const kExtensions[] = {")
    out += [f"  \"{e}\"," for e in registry.extensions]
    out.append(f"}};\nconst size_t kExtensionCount = {len(registry.extensions)};\n}}  // namespace stasis::gl")
    return "\n".join(out) + "\n"


def object_argument(c, p, expression):
    if p.object is None:
        return expression
    create = "true" if "bind" in c.rule.flags else "false"
    return f"r.names({p.object}).find({expression}, {create})"


def decode(c):
    lines = [f"void decode_{c.name}([[maybe_unused]] Renderer& r, const Packet& header) {{"]
    if {"own", "local"} & c.rule.flags:  # hand-written in the renderer, or never sent
        return ""
    lines.append(f"  [[maybe_unused]] const auto& p = view<P{c.name}>(header);")
    lines.append(f"  [[maybe_unused]] Payload payload(header, sizeof(P{c.name}));")
    if "gen" in c.rule.flags:
        if c.returns != "void":
            scalars = ", ".join(f"p.{q.name}" for q in c.scalars)
            lines.append("  const auto* names = payload.there<GLuint>(1);")
            lines.append(f"  r.names(kProgram).add(*names, r.gl.{c.name}({scalars}));\n}}")
        else:
            kind = c.outputs[0].object or "kTexture"
            count = c.scalars[0].name
            lines.append(f"  if (p.{count} < 0) return r.gl.{c.name}(p.{count}, nullptr);")
            lines.append(f"  const auto* names = payload.there<GLuint>(size_t(p.{count}));")
            lines.append(f"  std::vector<GLuint> real(static_cast<size_t>(p.{count}));")
            lines.append(f"  r.gl.{c.name}(p.{count}, real.data());")
            lines.append(f"  for (size_t i = 0; i < real.size(); ++i) r.names({kind}).add(names[i], real[i]);\n}}")
        return "\n".join(lines)
    arguments = {}
    sized = sized_inputs(c)
    for p in c.parameters:
        if p.pointers == 0:
            value = f"p.{p.name}"
            if p.base == "GLsync":
                value = f"r.syncs.find({value})"
            arguments[p.name] = object_argument(c, p, value)
    for p in c.inputs:
        base = "void" if p.base == "void" else p.base
        if p not in sized:
            lines.append(f"  const auto* {p.name} = p.{p.name};")
            arguments[p.name] = p.name
            continue
        needed = bytes_needed(c, p)
        if "upload" in c.rule.flags:
            lines.append(f"  const void* {p.name} = nullptr;\n"
                         f"  if (!r.find_pixels(header, payload, {{p.{p.name}, p.{p.name}_bytes}}, {image_of(c)}, {p.name})) return;")
            arguments[p.name] = p.name if base == "void" else f"static_cast<const {base}*>({p.name})"
        elif "offset" in c.rule.flags:
            lines.append(f"  const void* {p.name} = nullptr;\n"
                         f"  if (!r.find_source(payload, {{p.{p.name}, p.{p.name}_bytes}}, {needed}, "
                         f"{'true' if c.name.startswith('CompressedTexImage') else 'false'}, {p.name})) return;")
            arguments[p.name] = p.name if base == "void" else f"static_cast<const {base}*>({p.name})"
        elif p.object:
            lines.append(f"  const auto* {p.name} = payload.array<GLuint>(p.{p.name}_bytes, {needed});\n"
                         f"  auto real_{p.name} = r.names({p.object}).find_all({p.name}, p.{p.name}_bytes);")
            arguments[p.name] = f"real_{p.name}.data()"
        elif p.base == "GLchar" and needed is None:
            lines.append(f"  const char* {p.name} = payload.text(p.{p.name}_bytes);")
            arguments[p.name] = p.name
        elif needed is None:
            fail(f"{c.gl_name}: how much of {p.name} is read is not known, and no hand-written decoder is declared")
        elif base == "void":
            lines.append(f"  const void* {p.name} = payload.bytes(p.{p.name}_bytes, {needed});")
            arguments[p.name] = p.name
        else:
            lines.append(f"  const auto* {p.name} = payload.array<{base}>(p.{p.name}_bytes, {needed});")
            arguments[p.name] = p.name
    call = lambda: f"r.gl.{c.name}({', '.join(arguments[p.name] for p in c.parameters)})"
    if not c.is_query:
        lines.append(f"  {call()};")
        if c.rule.effect == "destroy":
            for p in c.inputs:
                if p.object:
                    lines.append(f"  r.names({p.object}).remove_all({p.name}, p.{p.name}_bytes);")
    elif not c.outputs:
        lines.append(f"  r.answer_result(header, {call()});")
    else:
        for p in c.outputs:
            arguments[p.name] = f"static_cast<{p.base if p.base != 'void' else 'void'}*>(o[{c.outputs.index(p)}])"
        sizes = ", ".join(decoder_capacity(c, p) for p in c.outputs)
        body = call()
        if c.returns != "void":
            body = f"return uint64_t({body})"
        else:
            body = f"{body}; return uint64_t{{0}}"
        lines.append(f"  r.answer_outputs(header, {{{sizes}}}, [&]([[maybe_unused]] void* const* o) {{ {body}; }});")
    lines.append("}")
    return "\n".join(lines)


def of_packet(c, expression):
    """The same with the parameters of the packet."""
    names = {p.name for p in c.scalars}
    return re.sub(r"\b([a-zA-Z_]\w*)\b", lambda m: f"p.{m[1]}" if m[1] in names else m[1], expression)


def bytes_needed(c, p):
    """C++ expression: what the driver reads of an input; None: a text, or not known. A negative count is the driver's
    to refuse."""
    count = count_of(c, p)
    if count is None or p.pointers != 1 or "COMPSIZE" in (p.length or "") and count != "values_of(pname)" and p.name not in c.rule.values:
        return "size_t(std::max<GLsizei>(p.imageSize, 0))" if p.length == "imageSize" else None
    return of_packet(c, re.sub(r"size_t\((\w+)\)", r"count_in(\1)", count)) + f" * {p.element_size}"


def image_of(c):
    """The image that an upload has."""
    names = {p.name for p in c.scalars}
    if c.name == "PolygonStipple":
        return "{32, 32, 1, GL_COLOR_INDEX, GL_BITMAP, false}"
    format_of = "p.format, p.type" if "format" in names else "GL_COLOR_INDEX, GL_BITMAP"
    sides = ", ".join(f"p.{side}" if side in names else "1" for side in ("width", "height", "depth"))
    return f"{{{sides}, {format_of}, {'true' if 'depth' in names else 'false'}}}"


def decoder_capacity(c, p):
    count = c.rule.values.get(p.name) or count_of(c, p)
    if count is None or count == "values_of(pname)":
        return "kAnyOutput"
    return of_packet(c, re.sub(r"size_t\((\w+)\)", r"count_in(\1)", count)) + f" * {p.element_size}"


def decoder(registry):
    out = [HEAD, "#include <algorithm>\n#include \"renderer/renderer.h\"\n#include \"wire/sizes.h\"\n#include \"generated/commands.h\"\n\nnamespace stasis::gl {\nnamespace {\n"]
    for c in registry.commands:
        out.append(decode(c))
    out.append("}  // namespace\n\nconst Decode kDecoders[] = {")
    for c in registry.commands:
        if "own" in c.rule.flags:
            out.append(f"  own_{c.name},")
        elif "local" in c.rule.flags:
            out.append("  nullptr,")
        else:
            out.append(f"  decode_{c.name},")
    out.append("};\nconst char* const kCommandNames[] = {")
    out += [f"  \"{c.gl_name}\"," for c in registry.commands]
    out.append("};\nvoid Functions::load(void* (*find)(const char*)) {")
    for c in registry.commands:
        out.append(f"  {c.name} = reinterpret_cast<decltype({c.name})>(find(\"{c.gl_name}\"));")
    out.append("}\n}  // namespace stasis::gl")
    return "\n".join(out) + "\n"


def functions(registry):
    out = [HEAD, "#pragma once\n#include <GL/gl.h>\n#include <GL/glext.h>\n\nnamespace stasis::gl {\nstruct Renderer;\nstruct Packet;\n",
           "// The driver's own functions.\nstruct Functions {\n  void load(void* (*find)(const char*));"]
    for c in registry.commands:
        types = ", ".join(p.type for p in c.parameters)
        out.append(f"  {c.returns} (*{c.name})({types}) = nullptr;")
    out.append("};\n")
    out += [f"void own_{c.name}(Renderer& r, const Packet& header);" for c in registry.commands if "own" in c.rule.flags]
    out.append("}  // namespace stasis::gl")
    return "\n".join(out) + "\n"


EFFECTS = ("none query draw state object create destroy bind image subimage data subdata program load multiply pushmatrix popmatrix "
           "begin end vertex newlist endlist calllist calllists pushattrib popattrib readback").split()
GROUPS = {"current": 1, "point": 2, "line": 4, "polygon": 8, "stipple": 0x10, "pixel": 0x20, "lighting": 0x40, "fog": 0x80,
          "depth": 0x100, "accum": 0x200, "stencil": 0x400, "viewport": 0x800, "transform": 0x1000, "enable": 0x2000,
          "color": 0x4000, "hint": 0x8000, "eval": 0x10000, "list": 0x20000, "texture": 0x40000, "scissor": 0x80000,
          "multisample": 0x20000000}
FLAGS = {"unit": 1, "eye": 2}


def keeper_field(c, name):
    """Where in a packet a key is: {offset, size}."""
    if name.startswith("@"):
        name = c.parameters[int(name[1:])].name
    found = next((p for p in c.parameters if p.name == name), None)
    if found is None or found.pointers:
        fail(f"{c.gl_name}: there is no argument {name} to be a key")
    return f"{{offsetof(P{c.name}, {name}), {SIZES[found.base]}}}"


def keeper(registry):
    slots = {}
    out = [HEAD, "#include <cstddef>\n#include \"keeper/rules.h\"\n#include \"generated/commands.h\"\n\n"
           "namespace stasis::gl {\n\nconst EffectRule kEffects[] = {"]
    for c in registry.commands:
        rule = c.rule
        if rule.effect not in EFFECTS:
            fail(f"{c.gl_name}: unknown effect {rule.effect}")
        slot = slots.setdefault(rule.values.get("slot", c.name), len(slots) + 1)
        keys = [keeper_field(c, k) for k in rule.values.get("key", "").split(",") if k]
        on, field = rule.values.get("on", "context"), "{0, 0}"
        if ":" in on:
            argument, on = on.split(":")
            field = keeper_field(c, argument)
        elif on in ("texture", "framebuffer", "arbprogram") and any(p.name == "target" for p in c.parameters):
            field = keeper_field(c, "target")
        flags = sum(bit for name, bit in FLAGS.items() if name in rule.flags)
        groups = GROUPS[rule.values["group"]] if "group" in rule.values else 0
        objects = sorted({p.object for p in c.parameters if p.object})
        kind = objects[0] if objects else "kNameTypes"
        out.append(f"  {{Effect::k_{rule.effect}, On::k_{on}, {kind}, {flags}, {slot}, {groups}u, {field}, {len(keys)}, {{{', '.join(keys)}}}}},")
    out.append("};\n}  // namespace stasis::gl")
    return "\n".join(out) + "\n"


def main():
    xml, rules_path, directory = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    registry = Registry(xml, read_rules(rules_path))
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in (("commands.h", wire(registry)), ("packets.h", packets_header(registry)),
                       ("encoder.cpp", encoder(registry)), ("decoder.cpp", decoder(registry)),
                       ("functions.h", functions(registry)), ("keeper.cpp", keeper(registry))):
        path = directory / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


if __name__ == "__main__":
    main()
