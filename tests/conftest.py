"""What all test files share: random numbers that repeat, small photos, processes of their own."""

import multiprocessing
import os
import sys

import numpy as np
import pandas as pd
import pytest
from helpers.versions import compute_quickly
from PIL import Image

compute_quickly()  # as step 1 does, for this process and those that it starts


@pytest.fixture(autouse=True)
def random_numbers_repeat():
    """Let every test draw the same random numbers in every run, alone or after others."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Return (table, folder) of 48 photos of 24 x 24 pixels: on the left, cats are bright."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    names = [f"{label}.{n}.png" for n in range(24) for label in ("cat", "dog")]
    for name in names:
        pixels = random.integers(0, 120, (24, 24, 3), dtype="uint8")
        pixels[:, slice(12) if name.startswith("cat") else slice(12, 24)] += 90
        Image.fromarray(pixels).save(folder / name)
    return pd.DataFrame({"filename": names, "label": [name[:3] for name in names]}), folder


def in_process(function, *arguments, printed):
    """Run a function in a process that has Keras loaded already; return its exit status.

    What it prints goes to the file `printed`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keras", "pandas", "IPython"])
    process = context.Process(target=_run, args=(printed, function, arguments))
    process.start()
    process.join()
    return process.exitcode


def _run(printed, function, arguments):
    file = os.open(printed, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    function(*arguments)
