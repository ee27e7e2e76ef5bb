"""Step 1: it says which versions are at work, and when the kernel holds others than installed."""

import re

import nbformat
from packaging.version import Version
from run_notebook import ROOT, execute

INSTALL = """
from pathlib import Path

Path("{folder}", "matplotlib-3.9.0.dist-info").rename("{folder}/matplotlib-3.11.2.dist-info")
count = Path("{folder}", "matplotlib-3.11.2.dist-info", "METADATA").write_text("Version: 3.11.2")
"""


def test_a_package_that_is_changed_under_the_kernel_takes_a_restart(tmp_path):
    (tmp_path / "matplotlib.py").write_text('__version__ = "3.9.0"', encoding="utf-8")
    metadata = tmp_path / "matplotlib-3.9.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Version: 3.9.0", encoding="utf-8")

    run = "%run helpers/versions.py"
    cells = ["import matplotlib", run, INSTALL.format(folder=tmp_path.as_posix()), run]
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
    execute(notebook, environment={"PYTHONPATH": str(tmp_path)})

    (before,), (after,) = (notebook.cells[place].outputs for place in (1, 3))
    assert before.name == after.name == "stdout"  # and nothing in red
    assert before.text.startswith("Keras 3") and before.text.count("\n") == 1
    assert after.text.startswith("RESTART THE KERNEL NOW")
    assert "matplotlib 3.9.0 (installed is 3.11.2)" in after.text and "later" in after.text


def test_the_ranges_of_versions_are_what_is_tested():
    def versions(name):
        text = (ROOT / "tests" / name).read_text(encoding="utf-8")
        return {package: Version(pin) for package, pin in re.findall(r"^(\S+)==(\S+)", text, re.M)}

    newest, lowest = versions("constraints.txt"), versions("constraints-lowest.txt")
    colab, published = versions("constraints-colab.txt"), versions("colab.in")
    ranges = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    found = re.findall(r"^([\w-]+)>=([\d.]+),<(\d+)\.(\d+)$", ranges, re.M)
    assert len(found) == 8
    for package, start, major, minor in found:
        assert lowest[package] == Version(start) <= colab[package] < Version(f"{major}.{minor}")
        assert newest[package].release[:2] == (int(major), int(minor) - 1)
    assert published.items() <= colab.items()
