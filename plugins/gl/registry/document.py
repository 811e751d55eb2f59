#!/usr/bin/python3
"""Prints docs/opengl-support.md: what is covered of OpenGL, and what becomes of each command.

    document.py GL_XML RULES
"""

import collections
import hashlib
import pathlib
import sys
import textwrap

import generate

APIS = {"gl": "OpenGL", "gles2": "OpenGL ES"}
# What the keeper does with a command of each effect.
KEPT = {
    "state": "State of the context: the last call is kept, one for each key (a capability, a target, a texture unit).",
    "object": "State of an object: the last call is kept, one for each key, as long as the object lives.",
    "bind": "A binding: the last one is kept.",
    "create": "Makes an object: kept as long as the object lives.",
    "destroy": "Ends an object: it and all that was kept of it go, once nothing needs it any more.",
    "image": "An image of a texture: kept until the next one of the same level.",
    "subimage": "A part of an image: kept until the image, or the same part, is given anew.",
    "data": "All of a buffer: kept as what the buffer holds.",
    "subdata": "A part of a buffer: written into what is kept of the buffer.",
    "program": "Steps of making a program: kept in their order.",
    "load": "The current matrix: kept; the calls that made the one before go.",
    "multiply": "Multiplied with the current matrix: kept until that is loaded or popped.",
    "pushmatrix": "The stack of matrices: kept until it is popped.",
    "popmatrix": "The stack of matrices: the level goes, with all that was kept of it.",
    "pushattrib": "The stack of attributes: kept until it is popped.",
    "popattrib": "The stack of attributes: the state of before is kept again.",
    "newlist": "A display list: kept with all its calls until it is made anew or deleted.",
    "endlist": "The end of a display list.",
    "calllist": "The state that the list changes is kept as if its calls had been made.",
    "calllists": "The state that the lists change is kept as if their calls had been made.",
    "begin": "A primitive: kept with all its calls until it ends.",
    "end": "The end of a primitive.",
    "vertex": "A part of a primitive, kept as long as that.",
    "draw": "Changes pixels: not kept. What is drawn into is marked, and read back at a checkpoint where no later call tells it.",
    "readback": "The driver writes what only it can tell: the image or buffer is marked, and read back at a checkpoint.",
    "query": "A question: not kept.",
    "none": "Nothing that a driver would have to be told again: not kept.",
}


def wrapped(names, first=""):
    return textwrap.fill(", ".join(sorted(names)), 150, initial_indent=first, subsequent_indent=" " * len(first), break_long_words=False,
                         break_on_hyphens=False)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]


def by_vendor(extensions):
    found = collections.defaultdict(list)
    for name in extensions:
        found[name.split("_")[1]].append(name)
    return [wrapped(names, "- ") for _, names in sorted(found.items())]


def document(registry, digest):
    covered = registry.exported
    out = ["# What is covered of OpenGL", "",
           "Made by `plugins/gl/registry/document.py` from the Khronos registry and `plugins/gl/registry/commands.rules`, which the",
           "encoder, the renderer and the keeper are made from, too. [opengl.md](opengl.md) says how it works. The registry is the",
           f"one whose SHA-256 begins with {digest}.", "",
           "## Versions", "",
           "The newest versions that a program is offered are "
           + " and ".join(f"{APIS[api]} {number}" for api, number in generate.VERSIONS.items())
           + ". Of newer ones only what their extensions have.", ""]
    rows = []
    for (api, number), commands in sorted(registry.versions.items()):
        absent = [name for name in commands if name not in covered]
        offered = number <= generate.VERSIONS[api]
        rows.append((f"{APIS[api]} {number}", "yes" if offered else "no", len(commands), len(commands) - len(absent),
                     ", ".join(absent) if offered else ""))
    out += table(("version", "offered", "commands that it adds", "covered", "absent"), rows)
    with_commands = [e for e in registry.extensions if registry.all_extensions.get(e)]
    without = [e for e in registry.extensions if e not in with_commands]
    out += ["", "## Extensions", "",
            f"A program is offered those of these {len(registry.extensions)} that the driver has.", ""]
    out += table(("extension", "commands"), [(e, len(registry.all_extensions[e])) for e in with_commands])
    out += ["", f"{len(without)} have no commands:", ""] + by_vendor(without)
    own = {c.gl_name for c in registry.commands}
    aliases = {name: c for name, c in covered.items() if name not in own}
    out += ["", "## Commands", "",
            f"{len(own)} commands, by what becomes of them in the keeper's log, and {len(aliases)} other names of them."]
    for effect, said in KEPT.items():
        of_effect = [c for c in registry.commands if c.rule.effect == effect]
        out += ["", f"### {effect}: {len(of_effect)}", "", said, "", wrapped(c.gl_name for c in of_effect)]
    out += ["", f"### Other names: {len(aliases)}", "",
            wrapped(f"{name} ({c.gl_name})" for name, c in aliases.items())]
    absent = {e: c for e, c in registry.all_extensions.items() if e not in registry.extensions}
    promises = sorted(e for e in absent if e in generate.NEVER)
    out += ["", "## What is absent", "",
            "Neither in the version nor in the extension string, and our library gives GLVND no function for it.", "",
            "Commands of versions that are offered:", "",
            wrapped({name for (api, number), commands in registry.versions.items() if number <= generate.VERSIONS[api]
                     for name in commands if name not in covered}), "",
            "Extensions that would promise more than their commands:", "", wrapped(promises), "",
            f"{len(absent) - len(promises)} extensions of which commands are not covered:", ""]
    out += by_vendor(e for e in absent if e not in promises)
    return "\n".join(out) + "\n"


def main():
    xml, rules = sys.argv[1], generate.read_rules(pathlib.Path(sys.argv[2]))
    digest = hashlib.sha256(pathlib.Path(xml).read_bytes()).hexdigest()[:16]
    sys.stdout.write(document(generate.Registry(xml, rules), digest))


if __name__ == "__main__":
    main()
