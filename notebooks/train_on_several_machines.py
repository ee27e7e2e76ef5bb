"""Step 24 on several machines: one training, in which each does its share of every batch.

README.md, beside this file, says how it is started, what that needs, and when it pays.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import numpy as np
import pandas as pd
from helpers.generator import PhotoGenerator
from helpers.photos import get_photos
from helpers.speed import faster
from helpers.training import ResumeTraining
from jax.experimental.multihost_utils import assert_equal
from keras.callbacks import EarlyStopping, ReduceLROnPlateau
from sklearn.model_selection import train_test_split

CHANGES = {"rotation_range": 15, "zoom_range": 0.2, "horizontal_flip": True}
CHANGES |= {"width_shift_range": 0.1, "height_shift_range": 0.1}
CHANGES |= {"brightness_range": 0.2, "contrast_range": 0.2, "tint_range": 0.08}


class SharedGenerator(PhotoGenerator):
    """Hands this process its share of every batch; what devices cannot share evenly is left out."""

    def __len__(self):
        return -(-(self.n - self.n % jax.device_count()) // self.batch_size)

    def __getitem__(self, index):
        photos, answers = super().__getitem__(index)
        is_here = [device.process_index == jax.process_index() for device in jax.devices()]
        mine = np.flatnonzero(np.repeat(is_here, len(photos) // len(is_here)))
        return photos[mine], answers[mine]


class ResumeTogether(ResumeTraining):
    """Lets process 0 alone save, and makes sure that all have read the same."""

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        state = f"training {self.folder.name} after {len(self.log):3} epochs"
        problem = f"This process has {state}, another has not: give all the same photos, settings, "
        assert_equal(np.frombuffer(state.encode(), "uint8"), f"{problem}and contents of --folder.")

    def save(self):
        if jax.process_index() == 0:
            super().save()


def train(options):
    """Do steps 0 to 25 with the other processes."""
    photos = get_photos()
    many = len(photos.train_files) > 10_000
    batch_size = 128 if many else 16
    if batch_size % jax.device_count():
        sys.exit(f"{jax.device_count()} devices cannot share batches of {batch_size} evenly.")
    labels = [name[:3].lower() for name in photos.train_files]
    table = pd.DataFrame({"filename": photos.train_files, "label": labels})
    parts = train_test_split(table, test_size=0.2, random_state=42, stratify=table["label"])
    model = keras.models.load_model(options.network)
    common = {"directory": photos.train_folder, "y_col": "label", "batch_size": batch_size}
    common |= {"target_size": model.input_shape[1:3]}
    training = SharedGenerator(parts[0], shuffle=True, seed=42, **CHANGES, **common)
    validation = SharedGenerator(parts[1], **common)

    stopping = EarlyStopping("val_accuracy", patience=10, restore_best_weights=True)
    plateau = ReduceLROnPlateau("val_accuracy", 0.5, 2 if many else 5, cooldown=5, min_lr=0.00001)
    resume = ResumeTogether(model, [training, validation], [stopping, plateau], options.folder)
    settings = {"validation_data": validation, "epochs": options.epochs, "shuffle": False}
    faster(model, "float32").fit(training, **settings, callbacks=[resume], verbose=0)
    if jax.process_index() == 0:
        keras.distribution.set_distribution(None)  # so that saving needs no other process
        model.save(resume.folder / "dogs_vs_cats.keras")  # a plain network, as in step 25


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("network", help="file of the compiled network, as step 9 leaves it")
    parser.add_argument("--address", help="of process 0, with a free port")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--process", type=int, default=0, help="which one this is, from 0 on")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--folder", type=Path, default="../outputs", help="one that all can read")
    options = parser.parse_args()
    if options.processes > 1:
        keras.distribution.initialize(options.address, options.processes, options.process)
    print(f"Process {jax.process_index()} of {jax.process_count()}; devices: {jax.devices()}")
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    train(options)
