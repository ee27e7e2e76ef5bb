"""A training on several machines or GPUs comes to what one comes to, also when it was killed."""

import os
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from run_notebook import ROOT, code_cells, read

pytestmark = pytest.mark.apart
SCRIPT = [ROOT / "notebooks/train_on_several_machines.py", "network.keras", "--epochs=6"]

# Cells of the notebook, up to the network and from there on, and smaller settings.
NETWORK = "00-photos 03-imports 04-size 04-settings 05-table 09-network 09-compile"
TRAINING = "11-callbacks 12-stopping 13-reduction 14-list 15-labels 16-split 20-augmentation"
TRAINING += " 20-generator 21-validation 24-fit"
# With a rate of 0.001, what is rounded otherwise would grow to 0.1.
SETTINGS = """
IMAGE_WIDTH, IMAGE_HEIGHT, IMAGE_SIZE, LEARNING_RATE, EPOCHS = 32, 32, (32, 32), 0.0001, 6
"""
GPUS = "keras.distribution.set_distribution(keras.distribution.DataParallel())\n"


def script(names, settings):
    """Return the source of cells of the notebook, with lines added to its settings."""
    cells = {cell.id: cell.source for cell in code_cells(read())}
    cells["step-04-settings"] += settings
    return "\n".join(cells[f"step-{name}"] for name in names.split())


def log_in(outputs):
    """Return the name of the training in a folder, and the table of its epochs."""
    (path,) = outputs.glob("*/training_log.csv")
    return path.parent.name, pd.read_csv(path).drop(columns="seconds")


@pytest.fixture(scope="module")
def in_one_process(photos, tmp_path_factory):
    """Return a folder, a function that starts Python, and what a training in one process led to."""
    folder, started = tmp_path_factory.mktemp("machines"), []
    shutil.copytree(photos[1], folder / "photos/train")
    (folder / "photos/test1").mkdir()
    shutil.copy(folder / "photos/train/cat.0.png", folder / "photos/test1/1.png")
    common = {"PYTHONPATH": str(ROOT / "notebooks"), "KERAS_BACKEND": "jax"}
    common |= {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"), "DOGS_VS_CATS_DATA": "."}

    def start(*arguments, **variables):
        options = {"cwd": folder / "photos", "env": os.environ | common | variables}
        started.append(subprocess.Popen([sys.executable, *arguments], **options))
        return started[-1]

    save = 'model.save("network.keras")'
    assert start("-c", f"{script(NETWORK, SETTINGS)}\n{save}").wait(600) == 0
    assert start(*SCRIPT, f"--folder={folder / 'one'}").wait(600) == 0
    yield folder, start, *log_in(folder / "one")
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: JAX's processes meet on Linux")
def test_two_processes_come_to_what_one_comes_to_also_when_killed(in_one_process):
    folder, start, _, expected = in_one_process
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
    np.testing.assert_allclose(log, expected, rtol=0.001)
    assert len(log_in(other)[1]) == finished, "process 0 alone writes"
    assert (mine / name / "dogs_vs_cats.keras").is_file()


def test_several_gpus_need_one_line_in_the_notebook(in_one_process):
    folder, start, expected_name, expected = in_one_process
    two_devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    whole = script(f"{NETWORK} {TRAINING}", SETTINGS + GPUS)
    assert start("-c", whole, **two_devices).wait(600) == 0
    name, log = log_in(folder / "outputs")
    assert name == expected_name, "the script trains what the notebook trains"
    np.testing.assert_allclose(log, expected, rtol=0.001)
