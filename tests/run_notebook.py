"""Execute the notebook, and mark its outputs as belonging to its code.

As a command, `python tests/run_notebook.py` executes notebooks/dogs_vs_cats.ipynb in place, top
to bottom, stores the fingerprint of its code in its metadata, and saves the chart of step 27 for
the README. `test_notebook.py` compares that fingerprint with the code and fails when the code was
changed after the outputs were made.
"""

import ast
import base64
import contextlib
import hashlib
import io
import os
import sys
import tempfile
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
    """Return a hash of the syntax trees of all code cells.

    What changes no output does not count: comments, spacing, docstrings, and what variables are
    called, as long as each keeps one name of its own.
    """
    to_python = TransformerManager().transform_cell  # turns %pip into a function call
    trees = [ast.parse(to_python(cell.source)) for cell in code_cells(notebook)]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    variables = [node for node in nodes if isinstance(node, ast.Name)]
    assigned = {node.id for node in variables if isinstance(node.ctx, ast.Store)}
    numbers = {}
    for node in variables:
        if node.id in assigned:
            node.id = f"variable {numbers.setdefault(node.id, len(numbers))}"
    for node in nodes:
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
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


def execute(notebook, environment=None, timeout=None):
    """Execute a notebook in place, in the folder notebooks/.

    Args:
        notebook: an `nbformat` notebook; its outputs are replaced.
        environment: variables for the kernel on top of this process's own, such as EPOCHS.
        timeout: seconds a cell may take, None for any.

    Raises:
        nbclient.exceptions.CellExecutionError: when a cell fails; the cells before have outputs.
    """
    client = NotebookClient(
        notebook, timeout=timeout, resources={"metadata": {"path": NOTEBOOK.parent}}
    )
    client.record_timing = False
    client.execute(env=os.environ | (environment or {}))
    CoalesceStreamsPreprocessor().preprocess(notebook, {})
    return notebook


def run_cells(last, environment=None, edits=None):
    """Run code cells of the notebook, up to step 23, in this process, without their output.

    As in Jupyter, the cells can import what lies beside the notebook; so can the caller, then.

    Args:
        last: a piece of the source of the last cell to run.
        environment: variables on top of this process's own, such as PRECISION; they stay set.
        edits: pieces of source and what takes their place, a dict; each must occur.

    Returns:
        A dict of all names that the cells define.

    Raises:
        ValueError: when `last` or one of `edits` does not occur.
    """
    sources = [cell.source for cell in code_cells(read()) if not cell.source.startswith("%")]
    for piece in [last, *(edits or {})]:
        if not any(piece in source for source in sources):
            raise ValueError(f"{piece!r} does not occur in the notebook's code")
    # Nothing is trained and saved by then, so any folder will do for what the notebook writes.
    os.environ |= {"MPLBACKEND": "agg", "OUTPUT_FOLDER": tempfile.gettempdir()}
    os.environ |= environment or {}
    if str(NOTEBOOK.parent) not in sys.path:
        sys.path.insert(0, str(NOTEBOOK.parent))
    names = {}
    with contextlib.chdir(NOTEBOOK.parent), contextlib.redirect_stdout(io.StringIO()):
        for source in sources:
            edited = source
            for old, new in (edits or {}).items():
                edited = edited.replace(old, new)
            exec(edited, names)
            if last in source:
                return names


def curves_picture(notebook):
    """Return the PNG bytes of the chart of step 27."""
    cell = next(cell for cell in code_cells(notebook) if cell.id == "step-27-curves")
    return base64.b64decode(cell.outputs[0].data["image/png"])


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


if __name__ == "__main__":
    executed = take_over(execute(read()))
    CURVES.write_bytes(curves_picture(executed))
    print(f"{NOTEBOOK.name} executed: {NOTEBOOK.stat().st_size / 1e6:.1f} MB")
