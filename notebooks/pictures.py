"""Steps 7 to 39: charts and pictures, each with a text alternative, and wide texts."""

import html
import math

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display


def show(description):
    """Show the chart drawn last, with a text that screen readers and web pages can use."""
    figure = plt.gcf()
    display(figure, metadata={"image/png": {"alt": description}})
    plt.close(figure)


def show_text(text):
    """Show a wide text, which can be scrolled sideways where the page is narrower."""
    style = "overflow-x: auto; white-space: pre; font-family: monospace; line-height: 1.3"
    page = f'<pre style="{style}">{html.escape(text)}</pre>'
    display({"text/plain": text, "text/html": page}, raw=True)


def plot_classes(labels, title):
    """Draw how many cats and dogs there are in `labels`, a column of "cat" and "dog"."""
    counts = pd.Series(labels).value_counts().reindex(["cat", "dog"], fill_value=0)
    axes = counts.plot.bar(color=["tab:orange", "tab:blue"], rot=0, title=title, figsize=(4, 3))
    axes.bar_label(axes.containers[0], fmt="{:,.0f}")
    axes.set(xlabel="", ylabel="photos")
    axes.margins(y=0.15)
    show(f"Bar chart, {title.lower()}: {counts['cat']:,} cats and {counts['dog']:,} dogs.")


def show_grid(pictures, description, titles=None, columns=5):
    """Show pictures in rows of `columns`, each with its title, if any, close below it.

    Args:
        pictures: arrays of the shape (height, width, 3).
        description: the text alternative for all of them together.
        titles: as many texts, or None.
        columns: how many pictures stand side by side.
    """
    rows = math.ceil(len(pictures) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.6 * columns, 1.9 * rows), squeeze=False, layout="constrained"
    )
    for position, axis in enumerate(axes.flat):
        axis.set(xticks=[], yticks=[])
        if position < len(pictures):
            axis.imshow(pictures[position])
            axis.set_xlabel(titles[position] if titles else "", fontsize=9, labelpad=2)
        else:
            axis.axis("off")
    figure.get_layout_engine().set(h_pad=0.06)
    show(description)
