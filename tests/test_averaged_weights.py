"""Before each validation, normalization gets the averages that belong to the averaged weights."""

import os
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from averaged_weights import UseAveragedWeights
from fast_layers import BatchNormalization
from keras import layers

PHOTOS = np.random.default_rng(1).integers(0, 256, (64, 6, 6, 3), np.uint8)
ANSWERS = np.eye(2)[np.arange(64) % 2]


def network():
    """Return a compiled network with dropout before its normalization."""
    model = keras.Sequential([keras.Input((6, 6, 3)), layers.Rescaling(1 / 255)])
    model.add(layers.Conv2D(4, 3))
    model.add(layers.Dropout(0.5))
    model.add(BatchNormalization(momentum=0.9))
    model.add(layers.Flatten())
    model.add(layers.Dense(2, activation="softmax"))
    optimizer = keras.optimizers.RMSprop(0.01, use_ema=True, ema_momentum=0.5)
    model.compile(optimizer, loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def numbers(variable):
    """Return a variable's value as a NumPy array."""
    return keras.ops.convert_to_numpy(variable)


def test_the_averages_are_those_of_all_batches_without_dropout():
    model = network()
    generator = SimpleNamespace(pixels=PHOTOS)
    callback = UseAveragedWeights(generator, photos=16, batch_size=8)
    assert [batch.shape for batch in callback.batches] == [(8, 6, 6, 3)] * 2
    callback.set_model(model)
    callback._average_normalization()

    _, convolution, _, norm, *_ = model.layers
    seen = numbers(convolution(np.concatenate(callback.batches) / 255))
    mean = seen.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(numbers(norm.moving_mean), mean, rtol=1e-4, atol=1e-6)
    halves = [half.var(axis=(0, 1, 2)) for half in np.split(seen, 2)]
    np.testing.assert_allclose(numbers(norm.moving_variance), np.mean(halves, axis=0), rtol=0.01)


@pytest.mark.parametrize("fails", [False, True])
def test_dropout_and_momentum_are_put_back(fails):
    model = network()
    callback = UseAveragedWeights(SimpleNamespace(pixels=PHOTOS))
    callback.set_model(model)
    if fails:
        callback.batches = [np.zeros((2, 5, 5, 3))]
        with pytest.raises(ValueError):
            callback._average_normalization()
    else:
        callback._average_normalization()
    assert model.layers[2].rate == 0.5 and model.layers[3].momentum == 0.9


@pytest.mark.parametrize(
    ("there", "batches"),
    [(3, [1]), (64, [16]), (600, [128]), (4096, [128] * 8), (20_000, [128] * 8)],
)
def test_so_many_photos_are_looked_at(there, batches):
    pixels = np.zeros((there, 1, 1, 3), np.uint8)
    callback = UseAveragedWeights(SimpleNamespace(pixels=pixels))
    assert [len(batch) for batch in callback.batches] == batches


def test_what_is_validated_is_what_is_kept():
    model = network()
    callback = UseAveragedWeights(SimpleNamespace(pixels=PHOTOS))
    history = model.fit(
        PHOTOS[:48],
        ANSWERS[:48],
        validation_data=(PHOTOS[48:], ANSWERS[48:]),
        batch_size=16,
        epochs=3,
        callbacks=[callback],
        verbose=0,
    )
    loss, accuracy = model.evaluate(PHOTOS[48:], ANSWERS[48:], verbose=0)
    assert history.history["val_loss"][-1] == pytest.approx(loss, abs=1e-5)
    assert history.history["val_accuracy"][-1] == pytest.approx(accuracy)


ON_JAX = """
from types import SimpleNamespace

import averaged_weights
import keras
import numpy as np
from test_averaged_weights import PHOTOS, network

model = network()
weights = model.get_weights()
kept = []
for averaged_weights.ON_JAX in [True, False]:
    model.set_weights(weights)
    callback = averaged_weights.UseAveragedWeights(SimpleNamespace(pixels=PHOTOS), 16, 8)
    callback.set_model(model)
    for _ in range(2):
        callback._average_normalization()
    kept.append(model.get_weights())
assert model.layers[2].rate == 0.5 and model.layers[3].momentum == 0.9
changed = [not np.array_equal(new, old) for new, old in zip(kept[0], weights)]
far = max(abs(one - other).max() for one, other in zip(*kept))
print(keras.backend.backend(), sum(changed), far)
"""


def test_what_jax_compiles_comes_to_the_same():
    done = subprocess.run(
        [sys.executable, "-c", ON_JAX],
        capture_output=True,
        text=True,
        env=os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    backend, changed, far = done.stdout.split()[-3:]
    assert (backend, changed) == ("jax", "2") and float(far) < 1e-5
