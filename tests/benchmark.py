"""Time the notebook against the 2019 version of it, side by side on the same photos.

    python tests/benchmark.py FOLDER --photos 2000 --rounds 2

FOLDER holds `train` and `test1`, or an archive of them. Network, twin, generator and settings come
out of the notebook's own cells; beside them, in a process of its own, works a minimal form of the
2019 pipeline. They take turns, an epoch each in every round, as a computer's speed drifts. Close
everything else. Figures are in `benchmark.md`.
"""

import argparse
import contextlib
import io
import os
import platform
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

from run_notebook import ROOT, code_cells, read

sys.path.insert(0, str(ROOT / "notebooks"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from helpers.versions import compute_quickly

if __name__ == "__mp_main__":  # the process of 2019, which had no such settings
    del os.environ["TF_CPU_ALLOCATOR_USE_BFC"], os.environ["TF_ENABLE_ONEDNN_OPTS"]
else:
    compute_quickly()  # as step 1 does
import keras
import numpy as np
from helpers.photos import get_photos
from helpers.speed import choose_precision, faster
from helpers.training import ResumeTraining
from keras import layers
from keras.callbacks import LambdaCallback


def run_cells(names, first, last, replace=(), until=None):
    """Run the notebook's cells from one id to another, each up to a text; return all names.

    `replace` is a list of pairs: a piece of a cell, and what takes its place.
    """
    cells = code_cells(read())
    ids = [cell.id for cell in cells]
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in cells[ids.index(first) : ids.index(last) + 1]:
            source = cell.source.split(until)[0] if until else cell.source
            for old, new in replace:
                source = source.replace(old, new)
            exec(source, names)
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


def prepare(generator, threads=1, photos=1920):
    """Return how many photos a generator prepares a second."""
    batches = range(min(photos // generator.batch_size, len(generator)))
    with ThreadPoolExecutor(threads) as pool:
        start = perf_counter()
        done = sum(len(photos) for photos, _ in pool.map(generator.__getitem__, batches))
    return done / (perf_counter() - start)


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


def print_rates(title, rates):
    """Print a Markdown table of photos a second, the first row's way being the measure."""
    print(f"\n| {title} | photos a second | ratio |\n|---|---|---|")
    first = np.mean(next(iter(rates.values())))
    for name, each in rates.items():
        figures = ", ".join(f"{rate:,.0f}" for rate in each)
        print(f"| {name} | {figures} | {np.mean(each) / first:.2f} |", flush=True)


def time_2019(table, folder):
    """Return how many photos the 2019 version prepares a second, and on how many it trains."""
    generator = old_generator(table, folder)
    return prepare(generator), train(old_network(), generator)


def compare(model, table, folder, new, rounds):
    """Print how fast step 9's network and its twins and the generator are beside those of 2019."""
    prepared = {"2019": [], "notebook, one thread": [], "notebook, two threads": []}
    networks = {"step 9 as it is": model}
    for bits in dict.fromkeys(["float32", choose_precision()]):
        networks[f"step 24, {bits}"] = faster(model, bits)
    trained = {name: [] for name in ["2019, float32", *networks]}
    with ProcessPoolExecutor(1, get_context("spawn")) as own_process:
        for _ in range(rounds):
            old_prepared, old_trained = own_process.submit(time_2019, table, folder).result()
            prepared["2019"].append(old_prepared)
            trained["2019, float32"].append(old_trained)
            prepared["notebook, one thread"].append(prepare(new))
            prepared["notebook, two threads"].append(prepare(new, threads=2))
            for name, network in networks.items():
                with tempfile.TemporaryDirectory() as aside:
                    own = [ResumeTraining(model, [new], folder=aside)] if "24" in name else []
                    trained[name].append(train(network, new, own))
    print_rates("generator alone, with augmentation", prepared)
    print_rates(f"training, epochs of {new.n:,} photos", trained)


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
    compare(names["model"], table, photos.train_folder, new, options.rounds)


if __name__ == "__main__":
    main()
