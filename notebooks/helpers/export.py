"""Step 41: the network as a file for phones and other small devices, and its answers there."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def export_for_phones(model_file, phone_file, photos):
    """Write a saved network in the format of LiteRT (once TensorFlow Lite), and try it on photos.

    That is done in a process of its own, which knows nothing of this notebook: there, Keras runs on
    TensorFlow, and its messages stay out of sight.

    Args:
        model_file: the ".keras" file of a network that needs no code but Keras's.
        phone_file: the ".tflite" file to write; replaced when it is there.
        photos: shape (photos, height, width, 3), from 0 to 255.

    Returns its answers, float32, shape (photos, classes); or None, after a sentence that says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        exchange = Path(folder, "photos.npy")
        np.save(exchange, np.asarray(photos, "float32"))
        done = subprocess.run(
            [sys.executable, "-P", __file__, model_file, phone_file, exchange],
            capture_output=True,
            text=True,
            errors="replace",
            env=os.environ | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""},
            check=False,
        )
        if done.returncode == 0:
            return np.load(exchange)
    *_, reason = ["no reason given", *done.stderr.strip().splitlines()]
    print(f"Exporting takes TensorFlow and Keras 3.13 or later; here it failed ({reason}).")


if __name__ == "__main__":  # that process
    import keras
    import tensorflow as tf

    model_file, phone_file, exchange = sys.argv[1:]
    keras.models.load_model(model_file, compile=False).export(phone_file, format="litert")
    network = tf.lite.Interpreter(phone_file)
    network.allocate_tensors()
    (entrance,), (way_out,) = network.get_input_details(), network.get_output_details()
    answers = []
    for photo in np.load(exchange):
        network.set_tensor(entrance["index"], photo[np.newaxis])
        network.invoke()
        answers.append(network.get_tensor(way_out["index"])[0])
    np.save(exchange, answers)
