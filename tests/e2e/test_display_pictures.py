#!/usr/bin/python3
"""The picture of its screen that a checkpoint carries, and the page of all of them."""
import base64
import html.parser
import json
import re
import unittest
from pathlib import Path

from display_harness import decode_png, DisplayTest, SIZE
from harness import find_program


class Page(html.parser.HTMLParser):
    """What a browser would see: the articles with their texts and pictures, and whatever leads out of the page."""

    def __init__(self, text):
        super().__init__()
        self.articles, self.foreign, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "article":
            self.articles.append({"id": attributes["id"], "text": "", "pictures": []})
        if tag == "img":
            kind, data = attributes["src"].split(",", 1)
            self.foreign += [] if kind == "data:image/png;base64" else [attributes["src"]]
            self.articles[-1]["pictures"].append(base64.b64decode(data, validate=True))
        if tag in ("script", "link", "iframe") or "href" in attributes:
            self.foreign.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.articles:
            self.articles[-1]["text"] += data


class Pictures(DisplayTest):
    def saved(self):
        """Three checkpoints of a program that stands still, the second one with a tag."""
        find_program("xcalc")
        self.launch("s", "xcalc", "-geometry", "+0+0")
        shown = self.still_screen("s")
        for tag in [], ["--tag", "a <b> & \"c\""], []:
            self.box.stasis("checkpoint", "s", *tag)
        return shown

    def test_are_in_every_checkpoint(self):
        shown = self.saved()
        for entry in self.checkpoints("s"):
            self.assertEqual(entry["picture"], entry["directory"] + "/screen.png")
            self.assert_shows(decode_png(Path(entry["picture"]).read_bytes()), shown)
            inspected = json.loads(self.box.stasis("inspect", entry["directory"], "--json").stdout)
            self.assertEqual(inspected["display"]["picture"], entry["picture"])
            self.assertEqual((inspected["display"]["width"], inspected["display"]["height"]), SIZE)
            self.assertIn("screen.png", [file["name"] for file in inspected["files"]])
        # Also of increments that have been merged.
        self.box.stasis("rm", "s@1")
        self.box.stasis("prune", "s")
        self.assert_shows(self.picture("s"), shown)
        self.box.stasis("verify", "s")

    def test_are_verified(self):
        self.saved()
        self.box.stasis("verify", "s@1", "s@2", "s@3")
        picture = Path(self.checkpoints("s")[1]["picture"])
        data = bytearray(picture.read_bytes())
        data[len(data) // 2] ^= 1
        picture.write_bytes(data)
        done = self.box.stasis("verify", "s@2", check=False)
        self.assertEqual(done.returncode, 7)
        self.assertIn("screen.png", done.stderr)
        picture.unlink()
        self.assertEqual(self.box.stasis("restart", "s@2", "--background", "--name", "t", check=False).returncode, 7)

    def page(self):
        path = self.box.dir / "page.html"
        self.box.stasis("list", "s", "--html", path)
        return path

    def test_page(self):
        self.saved()
        path = self.page()
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        page = Page(path.read_text())
        entries = self.checkpoints("s")
        self.assertEqual(page.foreign, [])
        self.assertEqual([article["id"] for article in page.articles], ["s@1", "s@2", "s@3"])
        for article, entry in zip(page.articles, entries):
            self.assertEqual(article["pictures"], [Path(entry["picture"]).read_bytes()])
            self.assertIn(entry["created"], article["text"])
            self.assertRegex(article["text"], r"\d [KMG]iB")
        self.assertIn("a <b> & \"c\"", page.articles[1]["text"])
        self.assertEqual(self.box.stasis("list", "s", "--html", "-").stdout, path.read_text())

    def test_page_without_pictures(self):
        self.box.launch("s", "sleep", "300")
        self.box.stasis("checkpoint", "s")
        self.assertNotIn("picture", self.checkpoints("s")[0])
        article, = Page(self.page().read_text()).articles
        self.assertEqual(article["pictures"], [])
        self.assertIn("no display", article["text"])

    def test_page_in_a_browser(self):
        browser = find_program("chromium", "chromium-browser", "google-chrome")
        self.saved()
        shot = self.box.dir / "page.png"
        self.box.run(browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={self.box.dir}/profile",
                     f"--screenshot={shot}", "--window-size=1200,800", self.page().as_uri(), timeout=60)
        dom = self.box.run(browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
                           f"--user-data-dir={self.box.dir}/profile", self.page().as_uri(), timeout=60).stdout
        self.assertEqual(len(Page(re.sub(r"^<!DOCTYPE[^>]*>", "", dom)).articles), 3)
        self.assertGreater(shot.stat().st_size, 5000)


if __name__ == "__main__":
    unittest.main()
