"""The faster normalization computes what Keras's own does, and leaves model files as they were."""

import subprocess
import sys
from pathlib import Path

import fast_layers
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

pytestmark = pytest.mark.once

BOTH = [fast_layers, keras.layers]  # where the normalization comes from


def networks(dtype, normalization=None):
    """Return the same small network twice: with the faster normalization, and with Keras's own."""
    models = []
    for source in BOTH:
        model = keras.Sequential(
            [
                keras.Input((12, 12, 3)),
                keras.layers.Conv2D(8, 3, dtype=dtype),
                keras.layers.MaxPooling2D(dtype=dtype),
                source.BatchNormalization(momentum=0.8, dtype=dtype, **normalization or {}),
                keras.layers.Flatten(dtype=dtype),
                keras.layers.Dense(2, dtype="float32"),
            ]
        )
        model.compile(keras.optimizers.SGD(0.001), loss="mse")
        models.append(model)
    random = np.random.default_rng(1)
    weights = [np.abs(random.normal(0, 0.3, value.shape)) for value in models[1].get_weights()]
    for model in models:
        model.set_weights(weights)
    return models


def operations(model, training=True):
    """Return the types of all TensorFlow operations in a step that trains a model, or tests it."""

    @tf.function
    def step(photos):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(photos, training=training))
        return tape.gradient(loss, model.trainable_variables)

    graph = step.get_concrete_function(tf.zeros((4, 12, 12, 3))).graph
    return [operation.type for operation in graph.get_operations()]


@pytest.mark.parametrize(
    ("dtype", "normalization"),
    [
        ("float32", {}),
        ("float32", {"scale": False}),
        ("float32", {"center": False}),
        ("float32", {"axis": 1}),
        ("float32", {"epsilon": 0.1}),
        ("float64", {}),
        ("mixed_bfloat16", {}),
    ],
)
def test_it_computes_and_learns_what_keras_does(dtype, normalization):
    fast, own = networks(dtype, normalization)
    random = np.random.default_rng(2)
    photos = random.random((16, 12, 12, 3), dtype="float32")
    answers = random.random((16, 2), dtype="float32")
    before = fast.get_weights()
    assert fast.predict(photos, verbose=0) == pytest.approx(
        own.predict(photos, verbose=0), rel=1e-5
    )
    for _ in range(3):
        fast.train_on_batch(photos, answers)
        own.train_on_batch(photos, answers)
    tolerance = 0.02 if dtype == "float32" else 0.1  # of what a weight has learned
    learned = []
    for start, mine, theirs in zip(before, fast.get_weights(), own.get_weights(), strict=True):
        change = float(np.abs(theirs - start).max())
        assert mine == pytest.approx(theirs, abs=tolerance * change + 1e-5)
        learned.append(change > 0.0001)
    assert sum(learned) >= len(learned) - 1, "a bias before a normalization learns nothing"


def test_the_normalization_of_a_batch_is_that_of_keras():
    photos = np.random.default_rng(3).normal(2, 5, (8, 6, 6, 4)).astype("float32")
    fast, own = (source.BatchNormalization() for source in BOTH)
    assert to_numpy(fast(photos, training=True)) == pytest.approx(
        to_numpy(own(photos, training=True)), abs=1e-5
    )
    assert to_numpy(fast.moving_mean) == pytest.approx(to_numpy(own.moving_mean), abs=1e-5)
    count = 8 * 6 * 6
    grown = to_numpy(fast.moving_variance) - 0.99  # 0.99 of the 1 that it starts with
    expected = to_numpy(own.moving_variance) - 0.99
    assert grown == pytest.approx(expected * count / (count - 1), rel=1e-3)


def test_the_normalization_is_one_operation_in_training_only():
    fast, own = networks("float32")
    assert operations(fast).count("FusedBatchNormV3") == 1
    assert operations(own).count("FusedBatchNormV3") == 0
    assert operations(fast, training=False).count("FusedBatchNormV3") == 0
    fast.layers[2].trainable = False
    assert operations(fast).count("FusedBatchNormV3") == 0, "frozen: its averages are used"


def test_everything_else_is_left_to_keras(monkeypatch):
    for shape in [(8, 5), (8, 6, 4)]:
        values = np.random.default_rng(4).normal(0, 1, shape).astype("float32")
        fast, own = (source.BatchNormalization() for source in BOTH)
        for training in [True, False]:
            results = [to_numpy(layer(values, training=training)) for layer in [fast, own]]
            assert results[0] == pytest.approx(results[1], abs=1e-6)
        assert to_numpy(fast.moving_variance) == pytest.approx(to_numpy(own.moving_variance))

    fast, _ = networks("float32")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    assert operations(fast).count("FusedBatchNormV3") == 0


def test_two_devices_normalize_their_own_half_of_a_batch_as_keras_does():
    """Run in a process of its own, since one processor must pass for two devices."""
    script = (
        "import numpy as np, tensorflow as tf\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "two = [tf.config.LogicalDeviceConfiguration()] * 2\n"
        "tf.config.set_logical_device_configuration(cpu, two)\n"
        "import keras, fast_layers\n"
        "photos = np.random.default_rng(5).normal(2, 5, (8, 6, 6, 4)).astype('float32')\n"
        "weights = []\n"
        "for source in [fast_layers, keras.layers]:\n"
        "    with tf.distribute.MirroredStrategy(['cpu:0', 'cpu:1']).scope():\n"
        "        layers = [keras.Input((6, 6, 4)), source.BatchNormalization(momentum=0.5)]\n"
        "        model = keras.Sequential(layers)\n"
        "        model.compile(keras.optimizers.SGD(0.1), loss='mse')\n"
        "    model.fit(photos, photos, batch_size=8, epochs=3, verbose=0, shuffle=False)\n"
        "    weights.append(model.get_weights())\n"
        "for mine, theirs in zip(*weights, strict=True):\n"
        "    np.testing.assert_allclose(mine, theirs, rtol=0.01)\n"
        "print('the same')\n"
    )
    notebooks = Path(fast_layers.__file__).parent
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=notebooks)
    assert done.stdout.split("\n")[-2:] == ["the same", ""], done.stderr


def test_keras_alone_loads_a_model_saved_with_it(tmp_path):
    fast, _ = networks("float32")
    file = tmp_path / "model.keras"
    fast.save(file)
    script = (
        "import sys, keras\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "assert type(model.layers[2]) is keras.layers.BatchNormalization\n"
        "print(model.count_params())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.split()[-1:] == [str(fast.count_params())], done.stderr
