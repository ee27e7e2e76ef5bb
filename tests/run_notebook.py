"""Execute the notebook, and mark its outputs as belonging to its code.

As a command, `python tests/run_notebook.py` executes notebooks/dogs_vs_cats.ipynb in place, top
to bottom, stores the fingerprint of its code in its metadata, and saves the chart of step 27 for
the README. `test_notebook.py` compares that fingerprint with the code, and fails when the code was
changed after the outputs were made.
"""

import ast
import base64
import hashlib
import os
import shutil
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "dogs_vs_cats.ipynb"
CURVES = ROOT / "notebooks" / "learning_curves.png"


def read():
    """Return the notebook as it stands in the repository."""
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    """Return the code cells of a notebook, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def fingerprint(notebook):
    """Return a hash of the syntax trees of all code cells: without comments and spacing."""
    to_python = TransformerManager().transform_cell  # turns %pip into a function call
    trees = [ast.parse(to_python(cell.source)) for cell in code_cells(notebook)]
    return hashlib.sha256("\n".join(map(in_words, trees)).encode()).hexdigest()


def in_words(tree):
    """Return a syntax tree as text, the same one on every Python.

    `ast.dump` leaves out empty fields from Python 3.13 on, and versions differ in the fields that
    a node has; so fields that are empty are left out here.
    """
    if isinstance(tree, list):
        return f"[{', '.join(map(in_words, tree))}]"
    if not isinstance(tree, ast.AST):
        return repr(tree)
    fields = [(name, value) for name, value in ast.iter_fields(tree) if value not in (None, [])]
    return f"{type(tree).__name__}({', '.join(f'{n}={in_words(v)}' for n, v in fields)})"


def copy_project(folder):
    """Copy what a reader runs, without photos and outputs, into a new folder; return it."""
    folder = Path(folder)
    ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=ignore)
    shutil.copy(ROOT / "requirements.txt", folder)
    (folder / "data").mkdir()
    return folder


def with_parameters(notebook, **parameters):
    """Add a cell with assignments after the one tagged `parameters`, as papermill does."""
    tagged = [n for n, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", [])]
    source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(tagged[0] + 1, nbformat.v4.new_code_cell(source))
    return notebook


def execute(notebook, folder=ROOT, environment=None, timeout=None):
    """Execute a notebook, in the folder notebooks of a project's folder; return it.

    Args:
        notebook: an `nbformat` notebook; its outputs are replaced.
        folder: the project, or a copy of it.
        environment: variables for the kernel on top of this process's own.
        timeout: seconds a cell may take, None for any.

    Raises:
        nbclient.exceptions.CellExecutionError: when a cell fails; the cells before have outputs.
    """
    resources = {"metadata": {"path": Path(folder, "notebooks")}}
    client = NotebookClient(notebook, timeout=timeout, resources=resources)
    client.record_timing = False
    client.execute(env=os.environ | (environment or {}))
    CoalesceStreamsPreprocessor().preprocess(notebook, {})
    return notebook


def take_over(executed):
    """Write the outputs of an executed notebook into the one on disk; return that one.

    So its text may be edited while the code runs, for as long as the code stays the same.

    Raises:
        ValueError: when the code on disk is no longer the one that was executed.
    """
    notebook = read()
    if fingerprint(notebook) != fingerprint(executed):
        kept = NOTEBOOK.with_name("executed_before.ipynb")
        nbformat.write(executed, kept)
        raise ValueError(f"The code was changed while it ran; what ran is kept in {kept.name}.")
    for cell, ran in zip(code_cells(notebook), code_cells(executed), strict=True):
        cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
    notebook.metadata = executed.metadata
    notebook.metadata["code_fingerprint"] = fingerprint(executed)
    nbformat.write(notebook, NOTEBOOK)
    return notebook


def curves_picture(notebook):
    """Return the PNG bytes of the chart of step 27."""
    cell = next(cell for cell in code_cells(notebook) if cell.id == "step-27-curves")
    return base64.b64decode(cell.outputs[0].data["image/png"])


if __name__ == "__main__":
    executed = take_over(execute(read()))
    CURVES.write_bytes(curves_picture(executed))
    print(f"{NOTEBOOK.name} executed: {NOTEBOOK.stat().st_size / 1e6:.1f} MB")
