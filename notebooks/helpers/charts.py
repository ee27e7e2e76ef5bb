"""All steps with pictures: charts and grids of photos, each with a text alternative."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display


def show(description, form="png"):
    """Show the chart drawn last, with a text for those who cannot see it.

    Args:
        description: what the chart shows, in a sentence; screen readers and web pages use it.
        form: "png", which keeps lines sharp, or "jpeg", a tenth of its size for photos.
    """
    file, options = io.BytesIO(), {"pil_kwargs": {"quality": 80}} if form == "jpeg" else {}
    plt.savefig(file, format=form, dpi=100, **options)
    plt.close()
    kind = f"image/{form}"
    bundle = {kind: base64.b64encode(file.getvalue()).decode(), "text/plain": description}
    display(bundle, raw=True, metadata={kind: {"alt": description}})


def show_photos(photos, captions=None, description="", columns=5):
    """Show photos in rows, each with its caption below it.

    Args:
        photos: arrays or pictures of any sizes, shape (height, width, 3), bytes or shares; or
            (height, width), shown in gray from the lowest value to the highest.
        captions: as many texts, or None.
        description: the text alternative for all of them; the captions are added to it.
        columns: how many photos stand side by side, at most.
    """
    columns = min(columns, len(photos))
    rows = -(-len(photos) // columns)
    captions = [""] * len(photos) if captions is None else list(captions)
    lines = max(caption.count("\n") + bool(caption) for caption in captions)
    width = min(3, 8 / columns)  # inches, as all sizes here
    height = width * max(high / wide for high, wide, *_ in map(np.shape, photos)) + 0.16 * lines
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
        axis.set_xlabel(caption, fontsize=8, labelpad=2, parse_math=False)
    spoken = ", ".join(caption.replace("\n", " ") for caption in captions if caption)
    show(": ".join(filter(None, [description, spoken])), "jpeg")
