"""Try another recipe for the training, and keep what came out.

    python tests/trials.py FOLDER "label smoothing 0.1" --epochs 10 --seed 42
    python tests/trials.py FOLDER "as in the notebook"

FOLDER holds `train` and `test1`. A trial is the notebook's own code up to step 23 with one piece
of it replaced (`TRIALS` below), trained by its own generators and callbacks. Each epoch becomes a
row of `trials.csv`; without a trial's name, the table of all rows is printed for `benchmark.md`.
"""

import argparse
import os
import time
import warnings
from datetime import date
from pathlib import Path

import pandas as pd
from run_notebook import run_cells

RESULTS = Path(__file__).with_name("trials.csv")
EPOCHS_SHOWN = [1, 2, 4, 6, 8, 10, 15, 20, 30, 40, 50]

RMSPROP = "keras.optimizers.RMSprop(LEARNING_RATE,"
LOSS = 'loss="categorical_crossentropy"'
LEARNING_RATE = "LEARNING_RATE = round(0.001 *"
AVERAGE = "use_ema=True, ema_momentum=MEMORY"
NORMALIZATION = "BatchNormalization(momentum=MEMORY)"
FAST_LAYERS = "from fast_layers import BatchNormalization, Conv2D"
OWN_CONVOLUTION = "from fast_layers import BatchNormalization\nfrom keras.layers import Conv2D"
OWN_NORMALIZATION = "from fast_layers import Conv2D\nfrom keras.layers import BatchNormalization"
OWN_LAYERS = "from keras.layers import BatchNormalization, Conv2D"

# What each trial replaces, and in which environment it runs.
TRIALS = {
    "as in the notebook": ({}, {}),
    "dropout drawn per photo": ({"ONE_DRAW = (1,": "ONE_DRAW = (None,"}, {}),
    "dropout drawn per batch in all blocks": ({"(128, None)": "(128, ONE_DRAW)"}, {}),
    "Keras's normalization momentum (0.99) and no weight averaging": (
        {NORMALIZATION: "BatchNormalization()", AVERAGE: ""},
        {},
    ),
    "normalization momentum 0.9": ({NORMALIZATION: "BatchNormalization(momentum=0.9)"}, {}),
    "weight averaging 0.999": ({AVERAGE: "use_ema=True, ema_momentum=0.999"}, {}),
    "batches of 32": ({}, {"BATCH_SIZE": "32"}),
    "batches of 64": ({}, {"BATCH_SIZE": "64"}),
    "half the learning rate": ({LEARNING_RATE: "LEARNING_RATE = round(0.0005 *"}, {}),
    "no cooldown": ({"cooldown=3": "cooldown=0"}, {}),
    "mirrored edge": ({'fill_mode="nearest"': 'fill_mode="reflect"'}, {}),
    "nearest pixel": (
        {'fill_mode="nearest"': 'interpolation="nearest", fill_mode="nearest"'},
        {},
    ),
    "black corners": ({'fill_mode="nearest"': 'fill_mode="constant"'}, {}),
    "all photos changed anew": ({"(rows + self.epoch) % 2 == 0": "rows >= 0"}, {}),
    "Keras's own Conv2D": ({FAST_LAYERS: OWN_CONVOLUTION}, {}),
    "Keras's own normalization": ({FAST_LAYERS: OWN_NORMALIZATION}, {}),
    "Keras's own layers": ({FAST_LAYERS: OWN_LAYERS}, {}),
    "weight decay 0.1": ({RMSPROP: f"{RMSPROP} weight_decay=0.1,"}, {}),
    "Adam": ({RMSPROP: "keras.optimizers.Adam(LEARNING_RATE,"}, {}),
    "SGD with momentum 0.9, learning rate 0.01": (
        {RMSPROP: "keras.optimizers.SGD(0.01, momentum=0.9,"},
        {},
    ),
    "label smoothing 0.1": (
        {LOSS: "loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1)"},
        {},
    ),
}


def run(folder, trial, epochs, seed):
    """Train one trial; append a row for each epoch to `trials.csv`."""
    edits, environment = TRIALS[trial]
    environment = environment | {"DOGS_VS_CATS_DATA": os.path.abspath(folder), "SEED": str(seed)}
    notebook = run_cells("example_generator = AugmentedPhotoGenerator(", environment, edits)
    import keras

    class Record(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            row = {"date": date.today(), "trial": trial, "seed": seed, "epoch": epoch + 1}
            row |= {name: round(float(value), 5) for name, value in logs.items()}
            row["seconds"] = round(time.perf_counter() - self.began, 1)
            pd.DataFrame([row]).to_csv(RESULTS, mode="a", header=not RESULTS.exists(), index=False)
            print(row, flush=True)

    averages = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]
    notebook["model"].fit(
        notebook["train_generator"],
        validation_data=notebook["validation_generator"],
        epochs=epochs,
        callbacks=[
            *(averages if notebook["model"].optimizer.inner_optimizer.use_ema else []),
            *notebook["callbacks"],
            Record(),
        ],
        shuffle=False,
        verbose=0,
    )


def table():
    """Return a Markdown table of validation accuracy, a row for each trial and seed."""
    rows = pd.read_csv(RESULTS)
    shown = rows[rows["epoch"].isin(EPOCHS_SHOWN)]
    columns = shown.pivot_table(index=["trial", "seed"], columns="epoch", values="val_accuracy")
    epochs = [str(epoch) for epoch in columns.columns]
    lines = [f"| trial | seed | {' | '.join(epochs)} | seconds an epoch (median) |"]
    lines.append("|---" * (len(epochs) + 3) + "|")
    for trial, seed in dict.fromkeys(zip(rows["trial"], rows["seed"], strict=True)):
        values = ["" if pd.isna(v) else f"{v:.4f}" for v in columns.loc[(trial, seed)]]
        median = rows[(rows["trial"] == trial) & (rows["seed"] == seed)]["seconds"].median()
        lines.append(f"| {trial} | {seed} | {' | '.join(values)} | {median:.0f} |")
    return "\n".join(lines)


def main():
    """Read the arguments, then train or print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", help="where train and test1 lie")
    parser.add_argument("trial", nargs="?", choices=TRIALS)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    if arguments.trial:
        run(arguments.folder, arguments.trial, arguments.epochs, arguments.seed)
    else:
        print(table())


if __name__ == "__main__":
    main()
