"""Steps 24 and 39: a training that goes on where it was stopped, by whatever."""

import json
import math
import os
import signal
import threading
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from IPython import get_ipython

from helpers.fingerprint import fingerprint, settings_of
from helpers.speed import all_layers

AVERAGE_EVERY = 10  # batches
MOMENTUM = 0.98  # of the averaged weights, for one batch: they look back over about 50
PHOTOS_TO_NORMALIZE = 512


class ResumeTraining(keras.callbacks.CallbackList):
    """Saves every epoch, goes on where an earlier run of the same training ended, or loads it.

    It runs the other callbacks itself, so give `fit` this one alone:

        resume_training = ResumeTraining(model, [train, validation], [early_stopping, plateau])
        options = {"shuffle": False, "verbose": 0, "callbacks": [resume_training]}
        faster(model).fit(train, validation_data=validation, epochs=50, **options)

    Unlike Keras's `BackupAndRestore`, it also saves what other callbacks have counted, in public
    attributes that are numbers or words. Each training has a folder, named after a hash of all that
    decides what it leads to: network, compilation, callbacks, photos, and all their settings. What
    it cannot see are other arguments of `fit`, such as `class_weight` and `validation_freq`, the
    weights a training starts from, and the inside of functions, losses and layers of your own:
    delete the folder after changing those.

    What is validated and kept are running averages of the weights (Izmailov et al., "Averaging
    weights leads to wider optima and better generalization", 2018, section 3.2), with averages of
    the normalization that are taken anew. When all other callbacks are done, or the stop button was
    pressed, `model` gets those of the epoch that `EarlyStopping` found best, or of the last one.

    Args:
        model: the compiled network that gets the trained weights; `fit` may train its twin.
        generators: the `PhotoGenerator`s of training and validation. Their epoch is set.
        callbacks: a list of the other callbacks.
        folder: where trainings are kept. Created when missing.

    Attributes: `folder` (of this training), `log` (a list of dicts, one for each epoch).

    Raises, from within `fit`, OSError for a folder that cannot be made or read, ValueError for
    photos that are left over, or both trained on and validated with, ArithmeticError when weights
    are no numbers any more, TrainingStopped when the stop button was pressed.
    """

    def __init__(self, model, generators, callbacks=(), folder="../outputs"):
        super().__init__(list(callbacks))
        self.network, self.generators, self.root = model, list(generators), Path(folder)
        stopping = [c for c in callbacks if isinstance(c, keras.callbacks.EarlyStopping)]
        self.keeper = next((c for c in stopping if c.restore_best_weights), None)
        self.handler_before = None

    def on_train_begin(self, logs=None):
        if "steps" not in self.params:  # Keras took it for its own list
            raise ValueError("fit takes a list of callbacks: callbacks=[resume_training].")
        batches = len(self.generators[0])
        if self.params["steps"] != batches:
            raise ValueError(
                f"steps_per_epoch is {self.params['steps']}, but the generator has {batches} "
                "batches; Keras would train on the rest in an epoch of its own. Leave it out."
            )
        trained = set(self.generators[0].filepaths)
        if both := [p for other in self.generators[1:] for p in other.filepaths if p in trained]:
            raise ValueError(
                f"{len(both):,} photos are to be trained on and validated with, such as {both[0]}. "
                "Split the table first (step 16)."
            )
        super().on_train_begin(logs)
        self.epochs, self.is_stopped = self.params["epochs"], False
        self.log, self.averages, self.averaged, self.raw = [], None, 0, None
        self.kept, self.kept_epoch = None, 0
        self.timed_from, self.has_said_how_long = None, False
        self.at_once = self.model.steps_per_execution  # batches, between two calls by Keras
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        # A twin with 16 bits has its optimizer inside another one, which scales the loss.
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        self.variables = [*self.model.weights, *optimizer.variables]
        self.before = copies(self.variables)
        self.folder = self.root / fingerprint(self.network, self.generators, self.callbacks)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise OSError(
                f"The training cannot be saved in {self.folder} ({problem.strerror}): make room "
                "for that folder, or name another one, ResumeTraining(..., folder='...')."
            ) from None
        self.state_file = self.folder / "last_epoch.npz"  # and what is kept
        if self.state_file.exists():
            self._restore()
        self._watch_stop_button()

    def on_epoch_begin(self, epoch, logs=None):
        self._begin_with(None)  # it has been read
        for generator in self.generators:
            generator.epoch = epoch
        # What a layer draws depends on seed, epoch and layer, not on what happened before.
        for place, layer in enumerate(all_layers(self.model)):
            random = np.random.default_rng([self.generators[0].seed, epoch, place])
            for value in vars(layer).values():
                if isinstance(value, keras.random.SeedGenerator):
                    value.state.assign(random.integers(2**32, size=2, dtype="uint32"))
        self.began = time.monotonic()
        super().on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        self._end_if_stopped()
        batches = self.params["steps"]
        if (batch + 1) % AVERAGE_EVERY < self.at_once or batch + 1 >= batches:
            self._average()
        if not self.has_said_how_long:
            self._say_how_long(batch)
        if (batch + 1) * 20 // batches > batch * 20 // batches:
            done = min(20, (batch + 1) * 20 // batches)
            bar = "\u2501" * done + "\u2500" * (20 - done)
            figures = "  ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
            print(f"\repoch {len(self.log) + 1:2}/{self.epochs}  {bar}  {figures}  ", end="")

    def on_test_begin(self, logs=None):
        self._use_averages()
        super().on_test_begin(logs)

    def on_test_batch_end(self, batch, logs=None):
        super().on_test_batch_end(batch, logs)
        self._end_if_stopped()

    def on_epoch_end(self, epoch, logs=None):
        self._use_averages(normalize=self.keeper is not None or epoch + 1 == self.epochs)
        if not all(np.isfinite(weights).all() for weights in self.model.get_weights()):
            self._leave()
            raise ArithmeticError(
                f"In epoch {epoch + 1} the network's weights became NaN (not a number). What was "
                "saved before is whole. Lower the learning rate, then build the network again."
            )
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)
        logs["seconds"] = round(time.monotonic() - self.began, 1)
        row = {"epoch": epoch + 1, **logs}
        super().on_epoch_end(epoch, logs)
        if self.keeper is None or self.keeper.best_weights is None:
            self.kept, self.kept_epoch = copies(self.model.weights), epoch + 1
        elif self.keeper.best_epoch == epoch:
            self.kept, self.kept_epoch = self.keeper.best_weights, epoch + 1
        assign(self.model.weights, self.raw)
        self.raw = None
        self.log.append(row)
        print("\r" + self._line(row))
        try:
            self.save()
        except OSError as problem:
            print(
                f"Epoch {epoch + 1} could not be saved in {self.folder} ({problem}). Training goes "
                "on, and the epoch saved before is whole; make room there before you stop it."
            )

    def on_train_end(self, logs=None):
        self._begin_with(None)  # a later `fit` begins with its first epoch
        super().on_train_end(logs)
        self._leave()
        self.model.history.history = pd.DataFrame(self.log).to_dict("list")
        self.model.history.epoch = list(range(len(self.log)))

    def save(self):
        """Save the epoch that has ended; a subclass may do so elsewhere, or not at all."""
        state = {
            "log": self.log,
            "kept_epoch": self.kept_epoch,
            "averaged": self.averaged,
            "is_finished": bool(self.model.stop_training),
            "counted": [counted_by(callback) for callback in self.callbacks],
        }
        averages = map(keras.ops.convert_to_numpy, self.averages)
        arrays = [*copies(self.variables), *averages, *self.kept]
        aside = self.folder / "writing.npz"  # then renamed: the state is whole at every moment
        with open(aside, "wb") as file:
            np.savez(file, *arrays, state=json.dumps(state))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, self.state_file)
        with suppress(OSError):  # on Windows, it may be open in Excel
            pd.DataFrame(self.log).to_csv(self.folder / "training_log.csv", index=False)

    def _restore(self):
        try:
            with np.load(self.state_file, allow_pickle=False) as file:
                state = json.loads(str(file["state"]))
                arrays = iter([file[f"arr_{n}"] for n in range(len(file.files) - 1)])
            assign(self.variables, islice(arrays, len(self.variables)))
        except Exception as problem:  # zip files break in many ways
            raise OSError(
                f"The training in {self.folder} cannot be read ({problem}). Nothing was changed: "
                "move that folder elsewhere to train anew."
            ) from None
        averages = islice(arrays, len(self.model.trainable_variables))
        self.averages = [keras.ops.convert_to_tensor(average) for average in averages]
        self.kept = list(arrays)
        self.log, self.kept_epoch = state["log"], state["kept_epoch"]
        self.averaged = state["averaged"]
        for callback, values in zip(self.callbacks, state["counted"], strict=True):
            vars(callback).update(values)
        if self.keeper is not None and self.keeper.best_epoch == self.kept_epoch - 1:
            self.keeper.best_weights = self.kept

        print(f"This training lies in {self.folder}:\n")
        print("\n".join(map(self._line, self.log)))
        took = in_words(sum(row["seconds"] for row in self.log))
        if state["is_finished"] or len(self.log) >= self.epochs:
            self._begin_with(self.epochs)
            print(f"\nIt took {took}, is finished, and loaded instead of training again.")
            print("(To train anew, delete that folder, then run from where the network is built.)")
        else:
            self._begin_with(len(self.log))
            print(f"\nIt took {took} so far, and goes on with epoch {len(self.log) + 1}.")

    def _begin_with(self, epoch):
        self.model._initial_epoch = epoch  # as Keras's BackupAndRestore does

    def _line(self, row):
        """Return one line of at most 110 characters for an epoch."""
        names = ["loss", "accuracy", "val_loss", "val_accuracy"]
        figures = "  ".join(f"{name} {row[name]:.4f}" for name in names if name in row)
        rate = f"rate {row['learning_rate']:.2g}"
        took = in_words(row["seconds"])
        return f"epoch {row['epoch']:2}/{self.epochs}  {took:>8}  {figures}  {rate}"

    def _say_how_long(self, batch):
        """Say, after the first batches, how long the training takes."""
        train, *others = self.generators
        first, last = (min(number, len(train) - 1) for number in (4, 24))  # others compile first
        if self.timed_from is None and batch >= first:  # Keras may leave out numbers
            self.timed_from = batch, time.monotonic()
        elif batch >= last and batch > self.timed_from[0]:
            self.has_said_how_long = True
            start, since = self.timed_from
            each = (time.monotonic() - since) / (batch - start)
            # An epoch takes as long as its pixels are many; a look without learning, a third.
            areas = [math.prod(train.size_in(epoch)) for epoch in range(len(self.log), self.epochs)]
            looks = sum(generator.n for generator in others) / train.n * max(areas) / 3
            total = each * len(train) * sum(area + looks for area in areas) / areas[0]
            text = f"{in_words(total)} here, {in_words(total / len(areas))} an epoch"
            print(f"\r{f'Training takes about {text}.':110}")

    def _average(self):
        weights = [keras.ops.convert_to_tensor(v) for v in self.model.trainable_variables]
        self.averaged += 1
        share = max(1 - MOMENTUM**AVERAGE_EVERY, 1 / self.averaged)  # a plain mean at first
        averages = self.averages or weights
        self.averages = [a + (w - a) * share for a, w in zip(averages, weights, strict=True)]

    def _use_averages(self, normalize=True):
        """Put the averages in place until the epoch ends, unless validation has done so."""
        if self.raw is None:
            self.raw = copies(self.model.weights)
            # Copies, since JAX takes the memory of weights that are in place for what comes next.
            assign(self.model.trainable_variables, map(keras.ops.copy, self.averages))
            if normalize:
                normalize_anew(self.model, self.generators[0].pixels)

    def _watch_stop_button(self):
        """Let Jupyter's stop button end an epoch's work, until the cell has ended, however."""
        shell = get_ipython()
        if shell is not None and threading.current_thread() is threading.main_thread():
            self.handler_before = signal.signal(signal.SIGINT, self._on_press)
            shell.events.register("post_run_cell", self._leave)

    def _on_press(self, signal_number, frame):
        self.is_stopped = True
        signal.signal(signal.SIGINT, self.handler_before)  # a second press stops at once

    def _end_if_stopped(self):
        if self.is_stopped:
            self._leave()
            state = "as before; no epoch was finished"
            if self.log:
                state = f"as after epoch {self.kept_epoch}, the one to keep so far"
            raise TrainingStopped(
                f"\nTraining was stopped in epoch {len(self.log) + 1}. The "
                f"network is {state}. Run this cell again to go on."
            )

    def _leave(self, cell=None):
        """Give back what training has changed; leave the weights to keep, if an epoch has ended."""
        model = self.model  # on JAX, this brings in what training holds, so it comes first
        if self.handler_before is not None:
            signal.signal(signal.SIGINT, self.handler_before)
            get_ipython().events.unregister("post_run_cell", self._leave)
            self.handler_before = None
        assign(self.variables, self.before)  # with them the learning rate
        for generator in self.generators:
            generator.epoch = 0  # where sizes grow, Keras has to meet a small one first
        if self.kept is not None:
            assign(model.weights, self.kept)
        if model is not self.network:
            self.network.set_weights(model.get_weights())


class TrainingStopped(KeyboardInterrupt):
    """The stop button was pressed; Jupyter shows its sentences only."""

    def _render_traceback_(self):
        return [str(self)]


def counted_by(callback):
    """Return what a callback has counted: its plain public attributes that are no settings."""
    settings = {"verbose", *settings_of(callback)[1]}
    return {
        name: value
        for name, value in vars(callback).items()
        if name not in settings and name[0] != "_"
        if isinstance(value, (int, float, str, type(None)))
    }


def normalize_anew(model, pixels, batch_size=64):
    """Take the averages of all `BatchNormalization` layers anew, for the weights in place.

    Training averages over single batches' weights, changed photos and dropout. Here the network
    looks at some of `pixels`, shape (photos, height, width, 3), unchanged, without dropout. Inside
    layers of your own, nothing is taken anew, and dropout goes on. After Wu and Johnson,
    "Rethinking 'batch' in BatchNorm" (2021), section 3.
    """
    found = list(all_layers(model))
    norms = [layer for layer in found if isinstance(layer, keras.layers.BatchNormalization)]
    dropouts = [layer for layer in found if isinstance(layer, keras.layers.Dropout)]
    before = [(layer, "momentum", layer.momentum) for layer in norms]
    before += [(layer, "rate", layer.rate) for layer in dropouts]
    photos = max(1, min(PHOTOS_TO_NORMALIZE, len(pixels) // 4))
    pixels = pixels[:: len(pixels) // photos][:photos]
    try:
        for layer in dropouts:
            layer.rate = 0
        for place, start in enumerate(range(0, photos - photos % batch_size or 1, batch_size)):
            for layer in norms:
                layer.momentum = place / (place + 1)  # so that all batches count the same
            model(pixels[start : start + batch_size], training=True)
    finally:
        for layer, name, value in before:
            setattr(layer, name, value)


def copies(variables):
    """Return NumPy copies of Keras variables."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables, values):
    """Set Keras variables to values, one each."""
    for variable, value in list(zip(variables, values, strict=True)):  # all fit, or none is set
        variable.assign(value)


def in_words(seconds):
    """Return a duration as one would say it: "8 s", "25 min", "1.7 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
