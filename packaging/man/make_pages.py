#!/usr/bin/python3
"""Makes man pages of what `stasis --help` and `stasis VERB --help` say.

    make_pages.py STASIS VERSION DIRECTORY"""
import pathlib
import re
import subprocess
import sys


def roff(text):
    """Escapes what roff would take for its own."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line.startswith((".", "'")) else line for line in text.split("\n"))


class Help:
    """The parts of CLI11's help: summary, usage, lists with a heading, and the text below them."""

    def __init__(self, text):
        lines = text.rstrip().split("\n")
        usage = next(i for i, line in enumerate(lines) if line.startswith("Usage:"))
        self.summary = " ".join(line.strip() for line in lines[:usage] if line.strip())
        self.usage = lines[usage].removeprefix("Usage:").strip()
        self.lists = {}
        rest = usage + 1
        entries = None
        for i in range(usage + 1, len(lines)):
            line = lines[i]
            if re.fullmatch(r"(Positionals|Options|Subcommands):", line):
                entries = self.lists.setdefault(line[:-1], [])
            elif entries is not None and (found := re.match(r" {2}(\S.*?)(?: {2,}(.*))?$", line)):
                entries.append([found[1], found[2] or ""])
            elif entries and (found := re.match(r" {10,}(\S.*)$", line)):
                entries[-1][1] = (entries[-1][1] + " " + found[1]).strip()
            elif line.strip():
                break
            rest = i + 1
        self.below = "\n".join(lines[rest:]).strip("\n")


def render_below(text):
    """Paragraphs; a heading with a colon begins a section when what follows is indented."""
    out = []
    for block in re.split(r"\n\s*\n", text):
        lines = block.split("\n")
        heading = re.fullmatch(r"(\w[\w ]*?)(?: \(([^)]*)\))?:", lines[0])
        if heading and len(lines) > 1 and all(line.startswith("  ") for line in lines[1:]):
            out.append(f".SH {heading[1].upper()}")
            if heading[2]:
                out.append(roff(heading[2][0].upper() + heading[2][1:]) + ".\n.PP")
            out += [".nf", roff("\n".join(line[2:] for line in lines[1:])), ".fi"]
        elif block.strip():
            out += [".PP", roff(block)]
    return out


def page(name, help_, version, see):
    out = [f'.TH "{name.upper()}" "1" "" "stasis {version}" "User Commands"', ".SH NAME",
           f"{roff(name)} \\- {roff(help_.summary[0].lower() + help_.summary[1:].rstrip('.'))}", ".SH SYNOPSIS",
           f".B {roff(help_.usage)}"]
    below = render_below(help_.below)
    first_section = next((i for i, line in enumerate(below) if line.startswith(".SH")), len(below))
    if below[:first_section]:
        out += [".SH DESCRIPTION"] + below[:first_section]
    titles = {"Positionals": "ARGUMENTS", "Options": "OPTIONS", "Subcommands": "COMMANDS"}
    for heading, entries in help_.lists.items():
        out.append(f".SH {titles[heading]}")
        for left, right in entries:
            left = f"stasis-{left}(1)" if heading == "Subcommands" else left
            out += [".TP", f".B {roff(left)}", roff(right)]
    out += below[first_section:]
    out += [".SH SEE ALSO", ",\n".join(f"{roff(other)}({section})" for other, section in see if other != name)]
    return "\n".join(out) + "\n"


def main():
    stasis, version, directory = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    directory.mkdir(parents=True, exist_ok=True)

    def ask(*verb):
        return Help(subprocess.run([stasis, *verb, "--help"], check=True, capture_output=True, text=True).stdout)

    top = ask()
    verbs = [left.split()[0] for left, _ in top.lists["Subcommands"]]
    see = [("stasis", 1)] + [(f"stasis-{verb}", 1) for verb in verbs] + [("stasis-session", 7)]
    for verb in verbs:
        (directory / f"stasis-{verb}.1").write_text(page(f"stasis-{verb}", ask(verb), version, see))
    # Last: its time stamp says that all are made.
    (directory / "stasis.1").write_text(page("stasis", top, version, see))


if __name__ == "__main__":
    main()
