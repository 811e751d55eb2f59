#!/usr/bin/python3
"""Documents that are made from the sources are what the sources make."""
import difflib
import hashlib
import pathlib
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GL_XML = pathlib.Path("/usr/share/khronos-api/gl.xml")


class Documents(unittest.TestCase):
    @unittest.skipUnless(GL_XML.exists(), "the Khronos registry is missing (scripts/setup)")
    def test_opengl_support(self):
        """If this fails: python3 plugins/gl/registry/document.py GL_XML plugins/gl/registry/commands.rules > docs/opengl-support.md"""
        registry = ROOT / "plugins/gl/registry"
        made = subprocess.run([sys.executable, "-B", registry / "document.py", GL_XML, registry / "commands.rules"],
                              capture_output=True, text=True, check=True).stdout
        kept = (ROOT / "docs/opengl-support.md").read_text()
        if hashlib.sha256(GL_XML.read_bytes()).hexdigest()[:16] not in kept:
            self.skipTest("docs/opengl-support.md was made from another registry")
        difference = difflib.unified_diff(kept.splitlines(), made.splitlines(), "docs/opengl-support.md", "made now", n=0, lineterm="")
        self.assertEqual("\n".join(difference), "")


if __name__ == "__main__":
    unittest.main()
