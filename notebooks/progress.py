"""Step 24: how long training will take, how far it is, and one line for each epoch."""

import time

import keras
import numpy as np


def epoch_line(row, epochs):
    """Return one line of at most 110 characters for a row of the training log, a dict."""
    return (
        f"epoch {row['epoch']:2}/{epochs}  {in_words(row['seconds']):>9}  "
        f"loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}  "
        f"val_loss {row['val_loss']:.4f}  val_accuracy {row['val_accuracy']:.4f}  "
        f"rate {row['learning_rate']:.5f}"
    )


def show_bar(epoch, batch, logs):
    """Rewrite one line with a bar, the time left, and the figures so far.

    Args:
        epoch: what to call the epoch, such as "epoch  3/50".
        batch: (number of batches done, of all, seconds that they took).
        logs: a dict of figures, such as {"loss": 0.5}.
    """
    done, batches, seconds = batch
    bar = "\u2501" * (done * 20 // batches) + "\u2500" * (20 - done * 20 // batches)
    figures = "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
    left = in_words(seconds * (batches - done) / done)
    print(f"\r{epoch}  {bar}  {left} left  {figures}    ", end="", flush=True)


def in_words(seconds):
    """Return a duration as one would say it: "8 s", "2:05 min", "1:40 h"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}:{seconds:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"


def say_how_long(model, training_generator, validation_generator, epochs):
    """Print how long training will take, measured on a copy of the network.

    The copy trains on eight batches and is tested on eight; the first two of each do not count,
    since they also compile. `epochs` is how many there are still to go.
    """
    if epochs < 1:
        print("There is nothing left to train.")
        return
    copy = keras.models.clone_model(model)
    copy.compile_from_config(model.get_compile_config())
    copy.optimizer.build(copy.trainable_variables)  # else several GPUs get into each other's way
    seconds = 0
    for run, generator in [
        (copy.train_on_batch, training_generator),
        (copy.test_on_batch, validation_generator),
    ]:
        times = []
        for index in range(8):
            start = time.perf_counter()
            run(*generator[index % len(generator)])
            times.append(time.perf_counter() - start)
        seconds += np.median(times[2:]) * len(generator)
    each = "1 epoch" if epochs == 1 else f"{epochs} epochs of about {in_words(seconds)}"
    print(f"Training will take about {in_words(epochs * seconds)} here: {each}.")
    if epochs * seconds > 600:
        print("On a laptop: plug it in, and switch off sleep until it is done.")
