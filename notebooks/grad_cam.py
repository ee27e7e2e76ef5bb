"""Step 37: where a network looks, as warm colors on the photo."""

import keras
import matplotlib
import numpy as np


def grad_cam(model, photos):
    """Return for each photo and class how much each place speaks for that class.

    After Selvaraju et al., "Grad-CAM: Visual explanations from deep networks via gradient-based
    localization" (2017), in the variant of Draelos and Carin, "Use HiResCAM instead of Grad-CAM for
    faithful explanations" (2020): the feature maps of the last activation are multiplied place by
    place with the gradient of the class's score (before softmax). Grad-CAM takes the gradient's
    mean over each map, which misleads where `Flatten` and `Dense` follow: they treat every place
    in a way of its own. What speaks against a class is left out.

    Args:
        model: a classifier whose last layer is a `Dense` with softmax, with a `ReLU` layer
            before it whose output is a picture of feature maps.
        photos: what the model takes, shape (photos, height, width, 3).

    Returns:
        A NumPy array of the shape (photos, classes, height, width); the warmest place over all
        classes of a photo has 1, the coldest 0.

    Raises:
        ValueError: when the model has no such layer.
    """
    maps = [layer for layer in model.layers if type(layer).__name__ == "ReLU"]
    maps = [layer for layer in maps if len(layer.output.shape) == 4]
    if not maps:
        raise ValueError("Grad-CAM needs a network with a ReLU layer that has feature maps.")
    last = model.layers[-1]
    to_maps = keras.Model(model.inputs, maps[-1].output)
    to_features = rest_of(model, maps[-1])
    features = to_maps.predict(photos, verbose=0).astype("float32")
    height, width = photos.shape[1:3]
    heat = []
    for number in range(last.units):

        def score(features, number=number):
            kernel = keras.ops.cast(last.kernel, "float32")[:, number]
            inputs = keras.ops.cast(to_features(features, training=False), "float32")
            return keras.ops.sum(keras.ops.matmul(inputs, kernel))

        heat.append(np.maximum((gradient(score, features) * features).sum(axis=3), 0))
    heat = np.stack(heat, axis=1)
    heat /= np.maximum(heat.max(axis=(1, 2, 3), keepdims=True), 1e-9)
    sizes = (-1, *heat.shape[2:], 1)
    large = keras.ops.image.resize(
        heat.reshape(sizes), (height, width), "bilinear", data_format="channels_last"
    )
    return keras.ops.convert_to_numpy(large).reshape(len(photos), last.units, height, width)


def rest_of(model, layer):
    """Return the part of a model between the output of `layer` and the input of the last layer."""
    if not isinstance(model, keras.Sequential):
        return keras.Model(layer.output, model.layers[-1].input)
    inputs = outputs = keras.Input(layer.output.shape[1:])
    for later in model.layers[model.layers.index(layer) + 1 : -1]:
        outputs = later(outputs)
    return keras.Model(inputs, outputs)


def gradient(function, values):
    """Return the gradient of a function of one array, as a NumPy array of the array's shape."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        values = tf.convert_to_tensor(values)
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = function(values)
        return tape.gradient(result, values).numpy()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(jax.numpy.asarray(values)))
    import torch

    values = keras.ops.convert_to_tensor(values).requires_grad_()
    (result,) = torch.autograd.grad(function(values), values)
    return keras.ops.convert_to_numpy(result)


def warm(photo, heat):
    """Return a photo with warm colors where `heat` is high.

    Args:
        photo: bytes, shape (height, width, 3).
        heat: numbers from 0 to 1, shape (height, width).

    Returns:
        Bytes of the photo's shape.
    """
    colors = matplotlib.colormaps["inferno"](heat)[:, :, :3] * 255
    return (0.5 * photo + 0.5 * colors).astype("uint8")
