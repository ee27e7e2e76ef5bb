"""Time the notebook against the 2019 version of it, side by side on the same photos.

    python tests/benchmark.py FOLDER

FOLDER holds `train` and `test1` (or archives for step 0 to unpack). The notebook's own cells are
run up to step 21; beside them stands a minimal working form of the 2019 pipeline. Each is timed
in turn, in several rounds: for whole epochs, which are what one waits for, and, before and after
each, for half as many batches from memory; means of all rounds are compared. The tables that are
printed stand in `benchmark.md`. It takes about 35 minutes on 2 cores. Close everything else: on a
busy machine all figures are low, and even the ratios suffer.
"""

import argparse
import math
import os
import platform
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import numpy as np
from run_notebook import run_cells
from trials import TRIALS

OLD = "2019, float32"
OLD_BATCH_SIZE = 15
MEMORY_PHOTOS = 1920  # photos in the batches that are kept in memory, and used again and again
STEP_21 = "validation_generator = PhotoGenerator("


def old_model():
    """Return the network as it stood in 2019: normalization before pooling, nothing averaged.

    It is built in float32, which is left behind as Keras's dtype policy.
    """
    import keras
    from keras import layers

    keras.config.set_dtype_policy("float32")  # the notebook may have chosen another
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


def in_memory(generator, length):
    """Return a `PyDataset` of so many batches of `generator`, prepared beforehand.

    If they have more photos than `MEMORY_PHOTOS`, the same ones are handed out over and over.
    """
    import keras

    photos_per_batch = len(generator[0][0])
    count = max(1, min(MEMORY_PHOTOS // photos_per_batch, length))

    class Batches(keras.utils.PyDataset):
        batches = [generator[index] for index in range(count)]

        def __init__(self):
            super().__init__(workers=2)

        def __len__(self):
            return length

        def __getitem__(self, index):
            return self.batches[index % count]

    return Batches()


def seconds(work):
    """Return how long a call of `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def train(model, generator, steps=None):
    """Train one epoch, or `steps` batches of it.

    Returns:
        The seconds that the epoch took, and the seconds from one batch to the next in between.
    """
    import keras

    ends = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter())
    )
    whole = seconds(
        lambda: model.fit(
            generator, steps_per_epoch=steps, callbacks=[note], shuffle=False, verbose=0
        )
    )
    return whole, (ends[-1] - ends[0]) / (len(ends) - 1)


def read_batches(generator, count, threads=1):
    """Have a generator prepare `count` batches in so many threads; return the seconds it took."""
    with ThreadPoolExecutor(threads) as pool:
        return seconds(lambda: list(pool.map(generator.__getitem__, range(count))))


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


def compare(notebook, whole_photos, rounds):
    """Time both pipelines in turn and print the first two tables; return the last model."""
    import keras

    batch_size = notebook["BATCH_SIZE"]
    train_df = notebook["train_df"].head(whole_photos)
    folder = notebook["photos"].train_folder
    new = notebook["AugmentedPhotoGenerator"](train_df, folder)
    old = old_generator(train_df, folder)

    precisions = ["float32"] + [p for p in [notebook["PRECISION"]] if p != "float32"]
    new_batches = in_memory(new, math.ceil(len(new) / 2))
    old_batches = in_memory(old, math.ceil(len(old) / 2))
    pipelines = {OLD: (old_model(), old, old_batches, OLD_BATCH_SIZE, "float32")}
    for precision in precisions:
        keras.config.set_dtype_policy(precision)
        model = notebook["build_model"]()
        pipelines[f"notebook, {precision}"] = (model, new, new_batches, batch_size, precision)
    for model, generator, batches, _, _ in pipelines.values():
        train(model, generator, steps=2)
        train(model, batches, steps=2)

    ready = {name: [] for name in ["2019", "notebook, one thread", "notebook, its two workers"]}
    for _ in range(rounds):
        count = len(old_batches.batches)
        ready["2019"].append(count * OLD_BATCH_SIZE / read_batches(old, count))
        count = len(new_batches.batches)
        for name, threads in [("notebook, one thread", 1), ("notebook, its two workers", 2)]:
            ready[name].append(count * batch_size / read_batches(new, count, threads))

    epochs, from_memory = {name: [] for name in pipelines}, {name: [] for name in pipelines}
    for _ in range(rounds):
        for name, (model, generator, batches, *_) in pipelines.items():
            # From memory before the epoch and after it, since a machine's speed drifts.
            before = train(model, batches)[1]
            epochs[name].append(train(model, generator))
            from_memory[name].append((before + train(model, batches)[1]) / 2)
    memory, whole, between, shares = {}, {}, {}, {}
    for name, (_, generator, _, size, _) in pipelines.items():
        epoch_seconds, per_batch = np.array(epochs[name]).T
        photos_per_batch = len(train_df) / len(generator)  # the last two batches are smaller
        memory[name] = size / np.mean(from_memory[name])
        whole[name] = len(train_df) / epoch_seconds.mean()
        between[name] = photos_per_batch / per_batch.mean()
        shares[name] = (from_memory[name] / per_batch) * photos_per_batch / size

    products = {p: matrix_gigaflops(p.removeprefix("mixed_")) for p in precisions}
    work = gigaflop_per_photo(pipelines[OLD][0])
    rows = []
    for name, (*_, precision) in pipelines.items():
        rate, product = whole[name], products[precision]
        rows.append(
            (
                name,
                ", ".join(f"{epoch_seconds:.0f}" for epoch_seconds, _ in epochs[name]),
                f"{rate:.0f}",
                f"{rate / whole[OLD]:.2f}",
                f"{between[name]:.0f}",
                f"{between[name] / between[OLD]:.2f}",
                f"{memory[name]:.0f}",
                f"{between[name] / memory[name]:.1%}"
                f" ({', '.join(f'{share:.1%}' for share in shares[name])})",
                f"{rate * work:.0f} of {product:.0f} GFLOP/s, {rate * work / product:.0%}",
            )
        )
    head = [f"epoch of {len(train_df):,} photos", "seconds", "photos/s", "ratio"]
    head += ["while batches run, photos/s", "ratio", "from memory, photos/s"]
    table([*head, "share of that", "share of the matrix product's rate"], rows)

    rates = {name: max(values) for name, values in ready.items()}
    rows = [(name, f"{rate:,.0f}", f"{rate / rates['2019']:.1f}") for name, rate in rates.items()]
    table(["generator alone, with augmentation", "photos/s", "ratio"], rows)
    return model


def compare_layers(notebook, rounds):
    """Time training from memory with Keras's own layers, one or both, and with the notebook's."""
    import keras

    train_df = notebook["train_df"].head(MEMORY_PHOTOS)
    generator = notebook["AugmentedPhotoGenerator"](train_df, notebook["photos"].train_folder)
    batches = in_memory(generator, len(generator))
    names = ["Keras's own layers", "Keras's own normalization", "Keras's own Conv2D"]
    precisions = dict.fromkeys(["float32", notebook["PRECISION"]])
    models = {}
    for precision in precisions:
        for name in names:
            edits, _ = TRIALS[name]  # sets the precision as well
            own = run_cells("model = build_model()", {"PRECISION": precision}, edits)
            models[name, precision] = own["build_model"]()
        keras.config.set_dtype_policy(precision)
        models["notebook", precision] = notebook["build_model"]()

    for model in models.values():
        train(model, batches, steps=2)
    times = {key: [] for key in models}
    for _ in range(2 * rounds):
        for key, model in models.items():  # in turn, since a machine's speed drifts
            times[key].append(train(model, batches)[1] / notebook["BATCH_SIZE"])
    rows = []
    for name, precision in models:
        rates = ", ".join(f"{1 / seconds:.0f}" for seconds in times[name, precision])
        ratio = np.mean(times["Keras's own layers", precision]) / np.mean(times[name, precision])
        rows.append((precision, name, rates, f"{ratio:.2f}"))
    table(["from memory", "layers", "photos/s", "ratio"], rows)


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
        generator = notebook["AugmentedPhotoGenerator"](some, notebook["photos"].train_folder)
        decoding = time.perf_counter() - start
        memory = psutil.Process().memory_info().rss - before
        batches = min(steps, len(generator))
        size = count / len(generator)
        preparing = min(read_batches(generator, batches) for _ in range(3)) / batches
        training = min(train(model, generator, batches)[1] for _ in range(2))
        rows.append(
            (
                f"{count:,}",
                f"{1000 * decoding / count:.2f}",
                f"{1000 * preparing / size:.2f}",
                f"{1000 * training / size:.2f}",
                f"{memory / count / 1000:.1f}",
            )
        )
    head = ["photos", "decoding, ms a photo", "preparing, ms a photo", "training, ms a photo"]
    table([*head, "memory, MB per 1,000 photos"], rows)


def main():
    """Read the arguments, run everything, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="where train and test1 lie")
    parser.add_argument("--photos", type=int, default=20_000, help="in a whole epoch, at most")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    warnings.filterwarnings("ignore")
    notebook = run_cells(STEP_21, {"DOGS_VS_CATS_DATA": os.path.abspath(arguments.folder)})
    print(f"{date.today()}, {processor()}; chosen: {notebook['PRECISION']}")
    model = compare(notebook, arguments.photos, arguments.rounds)
    compare_layers(notebook, arguments.rounds)
    predict(notebook, model)
    available = len(notebook["df"])
    counts = [count for count in [1000, 5000, 25_000] if count <= available]
    scale(notebook, model, counts or [available])


if __name__ == "__main__":
    main()
