"""The notebook in a real browser: run from the menu, stopped, and taken up again.

Needs Chromium (Debian's package `chromium`, or Chrome). Screenshots of steps 7, 10, 23, 27 and 34
and of a page on a phone stay in tests/screenshots.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

import nbformat
import pytest
from run_notebook import NOTEBOOK, ROOT

BROWSER = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
)
SCREENSHOTS = ROOT / "tests" / "screenshots"
STEPS = {7: "step-07-balance", 10: "step-10-summary", 23: "step-23-variants"}
STEPS |= {27: "step-27-curves", 34: "step-34-grid"}

pytestmark = [
    pytest.mark.trains,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(BROWSER is None, reason="NOT TESTED IN A BROWSER: there is no Chromium"),
]


@pytest.fixture(scope="module")
def page():
    """Return a page of a headless browser, 1280 pixels wide."""
    playwright = pytest.importorskip("playwright.sync_api", reason="NOT TESTED IN A BROWSER")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1600})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a copy of the project, without photos, in a folder with a space and Korean letters."""
    copy = tmp_path_factory.mktemp("browser") / "개와 고양이"
    for folder in ["notebooks", "data"]:
        ignored = shutil.ignore_patterns("train", "test1", "__pycache__", "*.json", "*.zip")
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    shutil.copy(ROOT / "requirements.txt", copy)
    SCREENSHOTS.mkdir(exist_ok=True)
    return copy


class Server:
    """Jupyter Notebook 7 in a folder, for the time of a `with` block."""

    def __init__(self, folder, **environment):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"http://127.0.0.1:{free.getsockname()[1]}"
        settings = folder / "settings" / "@jupyterlab" / "notebook-extension"
        settings.mkdir(parents=True, exist_ok=True)  # all cells are to be on the page at once
        (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
        environment |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
        command = [sys.executable, "-m", "jupyter", "notebook", "--notebook-dir=."]  # as in README
        command += ["notebooks/dogs_vs_cats.ipynb", "--no-browser", "--allow-root"]
        command += [f"--port={self.address.split(':')[-1]}", "--IdentityProvider.token="]
        self.log = (folder / "server.log").open("a")
        self.process = subprocess.Popen(
            command, cwd=folder, env=os.environ | environment, stdout=self.log, stderr=self.log
        )

    def __enter__(self):
        for _ in range(600):
            try:
                self.get("/api/status")
                return self
            except OSError:
                time.sleep(0.1)
        raise TimeoutError("the server did not start")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()

    def get(self, path):
        """Return what the server's interface answers."""
        with urllib.request.urlopen(self.address + path, timeout=10) as answer:
            return json.load(answer)

    def wait_until_idle(self, seconds):
        """Wait until a page has had a kernel with nothing to do for three seconds."""
        end, idle = time.monotonic() + seconds, 0
        while idle < 6:
            assert time.monotonic() < end, "the kernel is still busy, or there is none"
            kernels = self.get("/api/kernels")
            ready = kernels and kernels[0]["connections"]
            idle = idle + 1 if ready and kernels[0]["execution_state"] == "idle" else 0
            time.sleep(0.5)


NOTHING_WAITS = (
    "![...document.querySelectorAll('.jp-InputPrompt')].some(p => p.textContent.includes('*'))"
)


def open_and_run_all(page, server):
    """Open the notebook and choose Run All Cells from the menu."""
    page.goto(f"{server.address}/notebooks/notebooks/dogs_vs_cats.ipynb")
    page.locator("h1", has_text="Dogs vs. cats, step by step").wait_for()
    server.wait_until_idle(120)  # without a kernel, Run All only clears the outputs
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def saved(page, project):
    """Save the notebook in the browser; return it."""
    file = project / "notebooks" / NOTEBOOK.name
    before = file.stat().st_mtime_ns
    page.keyboard.press("Escape")
    page.keyboard.press("Control+s")
    for _ in range(300):
        time.sleep(0.1)
        if file.stat().st_mtime_ns != before:
            with suppress(nbformat.reader.NotJSONError):  # it is being written
                return nbformat.read(file, as_version=4)
    raise TimeoutError("the notebook was not saved")


def cell_on(page, notebook, name):
    """Return the cell with this id as it lies on the page."""
    place = [cell.id for cell in notebook.cells].index(name)
    return page.locator(".jp-Notebook .jp-Cell").nth(place)


def test_run_stop_and_go_on(page, project, drawings):
    environment = {
        "DOGS_VS_CATS_SOURCE": "practice",
        "DOGS_VS_CATS_DATA": str(drawings),
        "OUTPUT_FOLDER": str(project / "outputs"),
    }
    with Server(project, EPOCHS="2", **environment) as server:
        open_and_run_all(page, server)
        page.wait_for_function(NOTHING_WAITS, timeout=900_000)
        server.wait_until_idle(60)
        notebook = saved(page, project)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
        outputs = [output for cell in code for output in cell.outputs]
        assert not [output for output in outputs if output.output_type == "error"]
        assert not [output for output in outputs if output.get("name") == "stderr"]
        for step, name in STEPS.items():
            cell = cell_on(page, notebook, name)
            cell.scroll_into_view_if_needed()
            cell.screenshot(path=SCREENSHOTS / f"step-{step:02}.png")
            assert cell.locator(".jp-OutputArea-output").count() > 0
        with page.expect_popup() as linked:
            cell_on(page, notebook, "step-00-photos-text").get_by_role("link").first.click()
        linked.value.get_by_text("python data/get_photos.py").first.wait_for()
        linked.value.close()

    with Server(project, EPOCHS="30", **environment) as server:
        open_and_run_all(page, server)
        fit = cell_on(page, notebook, "step-24-fit")
        fit.scroll_into_view_if_needed()
        fit.get_by_text(re.compile(r"epoch +3/30")).first.wait_for(timeout=300_000)
        page.locator('[data-command="notebook:interrupt-kernel"]').first.click()
        fit.get_by_text("Training was stopped in epoch").first.wait_for()
        server.wait_until_idle(60)
        fit.screenshot(path=SCREENSHOTS / "stopped.png")

        first = cell_on(page, notebook, "step-24-resume")
        prompt = first.locator(".jp-InputPrompt")
        before = prompt.inner_text()
        prompt.click()
        page.keyboard.press("Control+Enter")
        end = time.monotonic() + 180
        while prompt.inner_text() in (before, "[*]:", "[ ]:"):
            assert time.monotonic() < end, "the cell was not run again"
            page.wait_for_timeout(200)
        assert "It goes on with epoch" in first.inner_text()


@pytest.fixture(scope="module")
def web_page(project):
    """Return the address of the committed notebook as a web page."""
    command = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "html", "--output-dir"]
    subprocess.run([*command, project, NOTEBOOK], check=True, capture_output=True)
    return (project / "dogs_vs_cats.html").as_uri()


@pytest.mark.parametrize("width", [400, 1280])
def test_as_a_web_page(page, web_page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(web_page)
    page.locator("h1", has_text="Dogs vs. cats, step by step").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "it must not be wider"
    without = "[...document.querySelectorAll('img')].filter(image => !image.alt).length"
    assert page.evaluate(without) == 0, "every picture has a text alternative"
    summary = page.locator("pre", has_text="Output Shape").first
    assert "monospace" in summary.evaluate("element => getComputedStyle(element).fontFamily")
    for step in STEPS:
        page.locator(f"h2[id^='{step}.']").scroll_into_view_if_needed()
        page.screenshot(path=SCREENSHOTS / f"html-{width}-step-{step:02}.png")


# What GitHub leaves of a notebook, and the few rules of its own that it adds.
AS_ON_GITHUB = """
for (const gone of document.querySelectorAll("script, style, link, iframe")) gone.remove();
for (const element of document.querySelectorAll("[style], [class]")) {
    element.removeAttribute("style");
    element.removeAttribute("class");
}
const rules = document.createElement("style");
rules.textContent = "img { max-width: 100% } pre, table { display: block; overflow: auto }";
document.head.append(rules);
"""


@pytest.mark.parametrize("width", [400, 1280])
def test_without_scripts_and_styles_as_on_github(page, web_page, width):
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        for output in cell.get("outputs", []):
            kinds = {"text/plain", "text/html", "image/png"}
            assert set(output.get("data", {})) <= kinds, "no widgets, nothing that needs a script"
            assert "<script" not in output.get("data", {}).get("text/html", "")
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(web_page)
    page.evaluate(AS_ON_GITHUB)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "it must not be wider"
    for step in STEPS:
        page.locator(f"h2[id^='{step}.']").scroll_into_view_if_needed()
        page.screenshot(path=SCREENSHOTS / f"github-{width}-step-{step:02}.png")
