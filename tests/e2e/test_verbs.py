#!/usr/bin/python3
"""list, inspect, verify, rm and check: what they print for people and for programs, and their exit codes."""
import json
import os
import pathlib
import re
import subprocess
import tempfile
import time
import unittest

from harness import ProgramTest, wait_for

PYTHON = "/usr/bin/python3"
OK, USAGE, NOT_FOUND, REFUSED, DAMAGED = 0, 2, 3, 4, 7

# Two processes that share a pipe with something in it and a piece of memory, and a megabyte that is one's own.
PROGRAM = """
import mmap, os, time
shared = mmap.mmap(-1, 1 << 20)
shared[0] = 1
own = bytearray(os.urandom(1 << 20))
r, w = os.pipe()
os.write(w, b"12345")
os.fork()
while True:
    time.sleep(1)
"""


class Verbs(ProgramTest):
    def setUp(self):
        super().setUp()
        self.box.launch("s", PYTHON, "-c", PROGRAM)
        wait_for("both processes are there", lambda: len((self.box.session("s") or {"processes": []})["processes"]) == 2)

    def checkpoint(self, *flags, name="s"):
        self.box.stasis("checkpoint", name, *flags)
        return self.list()[-1]

    def list(self, *args):
        return json.loads(self.box.stasis("list", *args, "--json").stdout)

    def inspect(self, what="s"):
        return json.loads(self.box.stasis("inspect", what, "--json").stdout)

    def exits(self, code, *args):
        done = self.box.stasis(*args, check=False)
        self.assertEqual(done.returncode, code, f"{args}: {done.stdout}{done.stderr}")
        if code:
            self.assertTrue(done.stderr.startswith("stasis: ") or "--json" in args or code == USAGE, done.stderr)
        return done

    def test_list(self):
        self.assertEqual(self.list(), [])
        self.assertEqual(self.list("s"), [])  # a session that was not saved yet
        self.exits(NOT_FOUND, "list", "nobody")
        self.checkpoint("--tag", "the first")
        self.checkpoint()
        first, second = self.list("s")
        self.assertEqual((first["session"], first["id"], first["tag"]), ("s", 1, "the first"))
        self.assertEqual((second["id"], second["tag"], second["processes"]), (2, "", 2))
        self.assertRegex(first["created"], r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertGreater(first["stored_bytes"], 1 << 20)
        self.assertGreaterEqual(first["logical_bytes"], first["stored_bytes"])
        self.assertGreater(first["pause_ms"], 0)
        self.assertTrue(os.path.isdir(first["directory"]))
        self.assertTrue(first["usable"])
        self.assertIn("the first", self.box.stasis("list").stdout)

    def test_a_store_of_its_own_is_remembered(self):
        store = self.box.dir / "elsewhere"
        with open(os.devnull, "w") as output:
            self.box.stasis("launch", "--name", "t", "--store", store, "--background", "--", "sleep", "1000", stdout=output)
        self.box.stasis("checkpoint", "t")
        self.checkpoint()
        self.assertEqual(sorted(entry["session"] for entry in self.list()), ["s", "t"])
        self.assertEqual(self.list("t")[0]["directory"], f"{store}/t/1")
        self.assertEqual([entry["session"] for entry in self.list("--store", store)], ["t"])
        self.exits(OK, "verify", "t")
        self.exits(OK, "inspect", "t@1")
        self.exits(OK, "rm", "t@1")
        self.exits(NOT_FOUND, "verify", "t")

    def test_inspect(self):
        self.checkpoint("--tag", "here")
        image = self.inspect()
        self.assertEqual((image["session"], image["id"], image["tag"]), ("s", 1, "here"))
        self.assertEqual(image["command"][0], PYTHON)
        parent, child = image["processes"]
        self.assertEqual(child["parent"], parent["pid"])
        self.assertEqual(image["root_pid"], parent["pid"])
        self.assertNotEqual(parent["memory"], child["memory"])
        pipes = [d for d in image["descriptions"] if d["kind"] == "pipe" and "5 bytes" in d["summary"]]
        self.assertEqual(len(pipes), 1, image["descriptions"])
        self.assertTrue(pipes[0]["shared"])
        self.assertEqual({owner["pid"] for owner in pipes[0]["owners"]}, {parent["pid"], child["pid"]})
        shared = [m for m in image["shared_memories"] if m["bytes"] == 1 << 20]
        self.assertEqual(len(shared), 1, image["shared_memories"])
        self.assertEqual(shared[0]["pids"], [parent["pid"], child["pid"]])
        self.assertGreaterEqual(image["memories"][parent["memory"]]["page_bytes"], 1 << 20)
        self.assertIn("rw-", {m["protection"] for m in image["memories"][0]["mappings"]})

        text = self.box.stasis("inspect", "s", "--mappings").stdout
        for words in ("Checkpoint s@1", "here", "Processes (2)", "shared memory", "pipe", "stack"):
            self.assertIn(words, text)

    def test_references(self):
        first = self.checkpoint()
        self.checkpoint()
        self.assertEqual(self.inspect("s")["id"], 2)
        self.assertEqual(self.inspect("s@1")["id"], 1)
        self.assertEqual(self.inspect(first["directory"] + "/")["id"], 1)
        for verb in ("inspect", "verify", "rm"):
            self.exits(NOT_FOUND, verb, "s@3")
            self.exits(NOT_FOUND, verb, "nobody")
            self.exits(NOT_FOUND, verb, "/nowhere")
            self.exits(USAGE, verb, "s@x")
            self.exits(USAGE, verb)

    def test_verify(self):
        entry = self.checkpoint()
        self.assertIn("good", self.exits(OK, "verify", "s").stdout)
        pages = max((os.path.join(entry["directory"], name) for name in os.listdir(entry["directory"])), key=os.path.getsize)
        with open(pages, "r+b") as file:
            file.seek(-5000, os.SEEK_END)
            byte = file.read(1)[0]
            file.seek(-5000, os.SEEK_END)
            file.write(bytes([byte ^ 1]))
        done = self.exits(DAMAGED, "verify", "s")
        self.assertIn(os.path.basename(pages), done.stderr)
        self.assertRegex(done.stderr, r"offset \d+")
        self.assertEqual(done.stdout, "")
        (result,) = json.loads(self.exits(DAMAGED, "verify", "s", "--json").stdout)
        self.assertFalse(result["ok"])
        self.assertIn("offset", result["error"])
        # Of several each is looked at. What shares the damaged file is damaged, too.
        self.checkpoint("--full")
        results = json.loads(self.exits(DAMAGED, "verify", "s@1", "s@2", "s@3", "--json").stdout)
        self.assertEqual([result["ok"] for result in results], [False, True, False])

    def test_restart_says_what_it_did(self):
        self.box.stasis("checkpoint", "s", "--stop")
        self.exits(USAGE, "restart", "s", "--json")  # in the foreground the output is the program's
        for timer in [], ["--interval", "1h"]:
            begun = time.monotonic()
            said = json.loads(self.box.stasis("restart", "s", "--background", "--json", *timer).stdout)
            took = (time.monotonic() - begun) * 1e9
            self.assertEqual((said["session"], said["processes"]), ("s", 2))
            self.assertEqual(said["directory"], self.list()[-1]["directory"])
            self.assertTrue(0 < said["engine_ns"] < took, said)
            self.assertEqual(len(self.box.session("s")["processes"]), 2)
            self.box.stasis("signal", "s", "KILL", "--all")
            self.box.assert_gone("s")

    def test_list_says_what_is_unusable(self):
        entry = self.checkpoint()
        os.truncate(os.path.join(entry["directory"], "manifest"), 100)
        (entry,) = self.list()
        self.assertFalse(entry["usable"])
        self.assertIn("manifest", entry["problem"])
        self.assertIn("unusable", self.box.stasis("list").stdout)
        self.exits(DAMAGED, "inspect", "s")
        self.exits(OK, "rm", "s")
        self.assertEqual(self.list(), [])

    def test_rm(self):
        for _ in range(4):
            self.checkpoint()
        self.exits(OK, "rm", "s@2")
        self.assertEqual([entry["id"] for entry in self.list()], [1, 3, 4])
        self.exits(USAGE, "rm", "s")  # which?
        self.exits(OK, "rm", "--force", "s")
        self.assertEqual([entry["id"] for entry in self.list()], [1, 3])
        self.exits(NOT_FOUND, "rm", "s@2")
        self.exits(OK, "rm", "--force", "s@2")
        self.exits(REFUSED, "rm", self.box.home)  # no checkpoint
        self.exits(OK, "rm", "--all", "s")
        self.assertEqual(self.list(), [])
        self.exits(NOT_FOUND, "rm", "--all", "s")
        # The session goes on and is saved again.
        self.assertEqual(self.checkpoint()["processes"], 2)

    def test_check(self):
        done = self.box.stasis("check", "--json")
        found = json.loads(done.stdout)
        self.assertTrue(found["usable"])
        names = {check["name"] for check in found["checks"]}
        self.assertLessEqual({"user namespace", "exact pids", "kcmp", "page scan", "store", "reflinks"}, names)
        for check in found["checks"]:
            self.assertIn(check["state"], ("ok", "partial", "missing"))
            self.assertTrue(check["reason"], check)
            self.assertEqual(bool(check["remedy"]), check["state"] != "ok", check)
        self.assertTrue(re.search(r"^exact pids +ok", self.box.stasis("check").stdout, re.MULTILINE))

    def test_support_table_is_what_is_documented(self):
        document = pathlib.Path(__file__).resolve().parents[2] / "docs/support.md"
        self.assertEqual(self.box.stasis("check", "--support").stdout, document.read_text())



class Help(ProgramTest):
    def verbs(self):
        listed = self.box.stasis("--help").stdout.partition("Subcommands:")[2].partition("\n\n")[0]
        return re.findall(r"^  (\w+)", listed, re.MULTILINE)

    def test_every_verb_has_examples_and_exit_codes(self):
        verbs = self.verbs()
        self.assertGreaterEqual(set(verbs), {"launch", "checkpoint", "restart", "ps", "attach", "signal", "list", "inspect",
                                             "verify", "rm", "check"})
        for verb in verbs:
            text = self.box.stasis(verb, "--help").stdout
            self.assertRegex(text, r"Examples?:\n", verb)
            self.assertIn(f"  stasis {verb}", text)
            for code in range(9):
                self.assertRegex(text.partition("Exit codes")[2], rf"(?m)(^  |  ){code} \w", f"{verb}: exit code {code}")
        for verb in ("ps", "list", "inspect", "verify", "check", "checkpoint"):
            self.assertIn("--json", self.box.stasis(verb, "--help").stdout, verb)

    def test_wrong_usage(self):
        for line in (["nonsense"], ["list", "--nonsense"], ["checkpoint"], []):
            done = self.box.stasis(*line, check=False)
            self.assertEqual(done.returncode, USAGE, line)
            self.assertTrue(done.stderr.strip(), line)

    def test_install(self):
        """Command, man pages of all verbs, completion: all that cmake --install is to bring."""
        build = os.environ.get("STASIS_BUILD")
        if not build or not os.path.exists(os.path.join(build, "cmake_install.cmake")):
            self.skipTest("no build tree")
        with tempfile.TemporaryDirectory() as place:
            subprocess.run(["cmake", "--install", build, "--prefix", place], check=True, stdout=subprocess.DEVNULL)
            version = subprocess.run([f"{place}/bin/stasis", "--version"], capture_output=True, text=True).stdout
            self.assertRegex(version, r"\d+\.\d+")
            pages = set(os.listdir(f"{place}/share/man/man1"))
            self.assertEqual(pages, {"stasis.1"} | {f"stasis-{verb}.1" for verb in self.verbs()})
            for page in pages:
                with open(f"{place}/share/man/man1/{page}") as file:
                    text = file.read()
                for section in (".TH", ".SH NAME", ".SH SYNOPSIS", ".SH EXAMPLE", ".SH EXIT CODES"):
                    self.assertIn(section, text, page)
            self.assertTrue(os.path.exists(f"{place}/share/man/man7/stasis-session.7"))
            completion = f"{place}/share/bash-completion/completions/stasis"
            done = subprocess.run(["bash", "-c", f". {completion} && complete -p stasis"], capture_output=True, text=True)
            self.assertIn("stasis", done.stdout, done.stderr)
            with open(completion) as file:
                text = file.read()
            for verb in self.verbs():
                self.assertRegex(text, rf"\b{verb}\b")


if __name__ == "__main__":
    unittest.main()
