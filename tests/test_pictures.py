"""Charts carry a text alternative, are closed when shown, and hold what they were given."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("agg")
import matplotlib.pyplot as plt
import pictures


@pytest.fixture
def shown(monkeypatch):
    """Return a list that gets each figure that is shown, with its metadata."""
    figures = []
    monkeypatch.setattr(
        pictures, "display", lambda figure, metadata: figures.append((figure, metadata))
    )
    yield figures
    assert plt.get_fignums() == [], "every figure must be closed"


def test_a_chart_is_shown_once_with_its_text_alternative(shown):
    figure = plt.figure()
    pictures.show("A chart.")
    assert shown == [(figure, {"image/png": {"alt": "A chart."}})]


def test_cats_and_dogs_are_counted_even_where_one_kind_is_missing(shown):
    pictures.plot_classes(pd.Series(["dog"] * 1200), "Photos to train on")
    ((figure, metadata),) = shown
    assert [bar.get_height() for bar in figure.axes[0].patches] == [0, 1200]
    sentence = "Bar chart, photos to train on: 0 cats and 1,200 dogs."
    assert metadata == {"image/png": {"alt": sentence}}


@pytest.mark.parametrize(("count", "columns"), [(1, 5), (3, 5), (5, 5), (16, 5), (16, 4)])
def test_a_grid_shows_every_picture_with_its_title_and_nothing_else(shown, count, columns):
    photos = np.random.default_rng(1).integers(0, 256, (count, 8, 6, 3), np.uint8)
    titles = [f"photo {number}" for number in range(count)]
    pictures.show_grid(photos, "Photos.", titles, columns)
    pictures.show_grid(list(photos), "Photos without titles.", columns=columns)
    for figure, _ in shown:
        figure.canvas.draw()
        assert len(figure.axes) == -(-count // columns) * columns
        drawn = [axis for axis in figure.axes if axis.axison]
        for axis, photo in zip(drawn, photos, strict=True):
            np.testing.assert_array_equal(axis.images[0].get_array(), photo)
    texts = [[axis.get_xlabel() for axis in figure.axes if axis.axison] for figure, _ in shown]
    assert texts == [titles, [""] * count]
    assert shown[0][1] == {"image/png": {"alt": "Photos."}}


def test_a_wide_text_is_shown_as_it_is(monkeypatch):
    shown = []
    monkeypatch.setattr(pictures, "display", lambda data, raw: shown.append(data))
    pictures.show_text("a < b\n  c")
    assert (
        shown[0]["text/plain"] == "a < b\n  c" and ">a &lt; b\n  c</pre>" in shown[0]["text/html"]
    )
