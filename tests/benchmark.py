"""Time the notebook against the 2019 version of it, side by side on the same photos.

    python tests/benchmark.py FOLDER

FOLDER holds `train` and `test1` (or archives for step 0 to unpack). The notebook's own cells are
run up to step 21; beside them stands a minimal working form of the 2019 pipeline. Everything is
timed in turn, several rounds over, and the medians are printed as the tables of `benchmark.md`.
Close everything else: on a busy machine all figures are low, and even the ratios suffer.
"""

import argparse
import math
import os
import platform
import statistics
import sys
import time
import warnings
from datetime import date

OLD_BATCH_SIZE = 15
STEP_21 = "validation_generator = PhotoGenerator("


def old_model():
    """Return the network as it stood in 2019: normalization before pooling, nothing averaged."""
    import keras
    from keras import layers

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
    """Return a `PyDataset` that hands out the batches of `generator` without preparing them."""
    import keras

    class Batches(keras.utils.PyDataset):
        def __init__(self):
            super().__init__(workers=2)

        batches = [generator[index] for index in range(len(generator))]

        def __len__(self):
            return len(self.batches)

        def __getitem__(self, index):
            return self.batches[index]

    return Batches()


def seconds(work):
    """Return how long a call of `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def train(model, generator, steps=None):
    """Train one epoch, or `steps` batches of it."""
    model.fit(generator, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)


def read_all(generator):
    """Have a generator prepare each of its batches."""
    for index in range(len(generator)):
        generator[index]


def gigaflop_per_photo(model):
    """Return the additions and multiplications of a training step, for one photo.

    Counted are the products of convolutions and Dense layers: forward, for the gradient of the
    weights, and for the gradient of the input, which the first layer does not need.
    """
    total = 0
    for layer in model.layers:
        if type(layer).__name__ in ("Conv2D", "Dense"):
            places = math.prod(layer.output.shape[1:-1])  # 1 for Dense
            forward = 2 * places * math.prod(layer.kernel.shape)
            total += forward * (2 if layer is model.layers[0] else 3)
    return total / 1e9


def matrix_gigaflops(dtype, size=4096):
    """Return the rate of the processor's own matrix product, in GFLOP/s."""
    import keras

    left = keras.random.normal((size, size), dtype=dtype)

    def product():
        float(keras.ops.matmul(left, left)[0, 0])

    product()
    return 2 * size**3 / min(seconds(product) for _ in range(5)) / 1e9


def processor():
    """Return the processor's name, number of cores and what it has for 16-bit numbers."""
    name, extras = platform.processor() or platform.machine(), ""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            text = file.read()
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


def compare(notebook, photos, rounds):
    """Time both pipelines in turn and print the first table."""
    import keras

    steps = math.ceil(photos / notebook["BATCH_SIZE"])
    some = notebook["train_df"].sample(steps * notebook["BATCH_SIZE"], random_state=0)
    folder = notebook["photos"].train_folder
    new = notebook["PhotoGenerator"](some.reset_index(drop=True), folder, augment=True)
    old = old_generator(some.head(len(some) // 2), folder)

    old_net = old_model()
    trainings = {"2019, float32": (old_net, old, in_memory(old), old.n, "float32")}
    precisions = ["float32"] + [p for p in [notebook["PRECISION"]] if p != "float32"]
    memory = in_memory(new)
    for precision in precisions:
        keras.config.set_dtype_policy(precision)
        model = notebook["build_model"]()
        trainings[f"notebook, {precision}"] = (model, new, memory, len(some), precision)
    for model, generator, batches, _, _ in trainings.values():
        train(model, generator, steps=2)
        train(model, batches, steps=2)

    times = {(name, kind): [] for name in trainings for kind in ["training", "in memory"]}
    generator_times = {"2019": [], "notebook": []}
    for _ in range(rounds):
        generator_times["2019"].append(old.n / seconds(lambda: read_all(old)))
        generator_times["notebook"].append(len(some) / seconds(lambda: read_all(new)))
        for name, (model, generator, batches, count, _) in trainings.items():
            for kind, source in [("training", generator), ("in memory", batches)]:
                took = seconds(lambda model=model, source=source: train(model, source))
                times[name, kind].append(count / took)

    rates = {key: statistics.median(values) for key, values in times.items()}
    products = {p: matrix_gigaflops(p.removeprefix("mixed_")) for p in precisions}
    work = gigaflop_per_photo(old_net)
    rows = []
    for name, (*_, precision) in trainings.items():
        training, memory_rate = rates[name, "training"], rates[name, "in memory"]
        share = training * work / products[precision]
        low, high = min(times[name, "training"]), max(times[name, "training"])
        rows.append(
            (
                name,
                f"{training:.0f} ({low:.0f} to {high:.0f})",
                f"{training / rates['2019, float32', 'training']:.2f}",
                f"{memory_rate:.0f}",
                f"{training / memory_rate:.0%}",
                f"{training * work:.0f} of {products[precision]:.0f} GFLOP/s: {share:.0%}",
            )
        )
    head = ["training", "photos/s, augmentation included", "ratio", "batches in memory, photos/s"]
    table([*head, "share of that reached", "share of the matrix product's rate"], rows)

    ready = {name: statistics.median(values) for name, values in generator_times.items()}
    rows = [(name, f"{rate:,.0f}", f"{rate / ready['2019']:.1f}") for name, rate in ready.items()]
    table(["generator alone, with augmentation", "photos/s", "ratio"], rows)
    return model


def predict(notebook, model):
    """Time decoding and predicting all test photos."""
    files = notebook["photos"].test_files
    test_df = notebook["pd"].DataFrame({"filename": files})
    start = time.perf_counter()
    generator = notebook["PhotoGenerator"](test_df, notebook["photos"].test_folder)
    decoded = time.perf_counter()
    model.predict(generator, verbose=0)
    done = time.perf_counter()
    row = (f"{len(files):,}", f"{decoded - start:.1f}", f"{done - decoded:.1f}")
    table(
        ["test photos", "decoding, s", "predicting, s", "both, s"], [(*row, f"{done - start:.1f}")]
    )


def scale(notebook, model, counts, steps=40):
    """Print what a photo costs when there are few of them and when there are many."""
    import psutil

    rows = []
    for count in counts:
        some = notebook["df"].sample(count, random_state=0).reset_index(drop=True)
        before = psutil.Process().memory_info().rss
        start = time.perf_counter()
        generator = notebook["PhotoGenerator"](some, notebook["photos"].train_folder, augment=True)
        decoding = time.perf_counter() - start
        memory = psutil.Process().memory_info().rss - before
        steps_here = min(steps, count // notebook["BATCH_SIZE"])
        prepared = steps_here * notebook["BATCH_SIZE"]

        def prepare(generator=generator, steps_here=steps_here):
            for index in range(steps_here):
                generator[index]

        preparing = min(seconds(prepare) for _ in range(3))
        training = min(seconds(lambda: train(model, generator, steps_here)) for _ in range(3))  # noqa: B023
        rows.append(
            (
                f"{count:,}",
                f"{1000 * decoding / count:.2f}",
                f"{1000 * preparing / prepared:.2f}",
                f"{1000 * training / prepared:.2f}",
                f"{memory / count / 1000:.1f}",
            )
        )
    head = ["photos", "decoding, ms a photo", "preparing, ms a photo", "training, ms a photo"]
    table([*head, "memory, MB per 1,000 photos"], rows)


def main():
    """Read the arguments, run everything, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="where train and test1 lie")
    parser.add_argument("--photos", type=int, default=3840, help="how many are trained on")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    warnings.filterwarnings("ignore")
    sys.argv = sys.argv[:1]
    from run_notebook import run_cells

    notebook = run_cells(
        STEP_21,
        {
            "DOGS_VS_CATS_DATA": os.path.abspath(arguments.folder),
            "OUTPUT_FOLDER": os.path.join(os.path.abspath(arguments.folder), os.pardir, "outputs"),
        },
    )
    print(f"{date.today()}, {processor()}; chosen: {notebook['PRECISION']}")
    model = compare(notebook, arguments.photos, arguments.rounds)
    predict(notebook, model)
    available = len(notebook["df"])
    scale(notebook, model, [count for count in [1000, 5000, 25_000] if count <= available])


if __name__ == "__main__":
    main()
