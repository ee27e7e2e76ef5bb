"""A training on several machines or GPUs comes to what one comes to, also when it was killed."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

reason = "NOT TESTED: takes minutes on two cores; run `CI= pytest -n 0 tests/test_machines.py`"
pytestmark = [pytest.mark.once, pytest.mark.skipif(bool(os.environ.get("CI")), reason=reason)]
SCRIPT = [ROOT / "notebooks/train_on_several_machines.py", "--size=32", "--epochs=6"]
SCRIPT += ["--learning-rate=0.0001"]  # with 0.001, what is rounded otherwise grows to 0.1

# Cells of the notebook; after its settings come one line for several GPUs and smaller settings.
CELLS = "00-photos 03-imports 04-size 04-settings 05-table 09-network 09-compile 11-callbacks"
CELLS += " 12-stopping 13-reduction 14-list 15-labels 16-split 20-augmentation 20-generator"
CELLS += " 21-validation 24-fast 24-fit"
LINES = """
keras.distribution.set_distribution(keras.distribution.DataParallel())
IMAGE_WIDTH, IMAGE_HEIGHT, IMAGE_SIZE = 32, 32, (32, 32)
LEARNING_RATE, EPOCHS = 0.0001, 6
"""


@pytest.fixture(scope="module")
def folder(photos, tmp_path_factory):
    """A folder with photos of cats and dogs, and one to test."""
    folder = tmp_path_factory.mktemp("machines")
    shutil.copytree(photos[1], folder / "photos/train")
    (folder / "photos/test1").mkdir()
    shutil.copy(folder / "photos/train/cat.0.png", folder / "photos/test1/1.png")
    return folder


@pytest.fixture(scope="module")
def start(folder):
    """Return a function that starts Python; what has not ended by itself is killed at the end."""
    started = []

    def start_python(*arguments, **variables):
        variables |= {"DOGS_VS_CATS_DATA": ".", "KERAS_BACKEND": "jax"}
        variables |= {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
        variables |= {"PYTHONPATH": str(ROOT / "notebooks")}
        options = {"cwd": folder / "photos", "env": os.environ | variables}
        started.append(subprocess.Popen([sys.executable, *arguments], **options))
        return started[-1]

    yield start_python
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def alone(folder, start):
    """The name and the table of a training in one process, with one device."""
    assert start(*SCRIPT, f"--folder={folder / 'alone'}").wait(600) == 0
    return log_in(folder / "alone")


def log_in(outputs):
    """Return the name of the training in a folder, and the table of its epochs."""
    (path,) = outputs.glob("*/training_log.csv")
    return path.parent.name, pd.read_csv(path).drop(columns="seconds")


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: JAX's processes meet on Linux")
def test_two_processes_come_to_what_one_comes_to_also_when_killed(folder, start, alone):
    mine, other = folder / "mine", folder / "other"

    def start_two():
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]  # free again in a moment
        both = [*SCRIPT, f"--address=127.0.0.1:{port}", "--processes=2"]
        return [start(*both, f"--folder={mine}"), start(*both, "--process=1", f"--folder={other}")]

    running = start_two()
    while not list(mine.glob("*/training_log.csv")):
        assert not any(process.poll() for process in running)
        time.sleep(0.01)
    for process in running:
        process.kill()
        process.wait()
    finished = len(log_in(mine)[1])
    assert finished < 6, "killed in the middle"
    assert not list(other.glob("*/*")), "process 0 alone writes"

    shutil.copytree(mine, other, dirs_exist_ok=True)  # as where machines share no disk
    assert [process.wait(600) for process in start_two()] == [0, 0]
    name, log = log_in(mine)
    np.testing.assert_allclose(log, alone[1], rtol=0.001)
    assert len(log_in(other)[1]) == finished, "process 0 alone writes"
    assert (mine / name / "dogs_vs_cats.keras").is_file()


def test_several_gpus_need_one_line_in_the_notebook(folder, start, alone):
    notebook = json.loads((ROOT / "notebooks/dogs_vs_cats.ipynb").read_text(encoding="utf-8"))
    cells = {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"]}
    cells["step-04-settings"] += LINES
    script = "\n".join(cells[f"step-{name}"] for name in CELLS.split())
    two_devices = "--xla_force_host_platform_device_count=2"
    assert start("-c", script, XLA_FLAGS=two_devices).wait(600) == 0
    name, log = log_in(folder / "outputs")
    assert name == alone[0], "the script trains what the notebook trains"
    np.testing.assert_allclose(log, alone[1], rtol=0.001)
