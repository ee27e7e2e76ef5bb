"""Processes that train together come to what one comes to, and go on together when killed.

The processes are on one computer, at its loopback address, and calculate with its processor.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import keras
import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
import several_machines
from photo_generator import PhotoGenerator
from photo_kit import saved, write
from PIL import Image
from practice_set import draw_practice_set
from run_notebook import ROOT, code_cells, read

NAMES = [several_machines.ADDRESSES, several_machines.NUMBER, several_machines.ID]
together = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="NOT TESTED: JAX's processes meet on Linux only"
)


def free_port():
    """Return the number of a port that nobody listens at."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


@pytest.fixture
def set_variables(monkeypatch):
    """Return a function that sets Keras's environment variables, with None for those to unset."""

    def set_all(*values, backend="jax"):
        monkeypatch.setattr(keras.backend, "backend", lambda: backend)
        for name, value in zip(NAMES, values, strict=True):
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize("names", [NAMES, *([name] for name in NAMES)])
def test_variables_that_are_set_must_be_right(names, set_variables, monkeypatch):
    set_variables(None, None, None)
    assert not several_machines.are_asked_for()
    for name in names:
        monkeypatch.setenv(name, "")
    assert several_machines.are_asked_for()
    with pytest.raises(ValueError, match=f"^{NAMES[0]} is not set; step 41 says what"):
        several_machines.read_variables()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("host:1", "2", None), f"{NAMES[2]} is not set; step 41"),
        (("host:1", "two", "0"), f"{NAMES[1]} is 'two'; it takes a whole number from 1 on."),
        (("host:1", "0", "0"), f"{NAMES[1]} is '0'; it takes a whole number from 1 on."),
        (("host:1", "2", "-1"), f"{NAMES[2]} is '-1'; it takes a whole number from 0 on."),
        (("host:1", "2", "2"), f"{NAMES[2]} is 2; with {NAMES[1]}=2 it is 0 to 1."),
        (("host", "2", "0"), f"{NAMES[0]} is 'host'; it takes the address of process 0 with a"),
        (("host:http", "2", "0"), f"{NAMES[0]} is 'host:http'; it takes the address of process"),
        (("host:99999", "2", "0"), f"{NAMES[0]} is 'host:99999'; it takes the address of"),
        (("a:1,b:1", "3", "0"), f"{NAMES[0]} holds 2 addresses, {NAMES[1]} is 3."),
    ],
)
def test_what_is_wrong_is_said(values, said, set_variables):
    set_variables(*values)
    with pytest.raises(ValueError) as raised:
        several_machines.read_variables()
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize("addresses", ["host:1", "host:1,other:1"])
def test_right_variables_are_read(addresses, set_variables):
    set_variables(addresses, "2", "1")
    assert several_machines.read_variables() == ("host:1", 1, 2)


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_only_jax_can_do_it(backend, set_variables):
    set_variables("host:1", "2", "0", backend=backend)
    with pytest.raises(ValueError, match=f"Keras runs on {backend}. .* set KERAS_BACKEND=jax, or"):
        several_machines.join_processes()


def meet_in_threads(port, numbers, count, patience):
    """Let processes of these numbers meet, in threads; return what each raised, or None."""
    raised = {}

    def meet(number):
        try:
            several_machines.meet(f"127.0.0.1:{port}", number, count, patience)
            raised[number] = None
        except ConnectionError as problem:
            raised[number] = str(problem)

    threads = [threading.Thread(target=meet, args=[number], daemon=True) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience + 20)
    return raised


def test_processes_wait_for_each_other():
    assert meet_in_threads(free_port(), [1, 2, 0], 3, 60) == {0: None, 1: None, 2: None}


def test_strangers_are_passed_over():
    port = free_port()

    def call():
        for _ in range(2):
            while not greeted.is_set():
                try:
                    with socket.create_connection(("127.0.0.1", port), timeout=1) as line:
                        line.sendall(b"GET / HTTP/1.1\r\n")
                        break
                except OSError:
                    time.sleep(0.05)
        greeted.set()

    greeted = threading.Event()
    threading.Thread(target=call, daemon=True).start()
    raised = {}
    first = threading.Thread(
        target=lambda: raised.update(meet_in_threads(port, [0], 2, 60)), daemon=True
    )
    first.start()
    assert greeted.wait(30)
    raised.update(meet_in_threads(port, [1], 2, 60))
    first.join(30)
    assert raised == {0: None, 1: None}


def test_who_does_not_come_is_named():
    port = free_port()
    raised = meet_in_threads(port, [0, 2], 4, 2)
    assert raised[0].startswith(f"Process 1, 3 did not come to 127.0.0.1:{port} within 2 seconds.")
    assert raised[2].startswith(f"Process 0 did not answer at 127.0.0.1:{port} within 2 seconds.")
    raised = meet_in_threads(free_port(), [1], 2, 1)
    assert raised[1].startswith("Process 0 did not answer at 127.0.0.1:")


def test_a_port_in_use_is_said():
    with socket.create_server(("", 0)) as door:
        port = door.getsockname()[1]
        raised = meet_in_threads(port, [0], 2, 5)
    assert raised[0].startswith(f"Process 0 cannot listen at port {port} (")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 44 noisy photos and the table of their names and labels."""
    names = [f"{kind}.{number}.png" for kind in ["cat", "dog"] for number in range(22)]
    random = np.random.default_rng(4)
    noise = [Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8)) for _ in names]
    files = {name: saved(photo, "PNG") for name, photo in zip(names, noise, strict=True)}
    folder = write(tmp_path_factory.mktemp("photos"), files)
    return folder, pd.DataFrame({"filename": names, "label": [name[:3] for name in names]})


@pytest.mark.parametrize(("processes", "devices"), [(2, 2), (2, 4), (4, 4), (1, 2)])
@pytest.mark.parametrize("count", [40, 41, 43, 44])
def test_the_shares_of_all_processes_are_the_batch(photos, processes, devices, count):
    folder, table = photos
    settings = {"target_size": (12, 12), "batch_size": 8, "shuffle": True, "rotation_range": 20}
    alone, generator = (
        PhotoGenerator(table[:count], folder, y_col="label", **settings) for _ in range(2)
    )
    shares = []
    for process in range(processes):
        generator.share = (process, processes, devices)
        shares.append(list(generator))
    rest = count % 8
    assert {len(share) for share in shares} == {5 + (rest >= devices)}
    for index, batches in enumerate(zip(*shares, strict=True)):
        pixels, answers = map(np.concatenate, zip(*batches, strict=True))
        whole = len(pixels)
        assert whole == 8 or (index == 5 and whole == rest - rest % devices)
        assert {len(batch[0]) for batch in batches} == {whole // processes}
        np.testing.assert_array_equal(pixels, alone[index][0][:whole])
        np.testing.assert_array_equal(answers, alone[index][1][:whole])


# A training like the notebook's, of a network of a few weights.
TRAINING = """
import os, signal, sys
from pathlib import Path
from hardware import choose_precision, start_keras_quietly, use_all_gpus
start_keras_quietly()
use_all_gpus()
import keras, numpy as np, pandas as pd
from keras import layers
from averaged_weights import UseAveragedWeights
from photo_generator import PhotoGenerator
from progress import say_how_long
from model_file import save_model
from resume_training import ResumeTraining
from several_machines import part, say_who_trained

photos, output, accident = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
me = int(os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID", 0))
choose_precision()  # what it prints must be the same in all processes
keras.utils.set_random_seed(1)
table = pd.read_csv(photos / "table.csv").sample(frac=1, random_state=1)
if accident == "other photos" and me == 1:
    table = table[::-1]
settings = {"directory": photos, "y_col": "label", "target_size": (12, 12)}
settings["batch_size"] = 9 if accident == "odd batches" else 8
train = PhotoGenerator(table[:28], shuffle=True, rotation_range=10, **settings)
validation = PhotoGenerator(table[28:], **settings)
model = keras.Sequential([keras.Input((12, 12, 3)), layers.Rescaling(1 / 255), layers.Conv2D(4, 3)])
model.add(layers.BatchNormalization())
model.add(layers.Dropout(0.25, noise_shape=(1, None, None, None)))
model.add(layers.Flatten())
model.add(layers.Dropout(0.5))
model.add(layers.Dense(2, activation="softmax", dtype="float32"))
optimizer = keras.optimizers.RMSprop(0.01, use_ema=True, ema_momentum=0.5)
optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
model.compile(optimizer, loss="categorical_crossentropy", metrics=["accuracy"])
stopping = keras.callbacks.EarlyStopping("val_accuracy", mode="max", restore_best_weights=True,
    patience=9)
reduction = keras.callbacks.ReduceLROnPlateau("val_accuracy", mode="max", patience=1, factor=0.5)
resume = ResumeTraining(output, stopping, reduction)
first = resume.start(model, train, validation, 4)

class Accident(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if len(resume.log) == 2 and batch == 2:
            if accident == "killed" or accident == "one is killed" and me == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if accident == "the stop button" and me == 0:
                signal.raise_signal(signal.SIGINT)

if first < 4:
    say_how_long(model, train, validation, 4 - first)
try:
    model.fit(train, validation_data=validation, epochs=4, initial_epoch=first, shuffle=False,
        verbose=0, callbacks=[resume, UseAveragedWeights(train), stopping, reduction, Accident()])
except KeyboardInterrupt as stop:
    print(stop, flush=True)
    os._exit(1)  # Jupyter kills the kernel then
one = model.predict(validation.pixels[:1], verbose=0)
odd = model.predict(validation.pixels[:13], verbose=0)
assert odd.shape == (13, 2) and np.abs(odd[:1] - one).max() < 0.02
print("KEPT", model.evaluate(validation, verbose=0)[1], resume.log["val_accuracy"].max())
save_model(model, resume.folder / "model.keras")
loaded = keras.models.load_model(resume.folder / "model.keras")
print("SAME", np.abs(loaded.predict(validation.pixels, verbose=0) -
    model.predict(validation.pixels, verbose=0)).max())
np.save(resume.folder / "weights.npy", np.concatenate([w.ravel() for w in model.get_weights()]))
say_who_trained()
part()
print("END")
"""


class Processes:
    """Starts processes that train together, each with its output in a file; ends them in time."""

    def __init__(self, folder, compiled):
        self.folder, self.compiled, self.running, self.files = folder, compiled, [], []

    def start(self, commands, environment=None):
        """Start a process for each command, with Keras's variables where there are several."""
        self.files = []
        port = free_port()
        for number, command in enumerate(commands):
            variables = {"KERAS_BACKEND": "jax", "PYTHONUNBUFFERED": "1"}
            variables["PYTHONPATH"] = f"{ROOT / 'notebooks'}{os.pathsep}{ROOT / 'data'}"
            variables["JAX_COMPILATION_CACHE_DIR"] = str(self.compiled)
            if len(commands) > 1:
                values = [f"127.0.0.1:{port}", str(len(commands)), str(number)]
                variables |= dict(zip(NAMES, values, strict=True))
            self.files.append(self.folder / f"printed-{time.monotonic_ns()}.txt")
            with open(self.files[-1], "w") as file:
                process = subprocess.Popen(
                    command,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=os.environ | variables | (environment or {}),
                )
            self.running.append(process)

    def wait(self, seconds):
        """Wait for all to end; return their exit statuses and what they printed."""
        end = time.monotonic() + seconds
        statuses = [process.wait(max(end - time.monotonic(), 1)) for process in self.running]
        self.running = []
        return statuses, [file.read_text(errors="replace") for file in self.files]

    def kill(self):
        """Kill all, with the processes that these have started."""
        for process in self.running:
            family = []
            if process.poll() is None:
                family = psutil.Process(process.pid).children(recursive=True)
                process.kill()
            for child in family:
                child.kill()
            process.wait(30)
        self.running = []


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A folder where JAX keeps what it has compiled."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def processes(tmp_path, compiled):
    """Starts processes; whatever happens, none is left."""
    group = Processes(tmp_path, compiled)
    yield group
    group.kill()


@pytest.fixture(scope="module")
def alone(photos, compiled, tmp_path_factory):
    """The log and the final weights of `TRAINING` in one process."""
    folder = tmp_path_factory.mktemp("alone")
    group = Processes(folder, compiled)
    try:
        statuses, printed = train(group, photos, folder / "outputs", count=1)
    finally:
        group.kill()
    assert statuses == [0], printed
    ((log,), (weights,)) = logs(folder / "outputs")
    assert len(log) == 4
    return log, weights


def train(processes, photos, output, accident="none", count=2, seconds=400, **environment):
    """Run `TRAINING` in so many processes; return their exit statuses and what they printed."""
    folder, table = photos
    table.to_csv(folder / "table.csv", index=False)
    command = [sys.executable, "-c", TRAINING, str(folder), str(output), accident]
    processes.start([command] * count, environment)
    return processes.wait(seconds)


def logs(output):
    """Return the training logs and the final weights below a folder: process 0's come first."""
    paths = sorted(output.glob("**/training_log.csv"), key=lambda path: len(path.parts))
    return [pd.read_csv(path) for path in paths], [
        np.load(path.with_name("weights.npy")) for path in paths
    ]


FIGURES = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]


@together
@pytest.mark.trains
def test_two_processes_come_to_what_one_comes_to_also_when_killed(
    processes, photos, alone, tmp_path
):
    statuses, printed = train(processes, photos, tmp_path / "two", "killed")
    assert statuses == [-signal.SIGKILL] * 2, printed
    statuses, printed = train(processes, photos, tmp_path / "two")
    assert statuses == [0, 0], printed
    precisions = {re.search("Precision: .*", text).group() for text in printed}
    assert len(precisions) == 1, "process 0 chooses"
    for number, text in enumerate(printed):
        assert f"This is process {number} of 2, counted from 0. Together they have 2 dev" in text
        assert "It goes on with epoch 3." in text
        kept, best = re.search(r"KEPT (\S+) (\S+)", text).groups()
        assert float(kept) == pytest.approx(float(best))
        assert float(re.search(r"SAME (\S+)", text).group(1)) < 1e-6
        assert f"2 processes (this is number {number}) and 2 devices to train on." in text
    two, two_weights = logs(tmp_path / "two")
    assert len(two) == 2
    for log, numbers in zip(two, two_weights, strict=True):
        np.testing.assert_allclose(log[FIGURES], alone[0][FIGURES], rtol=0.01)
        np.testing.assert_array_equal(numbers, two_weights[0])
        np.testing.assert_allclose(numbers, alone[1], atol=0.01)
    models = sorted(path.name for path in (tmp_path / "two").glob("**/epoch-*.keras"))
    assert 2 <= len(models) <= 3, "process 0 keeps them"
    assert not list((tmp_path / "two").glob("process-1/**/epoch-*"))


@together
@pytest.mark.trains
def test_two_devices_in_one_process_come_to_the_same(processes, photos, alone, tmp_path):
    two_devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    statuses, printed = train(processes, photos, tmp_path / "two", count=1, **two_devices)
    assert statuses == [0], printed
    assert "This run had 1 process and 2 devices to train on." in printed[0]
    ((shared,), _) = logs(tmp_path / "two")
    np.testing.assert_allclose(shared[FIGURES], alone[0][FIGURES], rtol=0.01)


@together
@pytest.mark.slow  # JAX takes 100 seconds to find out
@pytest.mark.parametrize("accident", ["one is killed", "the stop button"])
def test_when_one_process_ends_the_others_do(accident, processes, photos, tmp_path):
    statuses, printed = train(processes, photos, tmp_path / "out", accident, seconds=300)
    assert 0 not in statuses
    if accident == "the stop button":
        assert "Training was stopped in epoch 3. The other processes end as well." in printed[0]


@together
@pytest.mark.trains
@pytest.mark.parametrize(
    ("accident", "said"),
    [
        ("other photos", "ValueError: The processes differ in their photos, settings or code"),
        ("odd batches", "ValueError: 2 devices cannot share batches of 9 photos evenly: set"),
    ],
)
def test_what_cannot_be_shared_is_said_by_all(accident, said, processes, photos, tmp_path):
    statuses, printed = train(processes, photos, tmp_path / "out", accident)
    assert 0 not in statuses
    assert [said in text for text in printed] == [True, True]


# Executes the notebook without its pictures of outputs of before, and writes it where it is told.
EXECUTE = """
import sys
sys.path.insert(0, sys.argv[1])
import nbformat, run_notebook
notebook = nbformat.read(sys.argv[2], as_version=4)
try:
    run_notebook.execute(notebook, timeout=1200)
finally:
    nbformat.write(notebook, sys.argv[3])
"""


def execute(processes, folder, output, count, epochs):
    """Start the notebook itself on drawings, in so many processes, without waiting for it."""
    notebook = read()
    notebook.cells = [cell for cell in code_cells(notebook) if cell.id != "step-01-install"]
    for cell in notebook.cells:
        cell.outputs = []
    nbformat.write(notebook, folder / "notebook.ipynb")
    command = [sys.executable, "-c", EXECUTE, str(ROOT / "tests"), str(folder / "notebook.ipynb")]
    environment = {"DOGS_VS_CATS_DATA": str(folder / "data"), "OUTPUT_FOLDER": str(output)}
    environment |= {"EPOCHS": str(epochs), "PRECISION": "float32"}
    commands = [[*command, str(folder / f"executed-{number}.ipynb")] for number in range(count)]
    processes.start(commands, environment)


def printed_by(path):
    """Return what an executed notebook printed, and assert that it has no errors."""
    outputs = [
        output for cell in nbformat.read(path, as_version=4).cells for output in cell.outputs
    ]
    streams = [output for output in outputs if output.output_type == "stream"]
    assert not [output.text for output in streams if output.name == "stderr"]
    assert not [output for output in outputs if output.output_type == "error"]
    return "".join(output.text for output in streams)


@together
@pytest.mark.slow
def test_the_notebook_itself_in_two_processes(processes, tmp_path):
    draw_practice_set(tmp_path / "data", train=80, test=21)
    execute(processes, tmp_path, tmp_path / "one", 1, epochs=3)
    statuses, said = processes.wait(1500)
    assert statuses == [0], said
    (alone,) = (tmp_path / "one").glob("*/training_log.csv")

    execute(processes, tmp_path, tmp_path / "two", 2, epochs=3)
    end = time.monotonic() + 1500
    while not list((tmp_path / "two").glob("*/epoch-001.keras")):
        assert time.monotonic() < end and all(one.poll() is None for one in processes.running)
        time.sleep(0.1)
    time.sleep(1)
    processes.kill()
    (log,) = (tmp_path / "two").glob("*/training_log.csv")
    finished = len(pd.read_csv(log))
    assert finished < 3, "killed in the middle"

    execute(processes, tmp_path, tmp_path / "two", 2, epochs=3)
    statuses, said = processes.wait(1500)
    assert statuses == [0, 0], said
    for number in range(2):
        printed = printed_by(tmp_path / f"executed-{number}.ipynb")
        assert re.search(rf"It goes on with epoch [{finished + 1}-3]\.", printed)
        assert f"2 processes (this is number {number}) and 2 devices to train on." in printed
    paths = [log, *(tmp_path / "two").glob("process-1/*/training_log.csv")]
    for path in paths:
        figures, expected = pd.read_csv(path)[FIGURES], pd.read_csv(alone)[FIGURES]
        np.testing.assert_allclose(figures[:1], expected[:1], rtol=0.001)
        # What is rounded otherwise grows from batch to batch: it may turn three of the 64 photos.
        turned = figures["accuracy"] - expected["accuracy"]
        assert turned.abs().max() <= 3 / 64
        others = [name for name in FIGURES if name != "accuracy"]
        np.testing.assert_allclose(figures[others], expected[others], rtol=0.05)
        submission = pd.read_csv(path.with_name("submission.csv"))
        assert submission["id"].tolist() == list(range(1, 22)), "all test photos, in order"
    assert len(paths) == 2
