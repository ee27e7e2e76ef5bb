"""Try another recipe for the training, and keep what came out.

    python tests/trials.py FOLDER "label smoothing 0.1"
    python tests/trials.py FOLDER "as in the notebook" --epochs 10 --seed 43

FOLDER holds `train` and `test1`, or an archive for step 0 to unpack; with 3,000 photos, made by
`tests/sample_photos.py`, a trial takes minutes. A trial is the notebook's own code up to step 21
with one thing in it replaced (`TRIALS` below), trained by its own generators and callbacks. Each
epoch becomes a row of `trials.csv`; without a trial's name, the table for `benchmark.md` is
printed.
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
LAST_CELL = "validation_generator = PhotoGenerator("
KERNELS_ONLY = 'optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])'
USUAL = "normalization's averages as they are after training"
LOSS_SCALE = "optimizer = keras.optimizers.LossScaleOptimizer(optimizer)"

# What each trial replaces in the notebook's code, and in which environment it runs.
TRIALS = {
    "as in the notebook": ({}, {}),
    "Keras's own normalization": (
        {"from fast_layers import": "from keras.layers import"},
        {},
    ),
    "dropout drawn per photo": ({"ONE_DRAW = (1,": "ONE_DRAW = (None,"}, {}),
    "no weight averaging": ({"use_ema=True, ema_momentum=0.98": ""}, {}),
    USUAL: ({"BatchNormalization())": "BatchNormalization(momentum=0.95))"}, {}),
    "weight decay 0.1": (
        {
            "RMSprop(LEARNING_RATE,": "RMSprop(LEARNING_RATE, weight_decay=0.1,",
            LOSS_SCALE: f"{KERNELS_ONLY}\n{LOSS_SCALE}",
        },
        {},
    ),
    "label smoothing 0.1": (
        {
            'loss="categorical_crossentropy"': (
                "loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1)"
            )
        },
        {},
    ),
    "learning rate 0.0014": ({}, {"LEARNING_RATE": "0.0014"}),
    "batches of 64": ({}, {"BATCH_SIZE": "64"}),
    "no color changes": (
        {
            '"brightness_range": 0.2': '"brightness_range": 0',
            '"contrast_range": 0.2': '"contrast_range": 0',
            '"channel_shift_range": 20': '"channel_shift_range": 0',
        },
        {},
    ),
    "colors changed twice as much": (
        {
            '"brightness_range": 0.2': '"brightness_range": 0.4',
            '"contrast_range": 0.2': '"contrast_range": 0.4',
            '"channel_shift_range": 20': '"channel_shift_range": 40',
        },
        {},
    ),
    "no cooldown": ({"cooldown=5": "cooldown=0"}, {}),
    "patience 4, factor 0.3": ({"patience=2": "patience=4", "factor=0.5": "factor=0.3"}, {}),
    "whole feature maps dropped": (
        {"Dropout(0.25, noise_shape=draws)": "SpatialDropout2D(0.25)"},
        {},
    ),
    "Adam": ({"keras.optimizers.RMSprop(": "keras.optimizers.Adam("}, {}),
}


def run(folder, trial, epochs, seed):
    """Train one trial; append a row for each epoch to `trials.csv`."""
    edits, environment = TRIALS[trial]
    environment = environment | {"DOGS_VS_CATS_DATA": os.path.abspath(folder), "SEED": str(seed)}
    notebook = run_cells(LAST_CELL, environment, edits)
    import keras
    from averaged_weights import UseAveragedWeights  # beside the notebook, so found only now

    photos = notebook["train_generator"].n

    class Record(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            row = {"date": date.today(), "trial": trial, "photos": photos, "seed": seed}
            row |= {"epoch": epoch + 1}
            row |= {name: round(float(value), 5) for name, value in logs.items()}
            row["seconds"] = round(time.perf_counter() - self.began, 1)
            pd.DataFrame([row]).to_csv(RESULTS, mode="a", header=not RESULTS.exists(), index=False)
            print(row, flush=True)

    averages = [UseAveragedWeights(notebook["train_generator"])]
    if trial == USUAL:
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
    """Return a Markdown table: for each trial, set and seed, the best epoch that was recorded.

    Named are sets of other than 20,000 training photos, and seeds other than 42.
    """
    rows = pd.read_csv(RESULTS)
    lines = ["| trial | best validation accuracy (epoch) | seconds an epoch |", "|---|---|---|"]
    for (trial, photos, seed), epochs in rows.groupby(["trial", "photos", "seed"], sort=False):
        name = trial + (f", {photos:,} photos" if photos != 20_000 else "")
        name += f", seed {seed}" if seed != 42 else ""
        best = epochs.loc[epochs["val_accuracy"].idxmax()]
        lines.append(
            f"| {name} | {best['val_accuracy']:.4f} ({best['epoch']} of {epochs['epoch'].max()}) | "
            f"{epochs['seconds'].median():.0f} |"
        )
    return "\n".join(lines)


def main():
    """Read the arguments, then train or print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", help="where train and test1 lie")
    parser.add_argument("trial", nargs="?", choices=TRIALS)
    parser.add_argument("--epochs", type=int, default=50, help="at most; 50 by default")
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    if arguments.trial:
        run(arguments.folder, arguments.trial, arguments.epochs, arguments.seed)
    elif arguments.folder:
        parser.error(f"which trial? There are: {', '.join(TRIALS)}")
    else:
        print(table())


if __name__ == "__main__":
    main()
