#!/usr/bin/python3
"""Debian's package: what is in it, and that it works where it is unpacked. Packs what has been built, and builds
nothing."""
import os
import pathlib
import re
import shutil
import subprocess
import unittest

import harness
from harness import Sandbox, wait_for

BUILD = pathlib.Path(os.environ.get("STASIS_BUILD", pathlib.Path(__file__).resolve().parents[2] / "build"))
CONFIGURATION = BUILD / "CPackConfig.cmake"
VERBS = re.findall(r"^  ([a-z]+) ", subprocess.run([harness.BINARY, "--help"], capture_output=True, text=True,
                                                   check=True).stdout.split("Subcommands:")[1].split("\n\n")[0], re.M)


def output(*line):
    return subprocess.run(list(map(str, line)), capture_output=True, text=True, check=True).stdout


@unittest.skipUnless(shutil.which("cpack") and shutil.which("dpkg-deb"), "cpack or dpkg-deb is not installed")
@unittest.skipUnless(CONFIGURATION.exists() and (BUILD / "packaging/man/stasis.1").exists(), "the parts are not built")
class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.box = Sandbox()
        cls.addClassCleanup(cls.box.close)
        before = (BUILD / "stasis").stat().st_mtime_ns
        packed = cls.box.dir / "packed"
        done = subprocess.run(["cpack", "-G", "DEB", "--config", CONFIGURATION, "-B", packed, "-D",
                               "CPACK_DEBIAN_COMPRESSION_TYPE=gzip"], cwd=BUILD, capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(done.stdout + done.stderr)
        assert (BUILD / "stasis").stat().st_mtime_ns == before, "it was built anew"
        (cls.package,) = packed.glob("*.deb")
        cls.root = cls.box.dir / "root"
        output("dpkg-deb", "-x", cls.package, cls.root)
        cls.box.binary = cls.root / "usr/bin/stasis"
        os.chmod(cls.root, 0o755)

    def field(self, name):
        return output("dpkg-deb", "-f", self.package, name).strip()

    def test_control(self):
        architecture = output("dpkg", "--print-architecture").strip()
        version = self.box.run(self.box.binary, "--version").stdout.strip()
        self.assertEqual(self.field("Package"), "stasis")
        self.assertEqual((self.field("Version"), self.field("Architecture")), (version, architecture))
        self.assertEqual(self.package.name, f"stasis_{version}_{architecture}.deb")
        # By dpkg-shlibdeps, of the parts that are not static.
        depends = self.field("Depends")
        parts = {path.name for path in (self.root / "usr/lib").glob("*/stasis/*")}
        self.assertLessEqual({"libGLX_stasis.so.0", "stasis-gl-server", "stasis-gl-renderer", "libstasis-kvm.so"}, parts)
        for library in ("libc6 (>=", "libx11-6", "libglx0"):
            self.assertIn(library, depends)
        self.assertNotIn("libprotobuf", depends)
        self.assertNotIn("libzstd", depends)
        self.assertTrue(self.field("Maintainer") and self.field("Description"))
        self.assertEqual(sorted(p.name for p in self.box.dir.glob("control/*")), [])
        output("dpkg-deb", "-e", self.package, self.box.dir / "control")
        # Nothing is run when it is installed.
        self.assertEqual(sorted(p.name for p in (self.box.dir / "control").iterdir()), ["control", "md5sums"])

    def test_files(self):
        for line in output("dpkg-deb", "-c", self.package).splitlines():
            mode, owner, _, _, _, path = line.split(None, 5)
            self.assertEqual(owner, "root/root", line)
            self.assertIn(mode, ("drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x", "lrwxrwxrwx"), line)
            self.assertTrue(path.startswith("./usr/"), line)
        share = self.root / "usr/share"
        self.assertTrue((share / "doc/stasis/copyright").exists())
        pages = {page.name for page in (share / "man").rglob("*.[17]")}
        self.assertEqual(pages, {"stasis.1", "stasis-session.7"} | {f"stasis-{verb}.1" for verb in VERBS})
        said = output("file", "-b", self.box.binary) if shutil.which("file") else "statically linked"
        self.assertRegex(said, "statically linked|static-pie")
        self.assertNotIn("not stripped", said)

    def test_manual(self):
        page = self.root / "usr/share/man/man1/stasis-export.1"
        text = page.read_text()
        for words in (".SH NAME", "stasis\\-export", "\\-\\-self\\-contained", ".SH EXAMPLES", "stasis\\-import(1)"):
            self.assertIn(words, text)
        if shutil.which("man"):
            shown = subprocess.run(["man", "--warnings", "-l", page], capture_output=True, text=True, check=True,
                                   env={**os.environ, "MANWIDTH": "100", "LC_ALL": "C.UTF-8"})
            self.assertIn("--self-contained", shown.stdout)
            self.assertEqual(shown.stderr, "")

    def test_bash_completion(self):
        script = self.root / "usr/share/bash-completion/completions/stasis"
        said = output("bash", "-c", f"""PATH={self.root}/usr/bin:$PATH
            _init_completion() {{ words=(stasis "${{given[@]}}"); cword=$((${{#words[@]}} - 1)); cur=${{words[cword]}}
                                  prev=${{words[cword-1]}}; }}
            . {script}
            complete -p stasis
            for line in "" "export --se" "import --na"; do
                IFS=' ' read -ra given <<< "$line"
                [[ $line ]] || given=("")
                COMPREPLY=(); _stasis; echo "${{COMPREPLY[*]}}"
            done""").splitlines()
        self.assertEqual(said[0], "complete -F _stasis stasis")
        self.assertEqual(set(said[1].split()) - {"--help", "--version"}, set(VERBS))
        self.assertEqual(said[2:], ["--self-contained", "--name"])

    @unittest.skipUnless(shutil.which("zsh"), "zsh is not installed")
    def test_zsh_completion(self):
        directory = self.root / "usr/share/zsh/vendor-completions"
        said = output("zsh", "-f", "-c", f"""path=({self.root}/usr/bin $path); fpath=({directory} $fpath)
            autoload -Uz compinit && compinit -D -u && print -- $_comps[stasis]
            source {directory}/_stasis
            print -- ${{(f)"$(_stasis_verbs)"}}
            _stasis_options export""").splitlines()
        self.assertEqual(said[0], "_stasis")
        self.assertEqual(set(re.findall(r"(?:^| )([a-z]+):[A-Z]", said[1])), set(VERBS), said[1])
        options = dict(line.split(":", 1) for line in said[2:])
        for option in ("--help", "--self-contained", "--level", "--store", "--json", "--force"):
            self.assertTrue(options[option].strip(), options)
        self.assertRegex(options["--self-contained"], r"^Also the files")

    def test_works_where_it_is_unpacked(self):
        check = self.box.stasis("check", check=False)
        self.assertEqual(check.returncode, 0, check.stdout + check.stderr)
        self.assertIn("stasis works here.", check.stdout)
        with open(os.devnull, "w") as nothing:
            self.box.stasis("launch", "--name", "s", "--background", "--", "sleep", "1000", stdout=nothing)
            wait_for("it runs", lambda: (self.box.session("s") or {}).get("processes"))
            self.box.save_and_kill("s")
            self.box.stasis("export", "s", self.box.dir / "s.stasis")
            self.box.stasis("import", self.box.dir / "s.stasis", "--name", "t")
            self.box.stasis("restart", "t", "--background", stdout=nothing)
        self.box.stasis("signal", "t", "KILL")

    @unittest.skipUnless(os.getuid() == 0, "dpkg installs as root")
    def test_is_installed_and_removed(self):
        root = self.box.dir / "installed"
        (root / "var/lib/dpkg/info").mkdir(parents=True)
        (root / "var/lib/dpkg/updates").mkdir()
        (root / "var/lib/dpkg/status").touch()
        dpkg = ["dpkg", f"--root={root}", "--force-depends", "--log=/dev/null"]
        output(*dpkg, "--install", self.package)
        self.assertIn("install ok installed", output("dpkg-query", f"--admindir={root}/var/lib/dpkg", "-s", "stasis"))
        self.assertEqual(output("dpkg", f"--root={root}", "--verify", "stasis"), "")
        self.assertEqual(output(root / "usr/bin/stasis", "--version"), output(self.box.binary, "--version"))
        output(*dpkg, "--purge", "stasis")
        self.assertFalse((root / "usr").exists())


if __name__ == "__main__":
    unittest.main()
