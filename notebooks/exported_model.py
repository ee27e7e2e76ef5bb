"""Step 42: the network as one file for phones and other small devices, and its answers there."""

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from files import write_aside
from hardware import error_stream_off

EXPORT = (
    "import sys, keras\n"
    "model = keras.models.load_model(sys.argv[1], compile=False)\n"
    "model.export(sys.argv[2], format='litert', verbose=False)\n"
)


def in_32_bits(model):
    """Return a copy of a network, with the same weights, that calculates with 32-bit numbers."""

    def copy_layer(layer):
        return type(layer).from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=copy_layer)
    copy.set_weights(model.get_weights())
    return copy


def predict_in_32_bits(model, photos):
    """Return `model.predict(photos)` of a float32 network, none of the 32 bits left out.

    NVIDIA's GPUs (from A100 and RTX 30 on) otherwise shorten numbers to 19 bits before they
    multiply them (TF32), which moves answers by about 0.001.
    """
    with all_bits():
        return model.predict(photos, verbose=0)


@contextlib.contextmanager
def all_bits():
    """Switch TF32 off as long as a block runs, for what is compiled or started in it."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
    elif backend == "torch":
        import torch

        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield  # in matrix products, PyTorch does not use it by itself
    else:
        import tensorflow as tf

        before = tf.config.experimental.tensor_float_32_execution_enabled()
        tf.config.experimental.enable_tensor_float_32_execution(False)
        try:
            yield
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(before)


def export_for_phones(model, path):
    """Write a network in the format of LiteRT (once called TensorFlow Lite), whole or not at all.

    LiteRT runs it on Android, iOS, small boards and, within TensorFlow, here. In the file are the
    structure and the weights, nothing of the optimizer. A file of that name is replaced.

    Args:
        model: a `keras.Model` in float32, such as `in_32_bits` returns.
        path: `pathlib.Path` of the file to write; its name ends with ".tflite".

    Returns:
        Whether it was written. It takes TensorFlow: where Keras runs on something else, a process
        of its own uses it; where it is not installed, a sentence is printed.

    Raises:
        OSError: when the disk is full or the folder cannot be written; a file of this name that
            was there stays as it was.
        RuntimeError: when that process fails; the message ends with what it wrote last.
    """
    if importlib.util.find_spec("tensorflow") is None:
        print("Keras exports for phones through TensorFlow only, which is not installed here.")
        return False
    export = export_here if keras.backend.backend() == "tensorflow" else export_elsewhere
    write_aside(path, lambda aside: export(model, aside))
    return True


def export_here(model, path):
    """Write a network in LiteRT's format with Keras on TensorFlow."""
    with error_stream_off():
        model.export(path, format="litert", verbose=False)


def export_elsewhere(model, path):
    """Do the same in a process where Keras runs on TensorFlow."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.keras")
        model.save(file)
        hidden = {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            [sys.executable, "-c", EXPORT, file, path],
            capture_output=True,
            text=True,
            env=os.environ | hidden,
            check=False,
        )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise RuntimeError(f"The network could not be exported: {' '.join(last)}")


def answers_of_export(path, photos):
    """Return what an exported network answers, one photo after the other, as on a phone.

    Args:
        path: the file that `export_for_phones` wrote.
        photos: what the network takes, bytes or numbers, shape (photos, height, width, 3).

    Returns:
        A float32 array of the shape (photos, classes).
    """
    import tensorflow as tf

    with error_stream_off():
        network = tf.lite.Interpreter(model_content=Path(path).read_bytes())
        network.allocate_tensors()
    entrance = network.get_input_details()[0]["index"]
    exit_ = network.get_output_details()[0]["index"]
    answers = []
    for photo in photos:
        network.set_tensor(entrance, photo[np.newaxis].astype("float32"))
        network.invoke()
        answers.append(network.get_tensor(exit_)[0])
    return np.array(answers)
