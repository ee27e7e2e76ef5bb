"""Step 37: where a network looks, as warm colors on the photo."""

import keras
import matplotlib
import numpy as np
from keras import layers

from helpers.speed import copy_weights

SCALING = (layers.InputLayer, layers.BatchNormalization, layers.Dropout)  # these find nothing


def heat_map(model, photos):
    """Return how much each place of a photo speaks for the class that the network chose.

    This is HiResCAM (Draelos and Carin, "Use HiResCAM instead of Grad-CAM", 2020): the last feature
    maps times the gradient of the chosen class's score, place by place, added up over the maps.

    Args:
        model: a `Sequential` or functional classifier whose last feature maps go one way, through
            `Flatten` or a global pooling, to a `Dense`, with softmax inside or as the last layer.
        photos: what it takes, shape (photos, height, width, 3).

    Returns a float32 array of the shape (photos, height, width), 1 at a photo's hottest place, 0
    where nothing speaks for it. Without feature maps in the network, a ValueError is raised.
    """
    copy = keras.models.clone_model(model)  # each of its layers is called once only
    copy_weights(model, copy)
    found = [layer.output for layer in copy.layers if not isinstance(layer, SCALING)]
    maps = [maps for maps in found if len(maps.shape) == 4 and maps.shape[1:3] != (1, 1)]
    if not maps:
        raise ValueError("This network has no feature maps, so nobody can say where it looks.")
    last = copy.layers[-1]
    last.activation = keras.activations.linear  # scores as they are before the softmax
    scores = last.input if isinstance(last, layers.Softmax) else copy.outputs[0]
    to_scores, to_maps = keras.Model(maps[-1], scores), keras.Model(copy.inputs[0], maps[-1])
    features = keras.ops.convert_to_numpy(to_maps(photos, training=False))
    scores = keras.ops.convert_to_numpy(to_scores(features, training=False))
    chosen = np.eye(scores.shape[1], dtype="float32")[scores.argmax(axis=1)]
    chosen -= chosen.mean()  # to softmax, only a score's distance from the others counts

    def score(features):
        return keras.ops.sum(to_scores(features, training=False) * chosen)

    heat = np.maximum((_gradient(score, features) * features).sum(axis=3, keepdims=True), 0)
    heat = keras.ops.convert_to_numpy(keras.ops.image.resize(heat, photos.shape[1:3]))[..., 0]
    return heat / np.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-9)


def warm(photo, heat):
    """Return a photo, bytes, with colors from yellow to red, more opaque the hotter a place is."""
    colors = matplotlib.colormaps["autumn_r"](heat)[..., :3] * 255
    opacity = 0.6 * heat[..., np.newaxis]
    return (opacity * colors + (1 - opacity) * photo).astype("uint8")


def _gradient(function, values):
    """Return the gradient of a function of one array, as a NumPy array of the array's shape."""
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(function)(values))
    import tensorflow as tf

    values = tf.convert_to_tensor(values)
    with tf.GradientTape() as tape:
        tape.watch(values)
        result = function(values)
    return tape.gradient(result, values).numpy()
