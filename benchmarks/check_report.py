"""Open a run's report in headless Chromium: `python benchmarks/check_report.py [RUN_DIR] [--out FOLDER]`.

The report is written and opened as a file on a desktop, light and dark, and on a phone of 390 pixels; its filters are
driven, by keyboard too; it is printed. The check fails on a message in the console, a request, a page that is wider
than the screen, a file of 3 MB or more, a chart without a text, and a filter that does not do what it says. FOLDER gets
what was seen, as PNG and PDF. A study's page and `smallwit watch` are opened too.
"""

import argparse
import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smallwit.report import watch
from smallwit.report.html import write_report

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
MOST_BYTES = 3_000_000
PHONE, DESKTOP = (390, 844), (1280, 900)


class Browser:
    """A headless Chromium behind the DevTools protocol, spoken through a pair of pipes; it ends with the block."""

    def __init__(self, process: subprocess.Popen[bytes], out: int, into: int) -> None:
        self.process, self.out, self.into = process, out, into
        self.number, self.buffer = 0, b""
        self.session: str | None = None
        self.home, self.loaded = "", False
        self.troubles: list[str] = []
        """Messages of the console, exceptions and requests to another place, since the page was opened."""

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its result; what happens meanwhile is kept. Raises `RuntimeError` if refused."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self.number:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']['message']}")
                return found["result"]

    def open(self, url: str, size: tuple[int, int], theme: str = "light") -> None:
        """Open a page in a new tab, at this size and in this theme, and wait until it has loaded."""
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        phone = size == PHONE
        self.call(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=phone
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.home, self.troubles, self.loaded = url.partition("#")[0], [], False
        self.call("Page.navigate", url=url)
        self.wait()

    def wait(self) -> None:
        """Wait until the page has loaded; set `loaded` to `False` before it is made to load."""
        while not self.loaded:
            self._next()

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key, as `Tab`, or type a character."""
        codes = {"Tab": 9, "ArrowRight": 39, "ArrowDown": 40}
        text = {} if key in codes else {"text": key}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=codes.get(key, 0), **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=codes.get(key, 0))

    def picture(self, path: Path, whole: bool = False) -> None:
        """Write what is seen as a PNG, or the whole page."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **self._clip(whole))
        path.write_bytes(base64.b64decode(found["data"]))

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16000), "scale": 1}}

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            read = os.read(self.into, 1 << 20)
            if not read:
                raise RuntimeError("chromium has ended")
            self.buffer += read
        text, _, self.buffer = self.buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        about = found.get("params", {})
        match found.get("method"):
            case "Page.loadEventFired":
                self.loaded = True
            case "Runtime.consoleAPICalled":
                self.troubles.append(f"console: {about['args']}")
            case "Runtime.exceptionThrown":
                self.troubles.append(f"exception: {about['exceptionDetails']}")
            case "Log.entryAdded":
                self.troubles.append(f"log: {about['entry']['text']}")
            case "Network.requestWillBeSent":
                url = about["request"]["url"]
                if url.partition("#")[0] != self.home and not url.startswith(("data:", "about:")):
                    self.troubles.append(f"request: {url}")
        return found


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium with a profile of its own. Ends with status 2 where there is none."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        sys.exit("check_report: there is no chromium here; on Debian: apt-get install chromium")
    child_in, out = os.pipe()
    into, child_out = os.pipe()
    with tempfile.TemporaryDirectory() as profile:
        options = "--headless --no-sandbox --disable-gpu --hide-scrollbars --remote-debugging-pipe"
        # Chromium reads commands from descriptor 3 and answers on 4.
        line = f'exec "$0" {options} --user-data-dir="$1" 3<&{child_in} 4>&{child_out}'
        process = subprocess.Popen(
            ["sh", "-c", line, program, profile], pass_fds=(child_in, child_out), stderr=subprocess.DEVNULL
        )
        os.close(child_in)
        os.close(child_out)
        try:
            yield Browser(process, out, into)
        finally:
            process.terminate()
            process.wait()
            os.close(out)
            os.close(into)


class Check:
    """Counts what does not hold, and tells each."""

    def __init__(self) -> None:
        self.failed = 0

    def that(self, holds: bool, what: str, found: object = "") -> None:
        """Tell whether something holds."""
        print(f"{'ok    ' if holds else 'FAILED'} {what}{'' if holds else f': {found}'}")
        self.failed += not holds


WITHOUT_TEXT = """[...document.querySelectorAll("svg, img")].filter((node) =>
  !node.closest("[role=img]")?.getAttribute("aria-label")?.trim()).length"""
STATUS = """document.getElementById("status").textContent"""
COUNTS = """Object.fromEntries([...document.querySelectorAll("#verdicts label")].map((label) =>
  [label.querySelector("input").value, Number(label.textContent.match(/ ([\\d,]+)$/)[1].replace(/,/g, ""))]))"""
CARDS = """document.querySelectorAll("#list .sample").length"""


def look(browser: Browser, check: Check, page: Path, name: str, out: Path) -> None:
    """Open a page on every screen, print it, and check what holds for all pages."""
    check.that(page.stat().st_size < MOST_BYTES, f"{name} is under 3 MB", page.stat().st_size)
    for screen, size, theme in (("desktop", DESKTOP, "light"), ("dark", DESKTOP, "dark"), ("phone", PHONE, "light")):
        browser.open(page.as_uri(), size, theme)
        width = browser.run("document.documentElement.scrollWidth")
        check.that(width <= size[0], f"{name}, {screen}: no wider than the screen", width)
        check.that(browser.run(WITHOUT_TEXT) == 0, f"{name}, {screen}: every chart has a text")
        browser.picture(out / f"{name}-{screen}.png", whole=True)
        check.that(not browser.troubles, f"{name}, {screen}: a quiet console and no request", browser.troubles)
    printed = browser.call("Page.printToPDF", preferCSSPageSize=True)["data"]
    (out / f"{name}.pdf").write_bytes(base64.b64decode(printed))


def drive(browser: Browser, check: Check, page: Path, results: dict[str, Any], out: Path) -> None:
    """Use the filters of a report, by its fragment and by the keyboard."""
    tasks = list(results["models"][0]["scores"])
    a, b = results["models"][-1]["name"], results["models"][0]["name"]
    browser.open(f"{page.as_uri()}#model={a}&other={b}&task={tasks[0]}", DESKTOP)
    counts = browser.run(COUNTS)
    scores = {model["name"]: model["scores"][tasks[0]] for model in results["models"]}
    difference = round((scores[a]["mean"] - scores[b]["mean"]) * scores[a]["n"])
    found = counts.get("won", 0) - counts.get("lost", 0)
    check.that(found == difference, "won less lost is the difference of the scores", (found, difference))
    parts = sum(count for name, count in counts.items() if name != "all")
    check.that(parts == counts["all"], "the outcomes add up to all problems", counts)
    check.that(browser.run(CARDS) > 0, "problems are listed")
    browser.picture(out / "pair-desktop.png")
    browser.run("""document.querySelector("#verdicts input:checked").focus()""")
    browser.press("ArrowRight")
    chosen = browser.run("""document.querySelector("#verdicts input:checked").value""")
    check.that(chosen != "all", "an arrow key chooses the next outcome", chosen)
    check.that(f"verdict={chosen.replace(' ', '+')}" in browser.run("location.hash"), "the fragment holds the choice")
    check.that(browser.run(STATUS).startswith(f"{counts[chosen]:,} of "), "the count is told", browser.run(STATUS))
    browser.run("""document.getElementById("query").focus()""")
    for character in "zzzz":
        browser.press(character)
    check.that(browser.run(CARDS) == 0, "a search that nothing holds lists nothing")
    seen = set()
    browser.run("""document.getElementById("model").focus()""")
    for _ in range(6):
        seen.add(browser.run("document.activeElement.id || document.activeElement.name"))
        browser.press("Tab")
    check.that({"model", "other", "task", "query", "cut", "verdict"} <= seen, "Tab reaches every control", seen)
    browser.open(f"{page.as_uri()}#model={a}&other={b}&task={tasks[0]}", PHONE)
    browser.picture(out / "pair-phone.png")
    check.that(not browser.troubles, "filters: a quiet console and no request", browser.troubles)


def follow(browser: Browser, check: Check, run_dir: Path) -> None:
    """Watch a copy of the run whose files change."""
    watch.REST = 0  # the page is made anew at once
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(run_dir, Path(scratch) / "run", symlinks=True))
        (copy / "results.json").unlink()
        with watch.make_server(copy, 0) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            browser.open(f"http://127.0.0.1:{server.server_port}/", DESKTOP)
            check.that("so far" in browser.run("document.body.textContent"), "watch: a run that goes on is told")
            browser.loaded = False
            (copy / "results.json").write_bytes((run_dir / "results.json").read_bytes())
            browser.wait()
            check.that("so far" not in browser.run("document.body.textContent"), "watch: the page follows the run")
            server.shutdown()


def main() -> None:
    """Check the report of a run, and the page of a study beside it if there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", nargs="?", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--out", type=Path, default=Path("runs/check-report"), help="folder of the pictures")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    check = Check()
    page = write_report(given.run_dir.resolve())
    results = json.loads((given.run_dir / "results.json").read_text(encoding="utf-8"))
    with chromium() as browser:
        look(browser, check, page, "report", given.out)
        drive(browser, check, page, results, given.out)
        follow(browser, check, given.run_dir)
        if (given.run_dir / "study.html").exists():
            look(browser, check, (given.run_dir / "study.html").resolve(), "study", given.out)
    print(f"pictures in {given.out}")
    sys.exit(1 if check.failed else 0)


if __name__ == "__main__":
    main()
