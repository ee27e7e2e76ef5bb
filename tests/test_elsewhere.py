"""The cells that README.md gives for Colab and Kaggle, run in folders that stand for theirs."""

import os
import re
import shutil
import subprocess

import nbformat
import pytest
from nbclient import NotebookClient
from run_notebook import ROOT, code_cells, copy_project, read
from small_photos import kaggle, write

LOAD = """
from importlib.metadata import distributions
from pathlib import Path
from sysconfig import get_path

import numpy
import pandas

def versions():
    installed = distributions(path=[get_path("purelib")])
    return sorted((package.name, package.version) for package in installed)

before = versions()
"""
CHECK = """
assert versions() == before, "step 1 has changed a package"
assert len(photos.train_files) == 12 and len(photos.test_files) == 4
Path("../outputs").mkdir()
kept = Path("../outputs", "model").write_text("trained")
"""
DRIVE = """
from pathlib import Path

def mount(folder):
    Path(folder, "MyDrive").mkdir(parents=True, exist_ok=True)
"""


def cells_of(title):
    """Return the cells in a section of README.md, a list of texts."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split(f"\n## {title}\n")[1]
    return re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], flags=re.DOTALL)


def run(sources, root, folder):
    """Run cells in a kernel that starts in `folder`, with `root` before each absolute path."""
    sources = [re.sub(r'"(/(?:content|kaggle|tmp)\b)', rf'"{root}\1', text) for text in sources]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    resources = {"metadata": {"path": folder}}
    client = NotebookClient(nbformat.v4.new_notebook(cells=cells), resources=resources)
    client.execute(env=os.environ | {"PYTHONPATH": str(root / "packages")})


@pytest.fixture
def steps():
    """Return the cells of steps 0 and 1."""
    return [cell.source for cell in code_cells(read())[:2]]


def test_colab(tmp_path, steps):
    start, save, bring_back = cells_of("On Colab")
    write(tmp_path, {"packages/google/colab/drive.py": DRIVE.encode()})
    content = tmp_path / "content"
    project = copy_project(content / "dogs-vs-cats-main")
    write(project / "data", {"dogs-vs-cats.zip": kaggle()})
    shutil.make_archive(str(project), "zip", content, project.name)
    shutil.rmtree(project)

    forget = 'shutil.rmtree("../outputs")'
    look = 'assert Path("../outputs", "model").read_text() == "trained"'
    run([LOAD, start, *steps, CHECK, save, start, forget, bring_back, look], tmp_path, content)
    assert (content / "drive" / "MyDrive" / "dogs-vs-cats" / "model").exists()


def test_kaggle(tmp_path, steps):
    start, save = cells_of("On Kaggle")
    inputs, working = tmp_path / "kaggle" / "input", tmp_path / "kaggle" / "working"
    copy_project(inputs / "dogs-vs-cats-project")
    write(inputs / "dogs-vs-cats", {"dogs-vs-cats.zip": kaggle()})
    working.mkdir()
    read_only = ["mount", "-o", "bind,ro", inputs, inputs]
    if not shutil.which("mount") or subprocess.run(read_only, capture_output=True).returncode:
        pytest.skip("nothing can be mounted read-only here")
    try:
        run([LOAD, start, *steps, CHECK, save, start], tmp_path, working)
    finally:
        subprocess.run(["umount", inputs], check=True)
    assert (working / "outputs" / "model").exists()
    assert len(list((tmp_path / "kaggle" / "temp" / "dogs-vs-cats" / "data").iterdir())) == 1
