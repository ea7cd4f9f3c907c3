"""The pages in a real browser: headless Chromium loads each in a frame of a desktop's and of a phone's width.

The frame's own page, written here, measures and reports; the report itself has no script.
"""

import html
import json
import re
import shutil
import subprocess

import pytest

from jaxnorm.study.report.write import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium on the PATH (Debian: apt-get install chromium)"),
]
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files",
    "--virtual-time-budget=10000", "--enable-logging=stderr", "--log-level=0", "--hide-scrollbars", "--dump-dom",
)  # fmt: skip
WIDTHS = (1280, 390)
DOT = "R0lGODlhAQABAAAAACwAAAAAAQABAAA="
FRAMES = """<!doctype html><meta charset="utf-8"><body>%s<script>
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.scrollingElement;
    page.querySelectorAll("details").forEach(one => one.open = true);
    const shown = [...page.querySelectorAll("figure img")].map(one => one.getBoundingClientRect());
    return {
      width: root.clientWidth,
      scroll: root.scrollWidth,
      title: page.title,
      figures: shown.filter(box => box.width > 0).length,
      flat: shown.filter(box => box.width > 0 && box.height < 50).length,
      missing: [...page.images].filter(image => !image.complete || image.naturalWidth === 0).length,
      requests: frame.contentWindow.performance.getEntriesByType("resource").map(one => one.name),
    };
  });
  document.body.innerHTML = "<pre>" + JSON.stringify(found).replace(/&/g, "&amp;").replace(/</g, "&lt;") + "</pre>";
});
</script>"""


def look_at(page, folder):
    """What the browser says of a page, by width, and what it wrote to the console."""
    frames = (
        f'<iframe src="{page.as_uri()}" width="{width}" height="900" frameborder="0"></iframe>' for width in WIDTHS
    )
    wrapper = folder / "frames.html"
    wrapper.write_text(FRAMES % "".join(frames))
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", wrapper.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r"<pre>(.*)</pre>", done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(found[1])), console


@pytest.mark.parametrize("kind", ["comparison", "features", "batches", "rates"])
def test_a_page_loads_alone_and_fits_a_desktop_and_a_phone(request, session_workdir, tmp_path, kind):
    workdir = session_workdir("quick") if kind == "comparison" else request.getfixturevalue(f"{kind}_workdir")
    write_report(workdir)
    seen, console = look_at(workdir / "report.html", tmp_path)
    assert console == []
    assert [one["width"] for one in seen] == list(WIDTHS)
    for one in seen:
        assert one["title"] and one["figures"] >= 2 and one["flat"] == 0
        assert one["scroll"] <= one["width"]
        assert one["missing"] == 0 and one["requests"] == []


def test_a_bad_page_is_seen(tmp_path):
    """The check itself: each fault that it looks for, put into a page, is found."""
    page = tmp_path / "bad.html"
    page.write_text(
        '<!doctype html><title>x</title><img src="http://127.0.0.1:9/absent.png"><div style="width: 3000px">wide</div>'
        f'<figure><img width="500" height="2" src="data:image/gif;base64,{DOT}"></figure>'
        '<script>console.error("oh no")</script>'
    )
    seen, console = look_at(page, tmp_path)
    for one in seen:
        assert one["scroll"] > one["width"] and one["missing"] == 1 and one["flat"] == 1
        assert one["requests"] == ["http://127.0.0.1:9/absent.png"]
    assert any("oh no" in line for line in console)
