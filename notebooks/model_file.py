"""Step 25: a model saved whole, for `keras.models.load_model`."""

import keras
from files import write_aside


def save_model(model, path):
    """Save a model whole or not at all, ready for `keras.models.load_model`.

    The averages of the weights in its optimizer become those of the weights as they are. (On JAX,
    both would share memory otherwise, which `evaluate` takes away from one of them.)

    Raises:
        OSError: when the disk is full or the folder cannot be written; a file of this name that
            was there stays as it was.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if optimizer.use_ema:
        averages = optimizer._model_variables_moving_average
        for weights, average in zip(model.trainable_variables, averages, strict=True):
            average.assign(keras.ops.convert_to_numpy(weights))
    write_aside(path, model.save)
