"""What all test files share: random numbers that repeat, and one small set of drawings."""

import os
from unittest import mock

import get_photos
import keras
import practice_set
import pytest


@pytest.fixture(autouse=True)
def random_numbers_repeat():
    """Let every test draw the same random numbers in every run, alone or after others."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def drawings(tmp_path_factory):
    """Return a folder with 160 + 100 drawings, as step 0 leaves them; nobody may change it.

    All processes of a test run share it: the one that comes second waits while the first draws.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    draw = practice_set.draw_practice_set
    with mock.patch.object(
        practice_set, "draw_practice_set", lambda folder: draw(folder, 160, 100)
    ):
        return get_photos.get_photos(
            shared / "drawings with spaces", "practice"
        ).train_folder.parent
