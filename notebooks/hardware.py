"""Steps 2, 3 and 9: a quiet start of Keras, all GPUs at work, and the precision that suits them."""

import contextlib
import importlib
import logging
import os
import re
import time

PRECISIONS = ["float32", "mixed_bfloat16", "mixed_float16"]


def start_keras_quietly():
    """Import Keras and what it computes with, without the messages that these print at the start.

    Raises:
        ModuleNotFoundError: when Keras is told to use a package that is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's messages: fatal ones only
    try:
        with error_stream_off():
            keras = importlib.import_module("keras")
        if not importlib.import_module("several_machines").are_asked_for():
            load_tensorflow()  # not yet where processes must meet before the first computation
    except ModuleNotFoundError as problem:
        raise ModuleNotFoundError(
            f"Keras needs the package {problem.name!r}, which is not installed. Install it, or "
            "name another backend (tensorflow, jax or torch) in KERAS_BACKEND or in "
            "~/.keras/keras.json, then restart the kernel."
        ) from None
    # A reader's own ~/.keras/keras.json may say otherwise.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")


def load_tensorflow():
    """Find the GPUs, then load TensorFlow where it is installed, both without a word.

    Keras loads it later otherwise, whatever it computes with. But on JAX the GPUs come first: what
    TensorFlow has in place of missing CUDA libraries would be taken for them, too old to be used.
    """
    with error_stream_off():
        find_gpus()
        with contextlib.suppress(ImportError):
            importlib.import_module("tensorflow")
            logging.getLogger("tensorflow").setLevel("ERROR")  # not: "retracing is expensive"


@contextlib.contextmanager
def error_stream_off():
    """Send what compiled code writes to the error stream nowhere, for as long as a block runs."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def find_gpus():
    """Return the names of the GPUs that Keras sees, such as ["gpu:0"]."""
    import keras

    if keras.backend.backend() == "torch":  # Keras does not list its devices
        import torch

        numbers = range(torch.cuda.device_count())
        return [f"cuda:{n}" for n in numbers] or ["mps"] * torch.backends.mps.is_available()
    devices = keras.distribution.list_devices()
    return [name for name in devices if not name.lower().startswith(("cpu", "tpu"))]


def use_all_gpus(gpus=None):
    """Let each GPU take its share of every batch, from now on, and print what does the work.

    On TensorFlow this is `tf.distribute.MirroredStrategy`, set for all that follows, so the network
    is built and trained as it would be without. On JAX, `ResumeTraining` shares the training (see
    `several_machines`), also among processes on several machines, where Keras's own environment
    variables tell of them; these meet here. PyTorch uses one GPU.

    Args:
        gpus: names of the devices that share the work on TensorFlow; by default those of
            `find_gpus`.

    Raises:
        ValueError, ConnectionError: see `several_machines.join_processes`.
    """
    import keras
    import several_machines

    if several_machines.are_asked_for():
        several_machines.join_processes()
        load_tensorflow()
    gpus = find_gpus() if gpus is None else gpus
    backend = keras.backend.backend()
    if not gpus:
        print("GPU: none found, the processor does the work.")
    elif len(gpus) == 1:
        print(f"GPU: {look_at_gpu()[0]}; Keras runs on {backend}.")
    elif backend == "tensorflow":
        import tensorflow as tf

        tf.distribute.experimental_set_strategy(tf.distribute.MirroredStrategy(gpus))
        print(f"{len(gpus)} GPUs share every batch.")
    elif backend == "jax":
        print(f"{len(gpus)} GPUs share every batch.")
    else:
        print(f"One of {len(gpus)} GPUs is used: to share batches, Keras needs TensorFlow or JAX.")


def choose_precision(wish="auto"):
    """Return the fastest precision that this computer trains well in; print it and the reason.

    A GPU is judged by what it is: bfloat16 from NVIDIA's compute capability 8 on (A100, RTX 30),
    float16 from 7 on (T4, V100, RTX 20), float32 before and on GPUs of other makes. A processor is
    timed: bfloat16 must make a convolution more than 1.3 times as fast. Where several processes
    train together, process 0 chooses.

    Args:
        wish: "auto", or the precision to return without looking.

    Returns:
        A name for `keras.config.set_dtype_policy`.

    Raises:
        ValueError: when `wish` is none of these.
    """
    import several_machines

    if wish not in ["auto", *PRECISIONS]:
        raise ValueError(f"PRECISION is {wish!r}; choose auto, {', '.join(PRECISIONS)}.")
    chosen, reason = wish, "as asked for"
    if wish == "auto" and find_gpus():
        capability = look_at_gpu()[1]
        chosen = PRECISIONS[0 if capability < (7, 0) else 2 if capability < (8, 0) else 1]
        reason = f"compute capability {capability[0]}.{capability[1]}"
    elif wish == "auto":
        speed = speed_of_bfloat16()
        chosen = "mixed_bfloat16" if speed > 1.3 else "float32"
        reason = f"bfloat16 has {speed:.1f} times the speed of float32 here"
    chosen, reason = several_machines.tell_all([chosen, reason])
    print(f"Precision: {chosen} ({reason})")
    return chosen


def look_at_gpu():
    """Return the first GPU's name, and its compute capability, such as (9, 0).

    The capability is NVIDIA's measure of what a GPU can do; it is (0, 0) for those of others.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        gpu = tf.config.list_physical_devices("GPU")[0]
        details = tf.config.experimental.get_device_details(gpu)
        return details.get("device_name", "one"), tuple(details.get("compute_capability", (0, 0)))
    if backend == "jax":
        import jax

        gpu = jax.devices()[0]
        text = str(getattr(gpu, "compute_capability", ""))  # AMD's: such as gfx90a
        numbers = re.match(r"(\d+)\.(\d+)", text)
        return gpu.device_kind, tuple(map(int, numbers.groups())) if numbers else (0, 0)
    import torch

    if not torch.cuda.is_available():
        return "Apple", (0, 0)
    return torch.cuda.get_device_name(), torch.cuda.get_device_capability()


def speed_of_bfloat16(rounds=10, enough=3):
    """Return how many times as fast a processor computes a convolution in bfloat16 as in float32.

    The convolution is the second one of the network on 64 photos, 4.6 billion multiplications and
    additions. The two precisions take turns, so that a burst of other work does not decide; each
    counts with its best time. Where one of them is `enough` times as fast, one round will do.
    """
    best = {"float32": float("inf"), "bfloat16": float("inf")}
    for done in range(rounds):
        for dtype in best:
            best[dtype] = min(best[dtype], time_convolution(dtype))
        ratio = best["float32"] / best["bfloat16"]
        if done and not 1 / enough < ratio < enough:
            break
    return ratio


def time_convolution(dtype):
    """Return the seconds that one convolution takes with numbers of the type `dtype`."""
    import keras

    pictures = keras.ops.ones((64, 63, 63, 32), dtype)
    windows = keras.ops.ones((3, 3, 32, 64), dtype)
    start = time.perf_counter()
    result = keras.ops.conv(pictures, windows)
    float(keras.ops.sum(result[0, 0, 0]))  # waits until the result is there
    return time.perf_counter() - start
