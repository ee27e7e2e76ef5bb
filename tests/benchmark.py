"""Time the notebook against the 2019 version of it, side by side on the same photos.

    python tests/benchmark.py FOLDER --photos 5000 --rounds 2

FOLDER holds `train` and `test1` (or an archive for step 0 to unpack). The notebook's own cells are
run, in float32 and in bfloat16; beside them stands a minimal working form of the 2019 pipeline.
They take turns: in each round every one trains for a whole epoch, and before and after it on
batches from memory. The tables that are printed stand in `benchmark.md`. With these options it
takes about 10 minutes on 2 cores; without them, epochs have 20,000 photos and rounds are three.
Close everything else: on a busy machine all figures are low, and even the ratios suffer.
"""

import argparse
import os
import platform
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
from run_notebook import run_cells
from trials import TRIALS

OLD, OLD_BATCH_SIZE = "2019, float32", 15
MEMORY_PHOTOS = 1920  # photos in the batches that are kept in memory


def old_model():
    """Return the network as it stood in 2019: normalization before pooling, nothing averaged.

    It is built in float32, which is left behind as Keras's dtype policy.
    """
    import keras
    from keras import layers

    keras.config.set_dtype_policy("float32")
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

    augmentation = ImageDataGenerator(
        rescale=1 / 255,
        rotation_range=15,
        shear_range=0.1,
        zoom_range=0.2,
        width_shift_range=0.1,
        height_shift_range=0.1,
        horizontal_flip=True,
    )
    return augmentation.flow_from_dataframe(
        table,
        str(folder),
        x_col="filename",
        y_col="label",
        target_size=(128, 128),
        batch_size=OLD_BATCH_SIZE,
    )


def in_memory(generator):
    """Return a `PyDataset` of batches of `generator`, prepared beforehand: 1,920 photos or all."""
    import keras

    class Batches(keras.utils.PyDataset):
        def __init__(self):
            super().__init__(workers=2)
            count = min(MEMORY_PHOTOS // generator.batch_size, len(generator))
            self.batches = [generator[index] for index in range(count)]
            self.batch_size = generator.batch_size
            self.n = sum(len(photos) for photos, _ in self.batches)

        def __len__(self):
            return len(self.batches)

        def __getitem__(self, index):
            return self.batches[index]

    return Batches()


def train(model, generator):
    """Train an epoch; return its seconds, and the photos a second after the first batch."""
    import keras

    ends = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter())
    )
    start = time.perf_counter()
    model.fit(generator, callbacks=[note], shuffle=False, verbose=0)
    whole = time.perf_counter() - start
    return whole, (generator.n - generator.batch_size) / (ends[-1] - ends[0])


def preparing_rate(generator, threads=1):
    """Return the photos a second that a generator prepares in so many threads."""
    count = min(MEMORY_PHOTOS // generator.batch_size, len(generator))
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        batches = list(pool.map(generator.__getitem__, range(count)))
        return sum(len(photos) for photos, _ in batches) / (time.perf_counter() - start)


def processor():
    """Return the processor's name, number of cores and what it has for 16-bit numbers."""
    name, extras = platform.processor() or platform.machine(), ""
    if os.path.exists("/proc/cpuinfo"):
        text = Path("/proc/cpuinfo").read_text()
        name = text.split("model name\t: ")[-1].split("\n")[0]
        found = [flag for flag in ["avx512_bf16", "amx_bf16"] if f" {flag} " in text]
        extras = f" ({', '.join(found)})" if found else ""
    return f"{os.cpu_count()} cores, {name}{extras}"


def table(head, rows):
    """Print a Markdown table."""
    print("\n| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row) + " |")
    print(flush=True)


def listed(values):
    """Return numbers as text."""
    return ", ".join(f"{value:.0f}" for value in values)


def choose_precisions():
    """Return the precisions to time: bfloat16 only where a processor has the hardware for it."""
    from hardware import find_gpus, speed_of_bfloat16

    if find_gpus():
        return ["float32", "mixed_bfloat16"]
    speed = speed_of_bfloat16()
    print(f"A convolution in bfloat16 has {speed:.2f} times the speed of one in float32.")
    if speed < 1:
        print("So there are no rows for bfloat16.")
        return ["float32"]
    return ["float32", "mixed_bfloat16"]


def compare_generators(old, new, rounds):
    """Print how many photos a second the generators prepare, each in its best round."""
    ways = {
        "2019": (old, 1),
        "notebook, one thread": (new, 1),
        "notebook, its two workers": (new, 2),
    }
    rates = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (generator, threads) in ways.items():
            rates[name].append(preparing_rate(generator, threads))
    best = {name: max(values) for name, values in rates.items()}
    rows = [(name, f"{rate:,.0f}", f"{rate / best['2019']:.1f}") for name, rate in best.items()]
    table(["generator alone, with augmentation", "photos/s", "ratio"], rows)


def compare_training(old, new, precisions, rounds):
    """Print the tables of whole epochs and of the normalizations; return the last network."""
    layers = "Keras's own normalization"
    pipelines, others = {OLD: (old_model(), old)}, {}
    for precision in precisions:
        pipelines[f"notebook, {precision}"] = (build(precision, "as in the notebook"), new)
        others[f"{layers}, {precision}"] = build(precision, layers)
    memory = {generator: in_memory(generator) for generator in (old, new)}
    for model, generator in [*pipelines.values(), *((model, new) for model in others.values())]:
        model.fit(memory[generator], steps_per_epoch=2, verbose=0)

    epochs, between = {name: [] for name in pipelines}, {name: [] for name in pipelines}
    from_memory = {name: [] for name in [*pipelines, *others]}
    for _ in range(rounds):
        for name, (model, generator) in pipelines.items():
            # From memory before the epoch and after it, since a machine's speed drifts.
            from_memory[name].append(train(model, memory[generator])[1])
            whole, rate = train(model, generator)
            epochs[name].append(whole)
            between[name].append(rate)
            from_memory[name].append(train(model, memory[generator])[1])
        for name, model in others.items():
            from_memory[name] += [train(model, memory[new])[1] for _ in range(2)]

    mean = {name: np.mean(rates) for name, rates in between.items()}
    rows = [
        (
            name,
            listed(epochs[name]),
            listed(between[name]),
            f"{mean[name] / mean[OLD]:.2f}",
            listed(from_memory[name]),
            f"{mean[name] / np.mean(from_memory[name]):.1%}",
        )
        for name in pipelines
    ]
    head = [f"epoch of {new.n:,} photos", "seconds", "photos/s while batches run", "ratio"]
    table([*head, "from memory, photos/s", "share of that"], rows)

    rows = []
    for precision in precisions:
        keras_own = from_memory[f"{layers}, {precision}"]
        ours = from_memory[f"notebook, {precision}"]
        rows.append((precision, layers, listed(keras_own), "1.00"))
        ratio = np.mean(ours) / np.mean(keras_own)
        rows.append((precision, "notebook", listed(ours), f"{ratio:.2f}"))
    table(["from memory", "normalization", "photos/s", "ratio"], rows)
    return pipelines[f"notebook, {precisions[-1]}"][0]


def build(precision, trial):
    """Return the notebook's network, compiled, as it is or as one of `TRIALS` has it."""
    return run_cells("model.compile(", {"PRECISION": precision}, TRIALS[trial][0])["model"]


def predict(photos, model, batch_size):
    """Print how long decoding and predicting all test photos takes, and the memory they need."""
    import pandas as pd
    import psutil
    from photo_generator import PhotoGenerator

    test_df = pd.DataFrame({"filename": photos.test_files})
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    generator = PhotoGenerator(test_df, photos.test_folder, batch_size=batch_size)
    decoded = time.perf_counter()
    memory = (psutil.Process().memory_info().rss - before) / generator.n / 1000
    model.predict(generator, verbose=0)
    done = time.perf_counter()
    seconds = [decoded - start, done - decoded, done - start]
    table(
        ["test photos", "decoding, s", "predicting, s", "both, s", "memory, MB per 1,000 photos"],
        [(f"{generator.n:,}", *(f"{each:.1f}" for each in seconds), f"{memory:.0f}")],
    )


def main():
    """Read the arguments, run everything, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="where train and test1 lie")
    parser.add_argument("--photos", type=int, default=20_000, help="in an epoch, at most")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")

    environment = {"DOGS_VS_CATS_DATA": os.path.abspath(arguments.folder), "PRECISION": "float32"}
    notebook = run_cells("AUGMENTATION = {", environment)
    from photo_generator import PhotoGenerator

    print(f"{date.today()}, {processor()}")
    precisions = choose_precisions()
    train_df = notebook["train_df"].head(arguments.photos)
    photos, batch_size = notebook["photos"], notebook["BATCH_SIZE"]
    old = old_generator(train_df, photos.train_folder)
    new = PhotoGenerator(
        train_df,
        photos.train_folder,
        y_col="label",
        batch_size=batch_size,
        shuffle=True,
        **notebook["AUGMENTATION"],
    )
    compare_generators(old, new, arguments.rounds)
    model = compare_training(old, new, precisions, arguments.rounds)
    predict(photos, model, batch_size)


if __name__ == "__main__":
    main()
