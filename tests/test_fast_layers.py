"""The faster Conv2D computes what Keras's own computes, and leaves model files as they were."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from fast_layers import Conv2D


def networks(dtype, **arguments):
    """Return the same small network twice, with the faster Conv2D and with Keras's own."""
    models = []
    for layer in [Conv2D, keras.layers.Conv2D]:
        model = keras.Sequential(
            [
                keras.Input((12, 12, 3)),
                layer(8, 3, dtype=dtype, **arguments),
                keras.layers.MaxPooling2D(dtype=dtype),
                keras.layers.Flatten(dtype=dtype),
                keras.layers.Dense(2, dtype="float32"),
            ]
        )
        model.compile(keras.optimizers.SGD(0.01), loss="mse")
        models.append(model)
    random = np.random.default_rng(1)
    weights = [random.normal(0, 0.3, value.shape) for value in models[1].get_weights()]
    for model in models:
        model.set_weights(weights)
    return models


@pytest.mark.parametrize(
    ("dtype", "arguments"),
    [
        ("float32", {}),
        ("float32", {"activation": "relu"}),
        ("float32", {"use_bias": False}),
        ("mixed_bfloat16", {}),
    ],
)
def test_it_computes_and_learns_what_keras_does(dtype, arguments):
    fast, own = networks(dtype, **arguments)
    random = np.random.default_rng(2)
    photos = random.random((16, 12, 12, 3), dtype="float32")
    answers = random.random((16, 2), dtype="float32")
    before = fast.get_weights()
    assert fast.predict(photos, verbose=0) == pytest.approx(
        own.predict(photos, verbose=0), abs=1e-5
    )
    for _ in range(3):
        fast.train_on_batch(photos, answers)
        own.train_on_batch(photos, answers)
    tolerance = 1e-5 if dtype == "float32" else 0.01
    for start, mine, theirs in zip(before, fast.get_weights(), own.get_weights(), strict=True):
        assert mine == pytest.approx(theirs, abs=tolerance)
        assert np.abs(mine - start).max() > tolerance, "every weight must have learned"


def test_tensorflow_does_not_merge_its_gradients():
    """The bias's gradient must not be the operation that TensorFlow merges."""
    import tensorflow as tf

    for model, merged in zip(networks("float32"), [0, 1], strict=True):

        @tf.function
        def gradients(photos, model=model):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model.layers[0](photos))
            return tape.gradient(loss, model.layers[0].trainable_variables)

        graph = gradients.get_concrete_function(tf.zeros((4, 12, 12, 3))).graph
        operations = [operation.type for operation in graph.get_operations()]
        assert operations.count("BiasAddGrad") == merged


def test_keras_alone_loads_a_model_saved_with_it(tmp_path):
    fast, _ = networks("float32")
    file = tmp_path / "model.keras"
    fast.save(file)
    script = (
        "import sys, keras\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "assert type(model.layers[0]) is keras.layers.Conv2D\n"
        "print(model.count_params())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.split()[-1:] == [str(fast.count_params())], done.stderr
