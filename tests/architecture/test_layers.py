#!/usr/bin/python3
"""src/ links only downwards. Each directory may include headers of itself and of the directories named here; an edge
that is missing from the table is a mistake in the code, or a decision to be written down in docs/architecture.md."""
import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src"

# directory -> directories whose headers it may include
ALLOWED = {
    "base": [],
    "kernel": ["schema", "base"],
    "remote": ["kernel", "base"],
    "freeze": ["remote", "kernel", "base"],
    "resource": ["remote", "kernel", "schema", "base"],
    "image": ["kernel", "schema", "base"],
    "picture": ["image", "schema", "base"],
    "inspect": ["freeze", "resource", "image", "remote", "kernel", "schema", "base"],
    "checkpoint": ["plugin", "picture", "inspect", "freeze", "resource", "image", "remote", "kernel", "schema", "base"],
    "restore": ["resource", "image", "remote", "kernel", "schema", "base"],
    "plugin": ["resource", "image", "remote", "kernel", "schema", "base"],
    "session": ["checkpoint", "restore", "inspect", "image", "freeze", "plugin", "resource", "remote", "kernel",
                "schema", "base"],
    "cli": ["session", "checkpoint", "restore", "inspect", "image", "freeze", "plugin", "resource", "remote", "kernel",
            "schema", "base"],
}
# Libraries for people belong where people are: the engine itself must not depend on them.
ONLY_IN = {"CLI/": ["cli", "session"], "nlohmann/": ["cli", "session"], "png.h": ["picture"], "zstd.h": ["image"]}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]', re.M)


def sources():
    return sorted(p for p in SOURCES.rglob("*") if p.suffix in (".h", ".cpp", ".S", ".inc"))


class Layers(unittest.TestCase):
    def test_table_is_acyclic(self):
        done = set()
        while len(done) < len(ALLOWED):
            free = [d for d, below in ALLOWED.items() if d not in done and set(below) - {"schema"} <= done]
            self.assertTrue(free, f"a cycle among {set(ALLOWED) - done}")
            done.update(free)

    def test_every_directory_is_in_the_table(self):
        found = {p.name for p in SOURCES.iterdir() if p.is_dir()}
        self.assertEqual(found - set(ALLOWED), set())

    def test_includes_go_down(self):
        wrong = []
        for path in sources():
            directory = path.relative_to(SOURCES).parts[0]
            for bracket, name in INCLUDE.findall(path.read_text()):
                where = f"{path.relative_to(ROOT)} includes {name}"
                for library, allowed in ONLY_IN.items():
                    if name.startswith(library) and directory not in allowed:
                        wrong.append(f"{where}: only in {', '.join(allowed)}")
                if bracket == "<":
                    continue
                target = name.split("/")[0]
                if target == "stasis":  # the public headers, include/stasis
                    continue
                if "/" not in name or target not in list(ALLOWED) + ["schema"]:
                    wrong.append(f"{where}: name headers from src/, as in \"base/fd.h\"")
                elif target != directory and target not in ALLOWED.get(directory, []):
                    wrong.append(f"{where}: {directory} may not know {target}")
        self.assertEqual(wrong, [], "\n".join(wrong))

    def test_public_headers_stand_alone(self):
        for path in (ROOT / "include").rglob("*.h"):
            for bracket, name in INCLUDE.findall(path.read_text()):
                self.assertFalse(bracket == '"' and not name.startswith("stasis/"), f"{path} includes {name}")

    def test_plugins_see_only_the_public_headers(self):
        for path in (ROOT / "plugins").rglob("*"):
            if path.suffix not in (".h", ".cpp"):
                continue
            for bracket, name in INCLUDE.findall(path.read_text()):
                self.assertFalse(bracket == '"' and name.split("/")[0] in ALLOWED, f"{path} includes {name}")

    def test_no_file_holds_two_concepts(self):
        long = [f"{p.relative_to(ROOT)}: {n} lines" for p in sources()
                if (n := len(p.read_text().splitlines())) > 650]
        self.assertEqual(long, [])


if __name__ == "__main__":
    sys.exit(unittest.main())
