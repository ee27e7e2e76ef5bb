"""Steps 24 and 39: a Keras callback that never loses a training.

Keras's own `BackupAndRestore` overwrites its only file in place, forgets what `EarlyStopping` and
`ReduceLROnPlateau` had counted, and deletes the backup at the end. This callback writes each file
aside and renames it, so that a crash at any moment leaves the epoch before whole, and it replays
the log through the other callbacks, so that they count on as if nothing had happened.
"""

from contextlib import suppress
from datetime import datetime

import keras
import numpy as np
import pandas as pd
from files import FolderLock, move_new, write_aside
from fingerprint import fingerprint, number, what_sets_the_rate
from progress import epoch_line, in_words, show_bar
from several_machines import alone, end_sharing, own_folder, process, share_training, tell_all
from stop_button import StopButton, TrainingStopped
from training_log import began, read_log

NOT_FRESH = (
    "There is no saved epoch to go on from, and this network has been trained a little already: "
)
ANEW = "run step 9 again for a fresh one, then steps 12 to 14, and step 24 from its first cell."


class ResumeTraining(keras.callbacks.Callback):
    """Saves and prints every epoch, resumes an interrupted training, loads a finished one.

    In `folder`, each training has a folder of its own, named after its `fingerprint`. It holds
    `training_log.csv`, one row per finished epoch, and the model with its optimizer after the
    best epoch and the last two (`epoch-012.keras`): should one file be damaged, there is another.
    A file that cannot be read is left where it is. Only one kernel trains in a folder at a time.

    When the stop button is pressed, training ends after the batch at hand, with the best finished
    epoch in place and one sentence.

    Put it first in `fit`'s list of callbacks: it must see the model before weight averages are
    swapped in, and it restores the counters of the callbacks behind it.

    On JAX, several devices share the training from `start` to the end of `fit` (see
    `several_machines`). Of several processes, process 0 keeps the training and tells the others
    where it stood; these write into a folder `process-1` and so on below `folder`, and no models.

    Args:
        folder: where trainings are kept. Created when missing.
        early_stopping: the `EarlyStopping` of this training; it watches `val_accuracy`.
        reduce_learning_rate: the `ReduceLROnPlateau` of this training, or its
            `LearningRateScheduler` (whose schedule must not depend on the rate before), or None.
        step: the step whose cells make and train the network, for what is said.
    """

    locks = {}  # those that this kernel holds, by folder

    def __init__(self, folder, early_stopping, reduce_learning_rate, step=24):
        super().__init__()
        self.root = own_folder(folder)
        self.early_stopping = early_stopping
        self.reduce_learning_rate = reduce_learning_rate
        self.step = step
        self.anew = ANEW if step == 24 else f"run step {step} again from its first cell."
        self.whole_files = {}  # paths of the model files known to be whole, by epoch
        self.stop_button = StopButton()

    @property
    def log_file(self):
        """Path of the training log, a CSV table with one row per finished epoch."""
        return self.folder / "training_log.csv"

    def _folder_of(self, model, training_generator, validation_generator, epochs):
        """Return where this training is kept."""
        settings = what_sets_the_rate(self.reduce_learning_rate, epochs)
        return self.root / fingerprint(model, [training_generator, validation_generator], settings)

    def has_finished(self, model, training_generator, validation_generator, epochs):
        """Return whether all epochs of this training are saved; the arguments are `start`'s."""
        self.folder = self._folder_of(model, training_generator, validation_generator, epochs)
        finished = len(read_log(self.log_file)) >= epochs
        return tell_all(finished and self._model_file(epochs).exists())

    def start(self, model, training_generator, validation_generator, epochs):
        """Look for an earlier training of the same kind and load its state into `model`.

        The settings of `reduce_learning_rate` are compared as well; those of `early_stopping` are
        not, since they decide how long a training goes on, like `epochs`, and not what it does.

        Args:
            model: a compiled `keras.Model`, just built.
            training_generator, validation_generator: photo generators, see `fingerprint`. The
                first one's attribute `epoch` is set to the number of finished epochs; its `seed`
                also decides what dropout draws in each epoch.
            epochs: how many epochs there shall be in all.

        Returns:
            The number of epochs that need no more training, for `fit(initial_epoch=...)`:
            0 for a new training, `epochs` for one that is finished.

        Raises:
            OSError: when the folder cannot be written, or another kernel trains there; the message
                says what to do.
            ValueError: when there is nothing to resume and `model` is not fresh either.
        """
        self.generators = [training_generator, validation_generator]
        end_sharing(model, self.generators)  # a training in this kernel may have been stopped
        self.folder = self._folder_of(model, training_generator, validation_generator, epochs)
        self.seed, self.epochs = training_generator.seed, epochs
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "writable").touch()
            (self.folder / "writable").unlink()
        except OSError as error:
            raise OSError(
                f"The training cannot be saved in {self.folder} ({error.strerror}): "
                "free that folder for writing, or name another one in OUTPUT_FOLDER (step 4)."
            ) from None
        self.lock = self.locks.setdefault(self.folder, FolderLock(self.folder))
        if not self.lock.take():
            raise BlockingIOError(
                f"This very training is open in another notebook or program (in {self.folder}). "
                "Wait for it to end, or shut its kernel down, then run this cell again."
            )

        trained_before = hasattr(model, "was_trained") or number(model.optimizer.iterations) > 0
        if not model.optimizer.built:  # LossScaleOptimizer would make its variables twice
            model.optimizer.build(model.trainable_variables)
        self.precision = model.dtype_policy.name
        log, best_weights = self._restore(model)
        state, agreed = (log.to_dict("list"), best_weights), f"{self.folder.name} {epochs}"
        log, self.best_weights = share_training(model, self.generators, agreed, state)
        self.log = pd.DataFrame(log)
        self.must_replay = not self.log.empty
        self.iterations, self.is_restored = number(model.optimizer.iterations), True
        training_generator.epoch = len(self.log)

        others = len(list(self.root.glob("*/training_log.csv"))) - self.log_file.exists()
        if self.log.empty and trained_before:
            raise ValueError(NOT_FRESH + self.anew)
        if self.log.empty and self.log_file.exists():
            aside = self.folder / f"training_log_before_{datetime.now():%Y%m%d-%H%M%S}.csv"
            move_new(self.log_file, aside)
            print(f"Nothing in {self.folder} can be gone on from. Its log is kept: {aside.name}.")
            print("Training starts anew.")
            return 0
        if self.log.empty:
            print("No earlier training of this network, these photos and these settings was found.")
            if others:
                print(f"({others} of other kinds lie in {self.root}; they are left untouched.)")
            return 0

        since_best = len(self.log) - 1 - self.log["val_accuracy"].argmax()
        if since_best >= self.early_stopping.patience:
            state = f"ended by EarlyStopping after epoch {len(self.log)}"
        elif len(self.log) >= epochs:
            state = f"finished after epoch {len(self.log)}"
        else:
            state = f"stopped after epoch {len(self.log)}"
        print(
            f"A training of this network, these photos and these settings lies in {self.folder}.\n"
            f"It ran from {began(self.log)} to {self.log['finished'].iloc[-1]}, "
            f"{in_words(self.log['seconds'].sum())} of training, and was {state}.\n"
        )
        for row in self.log.to_dict("records"):
            print(epoch_line(row, max(epochs, len(self.log))))
        if state.startswith("stopped"):
            print(f"\nIt goes on with epoch {len(self.log) + 1}.")
            before = self.log["precision"].iloc[-1]
            if before != self.precision:
                print(f"(The last epoch was computed in {before}; now it is {self.precision}.)")
            return len(self.log)
        print("\nIt is loaded instead of training again. To train anew, delete that folder.")
        self.lock.release()
        return epochs

    def on_train_begin(self, logs=None):
        self.may_train, self.is_restored = self.is_restored, False

    def on_epoch_begin(self, epoch, logs=None):
        changed = number(self.model.optimizer.iterations) != self.iterations
        if changed or epoch != len(self.log) or not self.may_train:
            raise ValueError(
                "The network is not as the last saved epoch left it. Run the cell with "
                "resume_training.start again: it finds where to go on."
                if len(self.log)
                else NOT_FRESH + self.anew
            )
        self.model.was_trained = True
        if self.must_replay:
            self._replay()
            self.must_replay = False
        # What dropout draws depends on seed, epoch and layer, not on what happened before.
        for position, layer in enumerate(self.model.layers):
            if isinstance(layer, keras.layers.Dropout) and layer.rate > 0:
                random = np.random.default_rng([self.seed, epoch, position])
                layer.seed_generator.state.assign(random.integers(2**32, size=2, dtype="uint32"))
        self.epoch_began = datetime.now()
        self.stop_button.watch()

    def on_train_batch_end(self, batch, logs=None):
        self._end_if_stopped()
        batches = self.params["steps"] or batch + 1
        if (batch + 1) * 20 // batches > batch * 20 // batches:
            seconds = (datetime.now() - self.epoch_began).total_seconds()
            name = f"epoch {len(self.log) + 1:2}/{self.epochs}"
            show_bar(name, (batch + 1, batches, seconds), logs)

    def on_test_batch_end(self, batch, logs=None):
        self._end_if_stopped()

    def _end_if_stopped(self):
        if not self.stop_button.is_pressed:
            return
        self.stop_button.is_pressed = False
        print()
        stopped = f"Training was stopped in epoch {len(self.log) + 1}."
        if process()[1] > 1:
            said = f"{stopped} The other processes end as well. Start all of them again to go on."
            raise TrainingStopped(said)
        end_sharing(self.model, self.generators)
        said = f"Training was stopped before an epoch was saved. To begin anew, {self.anew}"
        if self.whole_files:
            self._load(self.model, self.whole_files[self._best_epoch(self.log)])
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
            said = (
                f"{stopped} The network is as after the best epoch so far. Run step {self.step} "
                "again from its first cell to go on."
            )
        self.lock.release()
        raise TrainingStopped(said)

    def on_epoch_end(self, epoch, logs=None):
        if not all(np.isfinite(weights).all() for weights in self.model.get_weights()):
            raise ArithmeticError(
                f"In epoch {epoch + 1} the network's weights became NaN (not a number). What was "
                "saved before is whole: run the notebook again. If it comes back, lower "
                "LEARNING_RATE (step 4)."
            )
        try:
            self._save_epoch(logs)
        finally:
            self.stop_button.release()
        self._end_if_stopped()  # pressed since the last validation batch

    def _save_epoch(self, logs):
        """Print the line of an epoch that has ended, and save its row of the log and the model."""
        self.iterations = number(self.model.optimizer.iterations)
        now = datetime.now()
        row = {"epoch": len(self.log) + 1}
        row |= {name: float(value) for name, value in logs.items()}
        row["learning_rate"] = number(self.model.optimizer.learning_rate)
        row["seconds"] = round((now - self.epoch_began).total_seconds(), 1)
        row["precision"] = self.precision
        row["finished"] = now.isoformat(sep=" ", timespec="seconds")
        print("\r" + epoch_line(row, self.epochs))
        row = pd.DataFrame([row])
        self.log = row if self.log.empty else pd.concat([self.log, row], ignore_index=True)
        epoch = len(self.log)

        # The log goes first: a model file without its row would not be trusted by `start`.
        try:
            write_aside(self.log_file, lambda path: self.log.to_csv(path, index=False))
            if process()[0] > 0:
                return  # process 0 keeps the model
            with alone():
                write_aside(self._model_file(epoch), self.model.save)
        except (OSError, RuntimeError) as error:  # h5py raises the latter when the disk is full
            print(
                f"\nEpoch {epoch} could not be saved in {self.folder} ({error}). Training goes on "
                "and the files saved before are whole; make room there, or close the program that "
                "has its files open, before you stop it."
            )
            return
        self.whole_files[epoch] = self._model_file(epoch)
        keep = {*sorted(self.whole_files)[-2:], self._best_epoch(self.log)}
        for old in self.whole_files.keys() - keep:
            with suppress(OSError):  # Windows keeps what another program has open
                self.whole_files.pop(old).unlink()

    def on_train_end(self, logs=None):
        end_sharing(self.model, self.generators)
        if process()[0] > 0:  # step 26 reads it, also where nothing was left to train
            self.log.to_csv(self.log_file, index=False)
        # When a finished training was loaded, no epoch ran and EarlyStopping restores nothing.
        if self.best_weights is not None and self.early_stopping.best_weights is None:
            self.model.set_weights(self.best_weights)
        figures = self.log.drop(columns=["precision", "finished"])
        self.model.history.history = figures.to_dict("list")
        self.model.history.epoch = list(range(len(self.log)))
        self.lock.release()

    def _restore(self, model):
        """Load the last whole epoch into `model`; return its log and the weights of its best one.

        Without a usable file, the model stays as it was, the log is empty, the weights are None.
        """
        log = read_log(self.log_file)
        variables = model.variables + model.optimizer.variables
        untrained = [keras.ops.convert_to_numpy(variable) for variable in variables]
        self.whole_files = {}
        for path in self.folder.glob("epoch-*.keras"):
            epoch = path.stem.removeprefix("epoch-")
            if epoch.isdecimal() and int(epoch) <= len(log) and self._load(model, path):
                self.whole_files[int(epoch)] = path
        if not self.whole_files:
            for variable, value in zip(variables, untrained, strict=True):
                variable.assign(value)
            return log.head(0), None

        last = max(self.whole_files)
        self._load(model, self.whole_files[self._best_epoch(log)])
        model.optimizer.finalize_variable_values(model.trainable_variables)
        best_weights = model.get_weights()
        self._load(model, self.whole_files[last])
        return log.head(last), best_weights

    def _load(self, model, path):
        """Load a model file into `model`; say so and return False when that cannot be done."""
        try:
            model.load_weights(path)
            if number(model.optimizer.iterations) == 0:
                raise ValueError("the optimizer's state was not in it")
        except Exception as error:  # Keras, h5py and zipfile each raise their own
            print(f"{path} cannot be used ({type(error).__name__}); it is left as it is.")
            return False
        return True

    def _replay(self):
        """Lead the callbacks through the logged epochs, so that their counters stand as before."""
        callbacks = [c for c in (self.early_stopping, self.reduce_learning_rate) if c is not None]
        spoken = [callback.verbose for callback in callbacks]
        for callback in callbacks:
            callback.verbose = 0
        for row in self.log.to_dict("records"):
            self.model.optimizer.learning_rate = row["learning_rate"]
            for callback in callbacks:
                callback.on_epoch_end(row["epoch"] - 1, dict(row))
        self.early_stopping.best_weights = self.best_weights
        # A plateau that was passed with more patience ends nothing now.
        self.model.stop_training, self.early_stopping.stopped_epoch = False, 0
        for callback, verbose in zip(callbacks, spoken, strict=True):
            callback.verbose = verbose

    def _best_epoch(self, log):
        """Number of the best epoch in `log`, the earliest of equals, among those with a file."""
        accuracy = log["val_accuracy"]
        return max(sorted(self.whole_files), key=lambda epoch: accuracy.iloc[epoch - 1])

    def _model_file(self, epoch):
        return self.folder / f"epoch-{epoch:03}.keras"
