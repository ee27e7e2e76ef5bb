"""Steps 39 and 40: a small residual network, and what networks cost for what they know."""

import keras
import numpy as np
from fast_layers import BatchNormalization
from honest_score import wilson_interval
from keras import layers

NOT_MEASURED = "not measured here"
WITHOUT_MULTIPLICATIONS = (layers.BatchNormalization, layers.Dropout, layers.Normalization)


def build_residual_network(input_shape):
    """Return a residual network for two classes, its weights drawn at random.

    After He et al., "Deep residual learning for image recognition" (2016), with its basic block of
    two 3 x 3 convolutions, and Goyal et al., "Accurate, large minibatch SGD" (2017), section 5.1:
    the last normalization of a block starts with gamma 0, so that each block begins as nothing but
    its shortcut. Where maps are halved, the first convolution moves two places at a time, and the
    shortcut averages, after He et al., "Bag of tricks for image classification" (2019), section 4.

    Args:
        input_shape: (height, width, channels) of the photos; at least 32 pixels each way.

    Returns:
        A `keras.Model`. It takes photos from 0 to 255, shape (photos, height, width, channels), and
        gives how likely each class is, float32, shape (photos, 2).
    """
    photos = keras.Input(input_shape)
    maps = layers.Rescaling(1 / 255)(photos)
    maps = layers.Conv2D(32, 5, strides=2, padding="same", use_bias=False)(maps)
    maps = layers.MaxPooling2D()(maps)
    maps = BatchNormalization()(maps)
    maps = layers.ReLU()(maps)
    for filters in [32, 64, 128, 256]:
        maps = residual_block(maps, filters, strides=1 if filters == 32 else 2)
        maps = residual_block(maps, filters)
    features = layers.GlobalAveragePooling2D()(maps)
    features = layers.Dropout(0.25)(features)
    return keras.Model(photos, layers.Dense(2, activation="softmax", dtype="float32")(features))


def residual_block(maps, filters, strides=1):
    """Return the maps with what two convolutions add to them, shape (..., filters).

    With `strides=2`, height and width are halved, and rounded up.
    """
    shortcut = maps if strides == 1 else layers.AveragePooling2D(strides, padding="same")(maps)
    if maps.shape[-1] != filters:
        shortcut = layers.Conv2D(filters, 1, use_bias=False)(shortcut)
    change = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(maps)
    change = BatchNormalization()(change)
    change = layers.ReLU()(change)
    change = layers.Conv2D(filters, 3, padding="same", use_bias=False)(change)
    change = BatchNormalization(gamma_initializer="zeros")(change)
    return layers.ReLU()(layers.Add()([shortcut, change]))


def count_multiplications(model):
    """Return how many multiplications a network needs for one photo.

    Counted are those of convolutions and dense layers, which do nearly all the work: each weight of
    a kernel is used once for each place of the output.

    Args:
        model: a built `keras.Model` with inputs of a fixed size. Networks within it are counted
            with it.

    Raises:
        ValueError: for a layer with weights of another kind, and for an unknown size.
    """
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += count_multiplications(layer)
        elif isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)):
            places = layer.output.shape[1:-1]
            if None in places:
                raise ValueError(
                    f"The output of the layer {layer.name!r} has no fixed size, {places}; build "
                    "the network for photos of one size."
                )
            total += int(np.prod(places) * np.prod(layer.kernel.shape))
        elif layer.weights and not isinstance(layer, WITHOUT_MULTIPLICATIONS):
            raise ValueError(
                f"The multiplications of the layer {layer.name!r} ({type(layer).__name__}) are not "
                "counted: only those of convolutions and dense layers are."
            )
    return total


def describe(name, model=None, seconds=None, right=None):
    """Return a row of the table that compares networks, a dict of texts.

    Args:
        name: the network's name.
        model: the built network, or None.
        seconds: what an epoch takes, as a number, or a text that stands for it, or None.
        right: for each validation photo whether the answer was right, an array, or None.

    What is None was not measured, and the row says so.
    """
    row = dict.fromkeys(["parameters", "multiplications a photo", "seconds an epoch"], NOT_MEASURED)
    row = {"network": name} | row | {"validation accuracy (95% interval)": NOT_MEASURED}
    if model is not None:
        row["parameters"] = f"{model.count_params():,}"
        row["multiplications a photo"] = f"{count_multiplications(model) / 1e6:.0f} million"
    if seconds is not None:
        row["seconds an epoch"] = seconds if isinstance(seconds, str) else f"{seconds:.0f}"
    if right is not None:
        low, high = wilson_interval(np.sum(right), len(right))
        row["validation accuracy (95% interval)"] = (
            f"{np.mean(right):.1%} ({low:.1%} to {high:.1%})"
        )
    return row
