"""The notebook runs on any photos, computes what it says, and shows outputs of its own code."""

import base64
import io
import json
import re
import shutil
import statistics
import subprocess
import sys
import warnings

import nbformat
import numpy as np
import pytest
from PIL import Image
from run_notebook import (
    NOTEBOOK,
    ROOT,
    code_cells,
    copy_project,
    execute,
    fingerprint,
    read,
    with_parameters,
)

REAL_PHOTOS = ROOT.parent / "shared" / "photos" / "original-size-sample.zip"
LAST_STEP = 41

INSTALLATION = {"%pip install --quiet --requirement ../requirements.txt\n": ""}
# Executed behind the last cell: what the notebook computed, as the kernel sees it.
FACTS = """
import json

convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
fourth = PhotoGenerator(test_df.iloc[[3]], photos.test_folder)
np.savez("../outputs/fourth.npz", photo=fourth[0], said=prediction[3])
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
    "stopping": [early_stopping.monitor, early_stopping.patience,
                 early_stopping.restore_best_weights],
    "reduction": [learning_rate_reduction.monitor, learning_rate_reduction.patience,
                  learning_rate_reduction.factor, learning_rate_reduction.min_lr],
    "example_variants": float(np.abs(variants[0].astype(float) - variants[1]).mean()),
    "validation_is_unchanged": np.array_equal(
        validation_generator[0][0], validation_generator.pixels[:len(validation_generator[0][0])]),
    "test_files": list(test_df["filename"]),
    "prediction_shape": list(prediction.shape),
    "prediction_follows_file": float(
        np.abs(model.predict(fourth, verbose=0) - prediction[3]).max()),
    "labels_follow_prediction": bool(
        ((test_df["dog"] > test_df["cat"]) == (test_df["label"] == "dog")).all()),
    "categories_follow_labels": bool(
        ((test_df["category"] == 1) == (test_df["label"] == "dog")).all()),
    "submission": pd.read_csv("../outputs/submission.csv").to_dict("list"),
    "val_accuracy": training_log["val_accuracy"].tolist(),
    "kept": validation_accuracy,
    "model_megabytes": model_file.stat().st_size / 1e6,
}
print("FACTS " + json.dumps(facts))
"""


def run(project, edits=None, last=None, environment=None, **parameters):
    """Execute a copy of the notebook in a copy of the project; return facts and what it printed.

    `edits` are pieces of source and what takes their place, by default the installation and
    nothing; `last` is the id of the last cell.
    """
    notebook, edits = read(), INSTALLATION if edits is None else edits
    if last:
        ids = [cell.id for cell in notebook.cells]
        notebook.cells = notebook.cells[: ids.index(last) + 1]
    for old, new in edits.items():
        cells = [cell for cell in code_cells(notebook) if old in cell.source]
        assert cells, old
        for cell in cells:
            cell.source = cell.source.replace(old, new)
    notebook.cells.append(nbformat.v4.new_code_cell(FACTS))
    execute(with_parameters(notebook, **parameters), project, environment, timeout=900)
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    streams = [output for output in outputs if output.output_type == "stream"]
    assert not [output.text for output in streams if output.name == "stderr"]
    for output in outputs:
        check_picture(output)
    printed = "".join(output.text for output in streams)
    return json.loads(re.search(r"FACTS (.*)", printed).group(1)), printed


def check_picture(output):
    """A picture has a text alternative, can be opened, and is no wider than a page."""
    for kind in ["image/png", "image/jpeg"]:
        if kind in output.get("data", {}):
            assert output.metadata[kind]["alt"]
            assert Image.open(io.BytesIO(base64.b64decode(output.data[kind]))).size[0] <= 1300


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
    assert facts["stopping"] == ["val_accuracy", 10, True]
    patience = 2 if facts["photos"] > 10_000 else 5
    assert facts["reduction"] == ["val_accuracy", patience, 0.5, 0.00001]
    assert facts["example_variants"] > 5
    assert facts["validation_is_unchanged"]
    numbers = [int(name.split(".")[0]) for name in facts["test_files"]]
    assert numbers == sorted(numbers)
    assert facts["prediction_shape"] == [len(numbers), 2]
    assert facts["prediction_follows_file"] < 0.001
    assert facts["labels_follow_prediction"]
    assert facts["categories_follow_labels"]
    assert facts["submission"]["id"] == numbers
    assert set(facts["submission"]["label"]) <= {0, 1}
    assert facts["kept"] == pytest.approx(max(facts["val_accuracy"]), abs=0.03)  # 16 bits round
    assert facts["model_megabytes"] < 55


@pytest.fixture(scope="module")
def on_drawings(tmp_path_factory):
    """One execution on the practice set, with one epoch of each training."""
    project = copy_project(tmp_path_factory.mktemp("a folder with spaces") / "project")
    practice = {"DOGS_VS_CATS_SOURCE": "practice"}
    return project, *run(project, edits={}, environment=practice, EPOCHS=1)


def test_the_whole_notebook_on_drawings(on_drawings):
    _, facts, printed = on_drawings
    check(facts)
    assert facts["photos"] == 1000 and len(facts["test_files"]) == 200
    assert "THESE ARE DRAWINGS" in printed
    assert re.search(r"test: [\d.]+% of 200 photos right \(", printed), "answers are known"


@pytest.mark.once
def test_the_saved_model_needs_nothing_of_this_project(on_drawings, tmp_path):
    project, _, _ = on_drawings
    script = """
import keras, numpy as np
model = keras.models.load_model("dogs_vs_cats.keras")
fourth = np.load("fourth.npz")
answers = model.predict(fourth["photo"], verbose=0)
print(model.count_params(), np.abs(answers - fourth["said"]).max(), answers.dtype)
"""
    for name in ["dogs_vs_cats.keras", "fourth.npz"]:
        shutil.copy(project / "outputs" / name, tmp_path)
    command = [sys.executable, "-I", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    parameters, difference, kind = done.stdout.split()
    assert int(parameters) == 12_942_786 and kind == "float32"
    assert float(difference) < 0.001, "it says the same"


@pytest.fixture(scope="module")
def small_project(tmp_path_factory):
    """Return a project with small synthetic photos: on the left, cats are bright."""
    project = copy_project(tmp_path_factory.mktemp("small") / "project")
    random = np.random.default_rng(0)
    names = [f"train/{kind}.{n}.jpg" for kind in ["cat", "dog"] for n in range(30)]
    names += [f"test1/{n}.jpg" for n in range(1, 13)]
    for number, name in enumerate(names):
        pixels = random.integers(0, 120, (90, 100, 3), dtype="uint8")
        half = slice(0, 50) if "cat" in name or number % 2 else slice(50, 100)
        pixels[:, half] += 100
        path = project / "data" / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return project


@pytest.mark.once
def test_run_again_with_more_epochs_it_goes_on(small_project):
    first, _ = run(small_project, last="step-34-grid", EPOCHS=1)
    more, printed = run(small_project, last="step-34-grid", EPOCHS=3)
    check(more)
    assert "goes on with epoch 2." in printed
    assert more["val_accuracy"][:1] == first["val_accuracy"]


WITHOUT_OURS = INSTALLATION | {  # and pieces of step 24
    "from helpers.speed import faster\n": "",
    "from helpers.training import ResumeTraining\n": "",
    "fast = faster(model)\n": "fast = model\n",
    "resume_training = ResumeTraining("
    "model, [train_generator, validation_generator], callbacks)": "",
    "callbacks=[resume_training]": "callbacks=callbacks",
}


@pytest.mark.once
def test_without_the_two_lines_of_ours_it_still_trains(small_project):
    facts, _ = run(small_project, WITHOUT_OURS, "step-34-grid", EPOCHS=2)
    # Plain Keras keeps the optimizer in the file, and averages nothing.
    check(facts | {"model_megabytes": 0, "kept": max(facts["val_accuracy"])})


ANOTHER_ACTIVATION = INSTALLATION | {
    "Conv2D(filters, 3)": 'Conv2D(filters, 3, activation="elu")',
    "    model.add(layers.ReLU())\n": "",
}


@pytest.mark.once
@pytest.mark.skipif(
    not REAL_PHOTOS.exists(), reason="NOT TESTED ON REAL PHOTOS: ../shared/photos is not here"
)
def test_real_photos_of_original_size_and_a_network_that_a_reader_changed(tmp_path):
    project = copy_project(tmp_path / "프로젝트")
    shutil.unpack_archive(REAL_PHOTOS, project / "data")
    facts, printed = run(project, ANOTHER_ACTIVATION, "step-38-reliability", EPOCHS=1)
    check(facts)
    assert facts["photos"] == 300 and len(facts["test_files"]) == 100
    assert "DRAWINGS" not in printed


# What a reader meets who runs nothing.


def texts():
    """Return the source of all text cells."""
    return [cell.source for cell in read().cells if cell.cell_type == "markdown"]


def test_step_2_hides_what_will_change_in_later_versions_and_nothing_else():
    (source,) = [cell.source for cell in code_cells(read()) if cell.id == "step-02-quiet"]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        exec(source, {})
        for kind in [UserWarning, FutureWarning, RuntimeWarning, DeprecationWarning]:
            warnings.warn("Your input ran out of data", kind, stacklevel=1)
    assert [warning.category for warning in seen] == [UserWarning, RuntimeWarning]


def test_the_house_stays_small():
    for folder, most in {"notebooks": 1_800, "tests": 3_000}.items():
        sources = [path.read_text(encoding="utf-8") for path in (ROOT / folder).rglob("*.py")]
        assert sum(source.count("\n") for source in sources) <= most


def test_headings_are_numbered_as_the_steps_are_and_each_has_a_cell_of_its_own():
    steps, cells = [], {}
    for cell in read().cells:
        if cell.cell_type == "markdown":
            steps += [int(number) for number in re.findall(r"^## (\d+)\. ", cell.source, re.M)]
        else:
            cells[steps[-1]] = cells.get(steps[-1], 0) + 1
    assert steps == list(range(LAST_STEP + 1)) == sorted(cells)
    assert max(count for step, count in cells.items() if step > 34) == cells[39] <= 3


def test_outputs_belong_to_the_code():
    notebook = read()
    assert notebook.metadata["code_fingerprint"] == fingerprint(notebook), (
        "the code was changed after the outputs were made: execute it with tests/run_notebook.py"
    )
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for output in (output for cell in cells for output in cell.outputs):
        assert output.output_type != "error" and output.get("name") != "stderr"
        check_picture(output)
    assert NOTEBOOK.stat().st_size < 1.5e6


def test_the_published_run_saw_all_photos_and_reached_its_goals():
    outputs = {cell.id: cell.outputs for cell in code_cells(read())}
    assert "25,000 labeled photos" in outputs["step-00-photos"][0].text
    printed = "".join(output.text for output in outputs["step-24-fit"])
    accuracies = list(map(float, re.findall(r"val_accuracy ([\d.]+)  rate", printed)))
    assert max(accuracies) >= 0.94
    assert all(accuracies[n] > max(accuracies[:n]) - 0.03 for n in range(5, len(accuracies)))
    compared = outputs["step-39-fit"][-1].data["text/plain"]
    rows = re.findall(r"^(?:step 9|residual) +[\d,]+ +([\d.]+) +([\d.]+)%", compared, re.M)
    (minutes, right), (residual_minutes, residual_right) = [map(float, row) for row in rows]
    assert residual_minutes < minutes / 3 and residual_right > right - 0.5


def test_facts_of_the_walkthrough_stand_in_text_and_outputs():
    notebook, text = read(), "\n".join(texts())
    summary = next(cell for cell in code_cells(notebook) if cell.id == "step-10-summary")
    shown = json.dumps(summary.outputs)
    for fact in ["12,942,786", "12,941,314", "(None, 126, 126, 32)", "(None, 2)"]:
        assert fact in re.sub(r"<[^>]*>", "", shown)
    for fact in ["12,942,786", "1,472", "896", "126 × 126", "12,500", "25,000", "one-hot"]:
        assert fact in text


def test_nothing_gets_longer_unnoticed():
    notebook = read()
    ids = [cell.id for cell in notebook.cells]
    before = notebook.cells[: ids.index("step-24-fit")]
    words = [
        len(re.sub(r"<details>.*?</details>", "", cell.source, flags=re.S).split())
        for cell in before
        if cell.cell_type == "markdown"
    ]
    lines = [
        sum(bool(line.strip()) for line in cell.source.splitlines())
        for cell in code_cells(notebook)
    ]
    assert sum(words) <= 1_900
    assert sum(lines[: sum(cell.cell_type == "code" for cell in before)]) <= 130
    assert statistics.median(lines) <= 6 and max(lines) <= 30


def test_cells_of_the_walkthrough_use_little_of_ours():
    imported = set()
    for cell in code_cells(read()):
        if int(cell.id.split("-")[1]) <= 34:
            for names in re.findall(r"^from helpers\.\w+ import (.*)", cell.source, re.M):
                imported |= set(names.split(", "))
    assert imported == {
        *("get_photos", "show", "show_photos", "PhotoGenerator"),
        *("faster", "ResumeTraining"),
    }


def test_opened_without_the_project_the_text_names_the_error(tmp_path):
    (first, *_) = code_cells(read())
    command = [sys.executable, "-c", first.source]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    error = done.stderr.splitlines()[-1]
    assert "No module named 'helpers'" in error
    assert "No module named 'helpers'" in texts()[0]
