"""The benchmark and the trials still fit the notebook that they measure."""

import re
import shutil
import subprocess
import sys

import pytest
from run_notebook import ROOT, code_cells, read
from trials import TRIALS, table

REAL_PHOTOS = ROOT.parent / "shared" / "photos" / "original-size-sample.zip"
PAGE = ROOT / "tests" / "benchmark.md"


@pytest.mark.skipif(
    not REAL_PHOTOS.exists(), reason="NOT TESTED ON REAL PHOTOS: ../shared/photos is not here"
)
@pytest.mark.trains
def test_the_benchmark_prints_its_tables(tmp_path):
    shutil.unpack_archive(REAL_PHOTOS, tmp_path)
    command = [sys.executable, ROOT / "tests" / "benchmark.py", tmp_path]
    command += ["--photos", "48", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    rows = ["2019, float32", "notebook, float32", "notebook, its two workers"]
    for row in [*rows, "float32 | Keras's own normalization", "float32 | notebook"]:
        assert f"| {row} |" in done.stdout
    assert "| epoch of 48 photos |" in done.stdout
    assert "| 100 |" in done.stdout, "the number of test photos"


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
    code = "\n".join(cell.source for cell in code_cells(read()))
    for piece in [*edits, *(f'setting("{variable}"' for variable in environment)]:
        assert piece in code
    for old, new in edits.items():
        code = code.replace(old, new)
    compile(code.replace("%pip", "# %pip"), trial, "exec")


def test_the_page_has_all_recorded_trials_and_names_only_trials_that_there_are():
    text = PAGE.read_text(encoding="utf-8")
    for line in table().splitlines():
        assert line in text, "run python tests/trials.py, and put its rows into benchmark.md"
    recipes = text.split("### Recipes on a GPU")[1].split("###")[0]
    rows = [line for line in recipes.splitlines() if line.startswith("| ")]
    assert set(re.findall("`(.*?)`", "\n".join(rows))) <= set(TRIALS)


def test_the_page_has_at_most_1500_words():
    words = PAGE.read_text(encoding="utf-8").split()
    assert sum(any(map(str.isalnum, word)) for word in words) <= 1500
