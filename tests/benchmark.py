"""Time the notebook against the 2019 version of it, side by side on the same photos.

    python tests/benchmark.py FOLDER --photos 2000 --rounds 2

FOLDER holds `train` and `test1`, or an archive of them. Network, twin, generator and settings come
out of the notebook's own cells; beside them stands a minimal working form of the 2019 pipeline.
They take turns: in each round every one trains for an epoch and, before and after it, on batches
from memory, as a computer's speed drifts. Close everything else. Figures are in `benchmark.md`.
"""

import argparse
import contextlib
import io
import os
import platform
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from time import perf_counter

from run_notebook import ROOT, code_cells, read

sys.path.insert(0, str(ROOT / "notebooks"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np
from helpers.photos import get_photos
from helpers.speed import choose_precision, faster
from helpers.training import ResumeTraining
from keras import layers
from keras.callbacks import LambdaCallback

OLD, PLAIN = "2019, float32", "step 9 without its twin, float32"
MEMORY_PHOTOS = 1920  # photos in the batches that are kept in memory


def run_cells(names, first, last, until=None):
    """Run the notebook's cells from one id to another, each up to a text; return all names."""
    cells = code_cells(read())
    ids = [cell.id for cell in cells]
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in cells[ids.index(first) : ids.index(last) + 1]:
            exec(cell.source.split(until)[0] if until else cell.source, names)
    return names


def old_network():
    """Return the network of 2019: normalization before pooling, nothing averaged, 32 bits."""
    model = keras.Sequential([keras.Input((128, 128, 3))])
    for filters in [32, 64, 128]:
        model.add(layers.Conv2D(filters, 3, activation="relu"))
        model.add(layers.BatchNormalization())
        model.add(layers.MaxPooling2D())
        model.add(layers.Dropout(0.25))
    model.add(layers.Flatten())
    model.add(layers.Dense(512, activation="relu"))
    model.add(layers.BatchNormalization())
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(2, activation="softmax"))
    model.compile("rmsprop", loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def old_generator(table, folder):
    """Return batches of 15 from ImageDataGenerator, which TensorFlow still has as an alias."""
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    changes = {"rotation_range": 15, "shear_range": 0.1, "zoom_range": 0.2}
    changes |= {"width_shift_range": 0.1, "height_shift_range": 0.1, "horizontal_flip": True}
    options = {"x_col": "filename", "y_col": "label", "target_size": (128, 128), "batch_size": 15}
    generator = ImageDataGenerator(rescale=1 / 255, **changes)
    return generator.flow_from_dataframe(table, str(folder), **options)


def prepare(generator, threads=1):
    """Return the first 1,920 photos in batches, and how many were prepared a second."""
    count = min(MEMORY_PHOTOS // generator.batch_size, len(generator))
    with ThreadPoolExecutor(threads) as pool:
        start = perf_counter()
        batches = list(pool.map(generator.__getitem__, range(count)))
    return batches, sum(len(photos) for photos, _ in batches) / (perf_counter() - start)


def in_memory(generator):
    """Return a `PyDataset` of batches that were prepared beforehand."""

    class Batches(keras.utils.PyDataset):
        batches, _ = prepare(generator)
        batch_size, n = generator.batch_size, sum(len(photos) for photos, _ in batches)

        def __len__(self):
            return len(self.batches)

        def __getitem__(self, index):
            return self.batches[index]

    return Batches(workers=2)


def train(model, generator, callbacks=()):
    """Train for an epoch; return how many photos went by a second after the first batch."""
    ends = []
    note = LambdaCallback(on_train_batch_end=lambda batch, logs: ends.append(perf_counter()))
    with contextlib.redirect_stdout(io.StringIO()):
        model.fit(generator, callbacks=[*callbacks, note], shuffle=False, verbose=0)
    return (generator.n - generator.batch_size) / (ends[-1] - ends[0])


def processor():
    """Return the processor's name, its number of cores, and what makes its arithmetic fast."""
    text = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    name = text.split("model name\t: ")[-1].split("\n")[0] or platform.processor()
    flags = [f for f in ["avx2", "avx512f", "avx512_bf16", "amx_bf16"] if f" {f} " in text]
    return f"{os.cpu_count()} cores, {name} ({', '.join(flags)})"


def print_table(head, rows):
    """Print a Markdown table; a cell is a text or a list of numbers."""
    print("\n| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for row in rows:
        texts = [c if isinstance(c, str) else ", ".join(f"{n:,.0f}" for n in c) for c in row]
        print(f"| {' | '.join(texts)} |", flush=True)


def compare_generators(old, new, rounds):
    """Print how many photos a second the generators prepare."""
    ways = {"2019": (old, 1), "notebook, one thread": (new, 1), "notebook, two threads": (new, 2)}
    rates = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            rates[name].append(prepare(*way)[1])
    rows = [(name, r, f"{np.mean(r) / np.mean(rates['2019']):.1f}") for name, r in rates.items()]
    print_table(["generator alone, with augmentation", "photos a second", "ratio"], rows)


def compare_training(model, old, new, rounds):
    """Print how many photos a second the networks train on: 2019's, step 9's, and its twins."""
    networks = {OLD: (old_network(), old), PLAIN: (model, new)}
    for bits in dict.fromkeys(["float32", choose_precision()]):
        networks[f"step 24, {bits}"] = (faster(model, bits), new)
    memory = {generator: in_memory(generator) for generator in (old, new)}
    for network, generator in networks.values():
        network.fit(memory[generator], steps_per_epoch=2, verbose=0)  # it also compiles
    epochs, from_memory = {name: [] for name in networks}, {name: [] for name in networks}
    for _ in range(rounds):
        for name, (network, generator) in networks.items():
            from_memory[name].append(train(network, memory[generator]))
            with tempfile.TemporaryDirectory() as folder:
                own = [ResumeTraining(model, [new, new], folder=folder)] if "24" in name else []
                epochs[name].append(train(network, generator, own))
            from_memory[name].append(train(network, memory[generator]))
    rows = []
    for name, rates in epochs.items():
        ratio = np.mean(rates) / np.mean(epochs[OLD])
        gain = np.mean(from_memory[name]) / np.mean(from_memory[PLAIN])
        rows.append((name, rates, f"{ratio:.2f}", from_memory[name], f"{gain:.2f}"))
    head = [f"epochs of {new.n:,} photos", "photos a second", "ratio to 2019", "from memory"]
    print_table([*head, "ratio to the plain network"], rows)


def main():
    """Read the arguments, time everything, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="where train and test1 lie")
    parser.add_argument("--photos", type=int, default=20_000, help="in an epoch, at most")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{date.today()}, {processor()}\n", flush=True)
    get_photos(options.folder)
    start = perf_counter()
    photos = get_photos(options.folder)
    print(f"Step 0 took {perf_counter() - start:.1f} s the second time.")
    names = run_cells({"photos": photos}, "step-03-imports", "step-16-split")
    names["train_df"] = table = names["train_df"].head(options.photos)
    new = run_cells(names, "step-20-augmentation", "step-20-generator")["train_generator"]
    old = old_generator(table, photos.train_folder)
    compare_generators(old, new, options.rounds)
    compare_training(names["model"], old, new, options.rounds)


if __name__ == "__main__":
    main()
