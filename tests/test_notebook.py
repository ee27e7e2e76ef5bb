"""The notebook runs on any photos, computes what it says, and shows outputs of its own code."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import nbformat
import numpy as np
import pytest
from get_photos import load_photos
from photo_kit import test_files, train_files, write
from run_notebook import NOTEBOOK, ROOT, code_cells, execute, fingerprint, read
from test_going_further import use_export

REAL_PHOTOS = ROOT.parent / "shared" / "photos" / "original-size-sample.zip"
LAST_STEP = 42
READY = train_files() | test_files()

# Executed behind the last cell: what the notebook computed, as the kernel sees it.
FACTS = """
import json

from get_photos import load_photos

plain = validation_generator[0][0]
first = train_generator[0][0]
epoch_labels = np.concatenate([answers for _, answers in map(
    train_generator.__getitem__, range(len(train_generator)))])
shapes = {train_generator[index][0].shape for index in range(len(train_generator))}
train_generator.on_epoch_end()
row = 3
alone = load_photos(photos.test_folder, [test_df["filename"][row]] * 2, IMAGE_SIZE)
convolutions = [layer for layer in model.layers if type(layer).__name__ == "Conv2D"]
facts = {
    "photos": len(df),
    "train": len(train_df),
    "validation": len(validation_df),
    "validation_dogs": int((validation_df["label"] == "dog").sum()),
    "shared": len(set(train_df["filename"]) & set(validation_df["filename"])),
    "labels_follow_names": bool((df["label"] == df["filename"].str[:3].str.lower()).all()),
    "parameters": model.count_params(),
    "trained": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
    "first_convolution": list(convolutions[0].output.shape),
    "last_dense": model.layers[-1].units,
    "layers": [type(layer).__name__ for layer in model.layers],
    "stopping": [early_stopping.monitor, early_stopping.patience,
                 early_stopping.restore_best_weights],
    "reduction": [learning_rate_reduction.monitor, learning_rate_reduction.patience,
                  learning_rate_reduction.factor, learning_rate_reduction.min_lr,
                  learning_rate_reduction.cooldown],
    "augmentation_changes": float(np.abs(train_generator[0][0].astype(float) - first).mean()),
    "epoch_photos": len(epoch_labels),
    "shapes_of_batches": len(shapes),
    "epoch_is_repeatable": np.array_equal(train_generator[1][0], train_generator[1][0]),
    "validation_is_unchanged": np.array_equal(
        plain, validation_generator.pixels[: len(plain)]),
    "scaled_to_1": float(np.abs(
        keras.ops.convert_to_numpy(model.layers[0](plain)).astype(float) - plain / 255).max()),
    "example_variants": float(np.abs(variants[0].astype(float) - variants[1]).mean()),
    "test_files": list(test_df["filename"]),
    "prediction_shape": list(prediction.shape),
    "prediction_follows_file": float(
        np.abs(model.predict(alone, verbose=0) - prediction[row]).max()),
    "labels_follow_prediction": bool(
        ((test_df["dog"] > test_df["cat"]) == (test_df["label"] == "dog")).all()),
    "categories_follow_labels": bool(
        ((test_df["category"] == 1) == (test_df["label"] == "dog")).all()),
    "submission": pd.read_csv(resume_training.folder / "submission.csv").to_dict("list"),
    "history": history.history["val_accuracy"],
    "log": pd.read_csv(resume_training.log_file)["val_accuracy"].tolist(),
    "losses": pd.read_csv(resume_training.log_file)["loss"].tolist(),
    "finished_epochs": finished_epochs,
    "model_file": model_file.exists(),
    "phone_file": str(phone_file.resolve()),
    "phone_answers": phone_model.predict(test_generator.pixels[:100], verbose=0).tolist(),
    "rounding": float(np.abs(phone_model.predict(test_generator.pixels[:100], verbose=0)
                             - prediction[:100]).max()),
}
print("FACTS " + json.dumps(facts))
"""


# Executed before and after step 2, so that one processor passes for two GPUs.
TWO_DEVICES = """%%capture
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
"""
TWO_GPUS = """
import hardware

hardware.find_gpus = lambda: ["cpu:0", "cpu:1"]
"""


def run(environment, two_gpus=False):
    """Execute a copy of the notebook; return its facts and everything it printed."""
    notebook = read()
    if two_gpus:
        place = [cell.id for cell in notebook.cells].index("step-02-quiet")
        notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(TWO_GPUS))
        notebook.cells.insert(place, nbformat.v4.new_code_cell(TWO_DEVICES))
    notebook.cells.append(nbformat.v4.new_code_cell(FACTS))
    execute(notebook, environment, timeout=900)
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    streams = [output for output in outputs if output.output_type == "stream"]
    assert not [output.text for output in streams if output.name == "stderr"]
    for output in outputs:
        if "image/png" in output.get("data", {}):
            assert output.metadata["image/png"]["alt"], "every picture has a text alternative"
    printed = "".join(output.text for output in streams)
    return json.loads(re.search(r"FACTS (.*)", printed).group(1)), printed


def check(facts):
    """What must hold whatever the photos are."""
    assert facts["train"] + facts["validation"] == facts["photos"]
    assert facts["validation"] == pytest.approx(0.2 * facts["photos"], abs=1)
    assert facts["validation_dogs"] == pytest.approx(facts["validation"] / 2, abs=1)
    assert facts["shared"] == 0
    assert facts["labels_follow_names"]
    assert facts["parameters"] == 12_942_786
    assert facts["trained"] == 12_941_314
    assert facts["first_convolution"] == [None, 126, 126, 32]
    assert facts["last_dense"] == 2
    block = ["Conv2D", "MaxPooling2D", "ReLU", "BatchNormalization", "Dropout"]
    head = ["Flatten", "Dense", "BatchNormalization", "Dropout", "Dense"]
    assert facts["layers"] == ["Rescaling", *block * 3, *head]
    assert facts["stopping"] == ["val_accuracy", 10, True]
    patience = 2 if facts["photos"] > 10_000 else 5
    assert facts["reduction"] == ["val_accuracy", patience, 0.5, 0.00001, 5]
    assert facts["augmentation_changes"] > 5
    assert facts["example_variants"] > 5
    assert facts["epoch_is_repeatable"]
    assert facts["epoch_photos"] == facts["train"]
    assert facts["shapes_of_batches"] <= 2, "a backend that compiles does so once or twice"
    assert facts["validation_is_unchanged"]
    assert facts["scaled_to_1"] < 0.005, "up to the rounding of 16-bit numbers"
    numbers = [int(name.split(".")[0]) for name in facts["test_files"]]
    assert numbers == sorted(numbers)
    assert facts["prediction_shape"] == [len(numbers), 2]
    assert facts["prediction_follows_file"] < 0.02  # 16-bit numbers round differently in a batch
    assert facts["labels_follow_prediction"]
    assert facts["categories_follow_labels"]
    assert facts["submission"]["id"] == numbers
    assert set(facts["submission"]["label"]) <= {0, 1}
    assert facts["history"] == pytest.approx(facts["log"])
    assert facts["model_file"]


# All tests that use it run in one process.
@pytest.fixture(scope="module", params=[pytest.param(2, marks=pytest.mark.xdist_group("drawings"))])
def on_drawings(drawings, tmp_path_factory):
    """One execution on a small practice set, with two epochs of training."""
    environment = {
        "DOGS_VS_CATS_DATA": str(drawings),
        "DOGS_VS_CATS_SOURCE": "practice",
        "OUTPUT_FOLDER": str(tmp_path_factory.mktemp("outputs with spaces")),
        "EPOCHS": "2",
    }
    return environment, *run(environment)


@pytest.mark.trains
def test_the_whole_notebook_on_drawings(on_drawings):
    _, facts, printed = on_drawings
    check(facts)
    assert facts["photos"] == 160
    assert len(facts["test_files"]) == 100
    assert facts["finished_epochs"] == 0
    assert "DRAWINGS" in printed
    assert "No earlier training" in printed
    for which, count in [("Validation", 32), ("Test", 100)]:  # a practice set's answers are known
        assert re.search(rf"{which} photos: [\d.]+% of {count} right \(95% interval: ", printed)
    assert "There are no photos in the folder my_photos yet" in printed


@pytest.mark.trains
def test_the_saved_model_needs_nothing_of_this_project(on_drawings, tmp_path):
    environment, *_ = on_drawings
    (model,) = Path(environment["OUTPUT_FOLDER"]).glob("*/dogs_vs_cats.keras")
    (photo, *_) = sorted(Path(environment["DOGS_VS_CATS_DATA"], "test1").glob("1.jpg"))
    script = f"""
import keras, numpy as np
from PIL import Image
model = keras.models.load_model({str(model)!r})
photo = np.asarray(Image.open({str(photo)!r}).resize((128, 128)))
print(model.count_params(), model.predict(photo[None], verbose=0).sum())
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    parameters, shares = done.stdout.split()
    assert int(parameters) == 12_942_786 and float(shares) == pytest.approx(1, abs=1e-3)


@pytest.mark.trains
def test_the_exported_model_needs_nothing_of_this_project(on_drawings, tmp_path):
    environment, facts, printed = on_drawings
    names = facts["test_files"][:100]
    pixels = load_photos(Path(environment["DOGS_VS_CATS_DATA"], "test1"), names, (128, 128))
    answers = use_export(facts["phone_file"], pixels, tmp_path)
    np.testing.assert_allclose(answers, facts["phone_answers"], atol=0.001)
    assert np.ptp(answers[:, 0]) > 0.01, "answers that are all alike would compare as equal"
    assert facts["rounding"] < (0.001 if "Precision: float32" in printed else 0.05)
    differences = re.findall(r"Largest difference from .*, over 100 photos: (0\.\d+)", printed)
    assert len(differences) == 2 and float(differences[1]) < 0.001


@pytest.mark.trains
def test_a_second_run_loads_the_model_and_a_larger_epochs_continues_it(on_drawings):
    environment, before, _ = on_drawings
    facts, printed = run(environment)
    check(facts)
    assert "loaded instead of training again" in printed
    assert facts["log"] == before["log"]

    facts, printed = run(environment | {"EPOCHS": "3"})
    check(facts)
    assert "It goes on with epoch 3." in printed
    assert re.findall(r"epoch +(\d+/\d+) ", printed)[:2] == ["1/3", "2/3"], "those of before"
    assert facts["log"][:2] == before["log"]
    assert len(facts["log"]) == 3


@pytest.mark.slow  # two devices on one processor sometimes get into each other's way in TensorFlow
def test_several_gpus_share_the_work_and_learn_as_one_does(on_drawings, tmp_path):
    environment, before, _ = on_drawings
    environment = environment | {"OUTPUT_FOLDER": str(tmp_path), "PRECISION": "float32"}
    # Two devices on one processor wait for each other, each in a thread of its own.
    environment["TF_NUM_INTEROP_THREADS"] = "8"
    facts, printed = run(environment, two_gpus=True)
    check(facts)
    assert "2 GPUs share every batch." in printed
    # Each device normalizes its own half of a batch and draws its own dropout. In so short a
    # training that counts for much: on one device, three seeds had 4.0, 2.8 and 2.3 in epoch 1.
    assert facts["losses"] == pytest.approx(before["losses"], rel=0.5)

    facts, printed = run(environment | {"EPOCHS": "3"}, two_gpus=True)
    check(facts)
    assert "It goes on with epoch 3." in printed


@pytest.mark.trains
@pytest.mark.skipif(
    not REAL_PHOTOS.exists(), reason="NOT TESTED ON REAL PHOTOS: ../shared/photos is not here"
)
def test_the_whole_notebook_on_real_photos_of_original_size(tmp_path):
    data = tmp_path / "내 사진"
    shutil.unpack_archive(REAL_PHOTOS, data)
    facts, printed = run(
        {
            "DOGS_VS_CATS_DATA": str(data),
            "OUTPUT_FOLDER": str(tmp_path / "outputs"),
            "EPOCHS": "1",
            "PRECISION": "float32",
        }
    )
    check(facts)
    assert facts["photos"] == 300
    assert len(facts["test_files"]) == 100
    assert "DRAWINGS" not in printed


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["42", "43"])
def test_the_drawings_are_learned_within_eight_minutes(tmp_path, seed):
    start = time.monotonic()
    facts, printed = run(
        {
            "DOGS_VS_CATS_DATA": str(tmp_path / "data"),
            "DOGS_VS_CATS_SOURCE": "practice",
            "OUTPUT_FOLDER": str(tmp_path / "outputs"),
            "SEED": seed,
        }
    )
    assert time.monotonic() - start < 8 * 60
    assert max(facts["log"]) > 0.95
    assert float(re.search(r"([\d.]+)% of 200 right", printed).group(1)) > 95


@pytest.mark.parametrize(("count", "batch", "patience"), [(25_000, 128, 2), (2_700, 16, 5)])
def test_settings_that_depend_on_the_number_of_photos(count, batch, patience, monkeypatch):
    for name in ["BATCH_SIZE", "EPOCHS"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(NOTEBOOK.parent)
    photos = SimpleNamespace(train_files=range(count))
    names = {"photos": photos, "Path": Path, "keras": SimpleNamespace(utils=Mock())}
    sources = {cell.id: cell.source for cell in code_cells(read())}
    for cell in ["step-04-settings", "step-11-callbacks", "step-13-reduction"]:
        exec(sources[cell], names)
    assert names["EPOCHS"] == 50
    assert names["BATCH_SIZE"] == batch
    assert names["learning_rate_reduction"].patience == patience


def test_opened_alone_it_says_what_is_missing_and_how_to_get_it(tmp_path):
    (first, *_) = code_cells(read())
    command = [sys.executable, "-c", first.source]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines()[-1] == (
        "FileNotFoundError: This notebook needs the project around it: get the whole of it, and "
        "open the notebook from its folder, notebooks."
    )


@pytest.mark.trains
@pytest.mark.parametrize("start", [".", "notebooks", "../somewhere else"])
def test_started_from_anywhere_it_finds_the_photos(start, tmp_path):
    project = write(tmp_path / "project", {f"data/{n}": d for n, d in READY.items()})
    for script in ROOT.glob("data/*.py"):
        shutil.copy(script, project / "data")
    (project / "notebooks").mkdir()
    (first, *_) = code_cells(read())
    notebook = nbformat.v4.new_notebook(cells=[first])
    nbformat.write(notebook, project / "notebooks" / "first.ipynb")
    here = project / start
    here.mkdir(exist_ok=True)
    path = os.path.relpath(project / "notebooks" / "first.ipynb", here)
    command = [sys.executable, "-m", "jupyter", "execute", "--inplace", path]
    environment = {name: v for name, v in os.environ.items() if not name.startswith("DOGS_VS")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=here, env=environment)
    assert done.returncode == 0, done.stderr
    executed = nbformat.read(project / "notebooks" / "first.ipynb", as_version=4)
    printed = "".join(output.text for output in executed.cells[0].outputs)
    assert f"12 labeled photos (6 cats, 6 dogs) in {Path('../data/train')}\n" in printed


def test_what_the_notebook_links_to_is_there():
    text = "\n".join(cell.source for cell in read().cells if cell.cell_type == "markdown")
    links = {link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link}
    assert links >= {"../data/README.md", "../tests/benchmark.md"}
    for link in links:
        assert (NOTEBOOK.parent / link.split("#")[0]).is_file(), link


def test_headings_are_numbered_through_with_a_cell_under_each():
    steps, code_under = [], {}
    for cell in read().cells:
        if cell.cell_type == "markdown":
            steps += [int(step) for step in re.findall(r"^## (\d+)\. ", cell.source, flags=re.M)]
        elif steps:
            code_under[steps[-1]] = code_under.get(steps[-1], 0) + 1
    assert steps == list(range(LAST_STEP + 1))
    assert all(code_under.get(step) for step in range(LAST_STEP + 1))


def test_the_committed_outputs_belong_to_the_committed_code():
    notebook = read()
    assert notebook.metadata.get("code_fingerprint") == fingerprint(notebook), (
        "code cells were changed after the outputs were made: run python tests/run_notebook.py"
    )
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), "not executed from top to bottom in one run"
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("total = 1  # a comment\ndef add(n):\n    'Say more.'\n    return n + total", True),
        ("all_of_it = 1\ndef add(n):\n    return n + all_of_it", True),
        ("all_of_it = 1\ndef add(n):\n    return n + total", False),
        ("total = 2\ndef add(n):\n    'Say.'\n    return n + total", False),
        ("total = 1\ndef add(n):\n    return n - total", False),
        ("total = 1\ndef add(n, total):\n    return n + total", False),
    ],
)
def test_only_what_changes_no_output_may_change_after_a_run(other, same):
    source = "total = 1\ndef add(n):\n    'Say.'\n    return n + total"
    ran, now = (
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
        for code in [source, other]
    )
    assert (fingerprint(ran) == fingerprint(now)) is same


def printed_in(step):
    """Return what the committed outputs of a step's cells print, one after the other."""
    cells = [cell for cell in code_cells(read()) if cell.id.startswith(f"step-{step}-")]
    return "".join(output.get("text", "") for cell in cells for output in cell.outputs)


def test_the_committed_run_is_on_all_photos():
    assert "20,000 photos to train on, 5,000 to validate with" in printed_in(16)
    assert "12,500 photos in" in printed_in(29)
    lines = re.findall(r"epoch .* val_accuracy (0\.\d+)", printed_in(24))
    kept = re.search(r"the model that was kept: (0\.\d+)", printed_in(24)).group(1)
    assert max(map(float, lines)) == pytest.approx(float(kept), abs=0.0002)


@pytest.mark.parametrize(("step", "accuracy"), [(24, 0.948), (39, 0.960)])
def test_the_committed_trainings_are_full_ones(step, accuracy):
    lines = re.findall(r"epoch .* val_accuracy (0\.\d+)", printed_in(step))
    epochs = [float(value) for value in lines]
    assert 5 < len(epochs) <= 50, "one line an epoch, trained or loaded"
    assert max(epochs) >= accuracy
    best_so_far = list(accumulate(epochs, max))
    falls = [best - value for best, value in zip(best_so_far, epochs, strict=True)]
    assert max(falls[5:]) <= 0.03, "no epoch after the fifth far below the best one before it"
    assert epochs[0] > 0.55, "the first epoch is better than guessing"


def test_the_way_to_the_first_training_is_short():
    code, words = 0, 0
    for cell in read().cells:
        if cell.cell_type == "code" and "model.fit(" in cell.source:
            break
        if cell.cell_type == "code":
            code += sum(bool(line.strip()) for line in cell.source.splitlines())
        else:
            words += len(cell.source.split())
    assert code <= 170
    assert words <= 2000


def test_nothing_heavy_or_private_is_committed():
    assert (ROOT / "notebooks" / "dogs_vs_cats.ipynb").stat().st_size < 5_000_000
    text = (ROOT / "notebooks" / "dogs_vs_cats.ipynb").read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(?:home|root|Users|work|mnt|tmp)/\w", text)
    for script in [*ROOT.glob("notebooks/*.py"), *ROOT.glob("data/*.py")]:
        assert "shared" + "/" not in script.read_text(encoding="utf-8")
