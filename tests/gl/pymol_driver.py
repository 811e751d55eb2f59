"""Runs in PyMOL: a peptide as cartoon, sticks, spheres and a transparent surface."""
import os
import sys
import threading

from pymol import cmd

sys.path.insert(0, os.path.dirname(os.environ["COMMANDS_MODULE"]))
import commands  # noqa: E402


def execute(command, picture):
    cmd.do(command)
    cmd.do(f"png {picture}, ray=0")


cmd.load("/usr/share/pymol/data/demo/pept.pdb")
cmd.viewport(300, 200)
for line in ("hide everything", "show cartoon", "show sticks, resi 1-4", "show spheres, resi 8", "show surface, resi 10-13",
             "set transparency, 0.3", "bg_color grey30"):
    cmd.do(line)
threading.Thread(target=commands.serve, args=(execute,), daemon=True).start()
