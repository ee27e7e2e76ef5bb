"""The benchmark and the trials still fit the notebook that they measure."""

import shutil
import subprocess
import sys

import pytest
from run_notebook import ROOT, code_cells, read
from trials import TRIALS, table

REAL_PHOTOS = ROOT.parent / "shared" / "photos" / "original-size-sample.zip"


@pytest.mark.skipif(
    not REAL_PHOTOS.exists(), reason="NOT TESTED ON REAL PHOTOS: ../shared/photos is not here"
)
def test_the_benchmark_prints_its_tables(tmp_path):
    shutil.unpack_archive(REAL_PHOTOS, tmp_path)
    command = [sys.executable, ROOT / "tests" / "benchmark.py", tmp_path, "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    rows = ["2019, float32", "notebook, float32", "notebook, its two workers"]
    for row in [*rows, "float32 | Keras's own layers", "float32 | notebook"]:
        assert f"| {row} |" in done.stdout
    assert "| 100 |" in done.stdout, "the number of test photos"
    assert "| 300 |" in done.stdout, "the number of photos in the table of scale"


def test_the_2019_version_is_in_float32_whatever_the_notebook_chose():
    import keras
    from benchmark import old_model

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        policies = {layer.dtype_policy.name for layer in old_model().layers}
    finally:
        keras.config.set_dtype_policy(before)
    assert policies == {"float32"}


@pytest.mark.parametrize("trial", TRIALS)
def test_a_trial_changes_the_code_of_the_notebook(trial):
    edits, environment = TRIALS[trial]
    code = "".join(cell.source for cell in code_cells(read()))
    for piece in [*edits, *(f'"{variable}"' for variable in environment)]:
        assert piece in code


def test_the_table_of_trials_is_that_of_all_rows():
    text = (ROOT / "tests" / "benchmark.md").read_text(encoding="utf-8")
    assert table() in text, "run python tests/trials.py, and put its table into benchmark.md"
