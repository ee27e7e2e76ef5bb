"""All steps with pictures: charts and grids of photos, each with a text alternative."""

import base64
import io
import math

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display


def show(description):
    """Show the chart drawn last, with a text for those who cannot see it.

    Charts go out as PNG, which keeps lines sharp.

    Args:
        description: what the chart shows, in a sentence; screen readers and web pages use it.
    """
    _display(plt.gcf(), "png", description)


def show_photos(photos, captions=None, description="", columns=5):
    """Show photos in rows, each with its caption below it.

    The grid goes out as JPEG, a tenth of the size that PNG needs for photos.

    Args:
        photos: arrays or pictures of the shape (height, width, 3), bytes or shares; or of the shape
            (height, width), shown in gray from the lowest value to the highest. Of any sizes.
        captions: as many texts, or None.
        description: the text alternative for all of them; the captions are added to it.
        columns: how many photos stand side by side, at most.
    """
    columns = min(columns, len(photos))
    rows = math.ceil(len(photos) / columns)
    captions = [""] * len(photos) if captions is None else list(captions)
    lines = max(caption.count("\n") + bool(caption) for caption in captions)
    shapes = [np.shape(photo) for photo in photos]
    width = min(3, 8 / columns)  # inches, as all sizes here
    height = width * max(shape[0] / shape[1] for shape in shapes) + 0.16 * lines
    size = (width * columns, (height + 0.06) * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for axis in grid.flat:
        axis.set_axis_off()
    for axis, photo, caption in zip(grid.flat, photos, captions, strict=False):
        axis.set_axis_on()
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.imshow(photo, cmap="gray")
        axis.set_xlabel(caption, fontsize=8, labelpad=2)
    spoken = ", ".join(caption.replace("\n", " ") for caption in captions if caption)
    _display(figure, "jpeg", ": ".join(filter(None, [description, spoken])))


def _display(figure, form, description):
    """Show a figure as a file of a form, "png" or "jpeg", with its text alternative."""
    file = io.BytesIO()
    options = {"pil_kwargs": {"quality": 80}} if form == "jpeg" else {}
    figure.savefig(file, format=form, dpi=100, **options)
    plt.close(figure)
    kind = f"image/{form}"
    bundle = {kind: base64.b64encode(file.getvalue()).decode(), "text/plain": description}
    display(bundle, raw=True, metadata={kind: {"alt": description}})
