"""The notebook in a browser: run with Shift+Enter, as a web page, and as GitHub shows it.

Needs Chromium (Debian's package `chromium`, or Chrome). Screenshots stay in tests/screenshots.
"""

import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from run_notebook import NOTEBOOK, ROOT, code_cells, copy_project, read
from small_photos import labeled, unlabeled, write

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
SCREENSHOTS = ROOT / "tests" / "screenshots"
STEPS = [0, 7, 9, 10, 18, 23, 24, 27, 34, 37, 38, 39, 41]  # on web pages
RUN = ["step-08-more", "step-10-summary", "step-24-fit", "step-34-grid"]  # in Jupyter
# Pairs of things that lie over each other by more than 2 pixels.
OVERLAPS = """() => {
    const things = [...document.querySelectorAll("h1, h2, p, pre, li, table, img, summary")];
    const innermost = things.filter(t => !things.some(other => other !== t && t.contains(other)));
    const boxes = innermost.filter(t => t.checkVisibility()).map(
        t => [t.getBoundingClientRect(), (t.alt || t.innerText).slice(0, 40)]);
    return boxes.flatMap(([a, text], n) => boxes.slice(n + 1).filter(([b]) =>
        Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2 &&
        Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2
    ).map(([, other]) => `${text} / ${other}`));
}"""
# What GitHub leaves of a notebook, and the few rules of its own that it adds.
AS_ON_GITHUB = """() => {
    for (const gone of document.querySelectorAll("script, style, link, iframe")) gone.remove();
    for (const plain of document.querySelectorAll("[style]")) plain.removeAttribute("style");
    for (const plain of document.querySelectorAll("[class]")) plain.removeAttribute("class");
    const rules = document.createElement("style");
    rules.textContent = "img { max-width: 100% } pre, table { display: block; overflow: auto }";
    document.head.append(rules);
}"""

pytestmark = [
    pytest.mark.apart,
    pytest.mark.skipif(BROWSER is None, reason="NOT TESTED IN A BROWSER: there is no Chromium"),
]


@pytest.fixture(scope="module")
def page():
    """Return a page of a headless browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="NOT TESTED IN A BROWSER")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1600})
        page.set_default_timeout(300_000)
        yield page


def test_shift_enter_runs_all_steps_in_notebook_7(page, tmp_path, monkeypatch):
    project = copy_project(tmp_path / "개와 고양이")
    write(project / "data", labeled(each=30) | unlabeled(12))
    copy = project / "notebooks" / NOTEBOOK.name
    copy.write_text(copy.read_text("utf-8").replace("EPOCHS = 50", "EPOCHS = 1"), "utf-8")
    settings = "@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    write(project / "settings", {settings: b'{"windowingMode": "none"}'})  # all cells on the page
    monkeypatch.setenv("JUPYTERLAB_SETTINGS_DIR", str(project / "settings"))
    monkeypatch.chdir(project / "notebooks")
    options = ["--no-browser", "--allow-root", "--IdentityProvider.token="]
    command = [sys.executable, "-m", "jupyter", "notebook", *options]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        address = next(filter(None, (re.search(r"http://\S+/", line) for line in server.stderr)))
        host = urlsplit(address.group())
        for _ in range(60):  # under load, it says its address before it answers there
            with suppress(OSError), socket.create_connection((host.hostname, host.port), 1):
                break
            time.sleep(0.5)
        page.goto(f"{address.group()}notebooks/{NOTEBOOK.name}")
        page.locator("h1", has_text="Dogs vs. cats, step by step").wait_for()
        cells, ids = page.locator(".jp-Notebook .jp-Cell"), [cell.id for cell in read().cells]
        for _ in range(20):  # before the kernel has started, nothing runs
            cells.nth(1).click()
            page.keyboard.press("Shift+Enter")
            page.wait_for_timeout(3_000)
            if cells.nth(1).get_by_text("60 labeled photos").count():
                break
        for _ in range(ids.index(RUN[-1]) - 1):
            page.keyboard.press("Shift+Enter")
        page.locator(".jp-InputPrompt", has_text="*").first.wait_for(state="detached")
        for name, text in [("step-10-summary", "12,942,786"), ("step-24-fit", "epoch  1/1 ")]:
            cells.nth(ids.index(name)).get_by_text(text).first.wait_for()
        assert page.locator('[data-mime-type*="stderr"], [data-mime-type*="error"]').count() == 0
        for name in RUN:
            cell = cells.nth(ids.index(name))
            cell.screenshot(path=SCREENSHOTS / f"notebook-{name}.png")
            assert cell.locator(".jp-OutputArea-output").count() > 0
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def web_page(tmp_path_factory):
    """Return the address of the committed notebook as a web page."""
    folder = tmp_path_factory.mktemp("web")
    options = ["--to=html", "--template=classic", f"--output-dir={folder}"]
    command = [sys.executable, "-m", "jupyter", "nbconvert", *options, NOTEBOOK]
    subprocess.run(command, check=True, capture_output=True)
    return (folder / f"{NOTEBOOK.stem}.html").as_uri()


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("form", ["html", "github"])
def test_as_a_web_page(page, web_page, width, form):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(web_page)
    if form == "github":
        page.evaluate(AS_ON_GITHUB)
        for output in (output for cell in code_cells(read()) for output in cell.outputs):
            kinds = {"text/plain", "text/html", "image/png", "image/jpeg"}
            assert set(output.get("data", {})) <= kinds and "<script" not in str(output)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "it must not be wider"
    without = "image => !image.alt || image.alt.startsWith('No description')"
    assert page.evaluate(f"[...document.images].filter({without}).length") == 0
    assert page.evaluate(OVERLAPS) == []
    for step in STEPS:
        page.locator(f"h2[id^='{step}.']").evaluate("heading => heading.scrollIntoView()")
        page.screenshot(path=SCREENSHOTS / f"{form}-{width}-step-{step:02}.png")
