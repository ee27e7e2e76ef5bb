"""Step 1: start TensorFlow without its chatter, and print the versions at work (a script)."""

import ctypes
import importlib
import logging
import os
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

PACKAGES = {name: name for name in ["keras", "tensorflow", "pandas", "numpy", "matplotlib"]}
PACKAGES |= {"PIL": "pillow", "sklearn": "scikit-learn"}  # as imported, and as installed


def changed_packages():
    """Yield packages of which another version was installed after they had been loaded."""
    for name, package in PACKAGES.items():
        loaded = getattr(sys.modules.get(name), "__version__", None)
        with suppress(PackageNotFoundError):  # it may have another name, as tensorflow-cpu
            if loaded not in (None, version(package)):
                yield f"{package} {loaded} (installed is {version(package)})"


def start_quietly(name):
    """Import a package while nothing reaches the error stream, and return it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's later messages
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        return importlib.import_module(name)
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def compute_quickly():
    """Make TensorFlow up to three times as fast on a processor; call this before it is imported.

    A batch gets the memory of the one before, from an allocator of TensorFlow's and the C library
    of Linux (see mallopt(3)). oneDNN computes the convolutions, not on the newest processors only.
    """
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX: large pieces come from what is there
        libc.mallopt(-2, 2**31 - 1)  # M_TOP_PAD: what is free at the end is kept


if __name__ == "__main__":
    if changed := ", ".join(changed_packages()):
        print("RESTART THE KERNEL NOW (menu Kernel), then run from step 0 on: it holds")
        print(f"{changed}, and a mixture of old and new packages would fail later.")
    else:
        compute_quickly()
        keras = start_quietly("keras")
        backend = start_quietly(keras.backend.backend())
        logging.getLogger("tensorflow").setLevel("ERROR")  # not: "retracing is expensive"
        print(f"Keras {keras.__version__} on {backend.__name__} {backend.__version__}")
