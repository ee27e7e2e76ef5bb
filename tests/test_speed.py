"""The faster twin gives the same answers, learns in every way, and is saved as plain Keras."""

from zipfile import ZipFile

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.speed import FusedBatchNormalization, faster
from keras import layers
from test_training import compiled, make_generators, train


def network(filters=(4,), size=24, activation=layers.ReLU, inside=False, eager=True):
    """Return a compiled network like that of step 9, with the commonest changes to it."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((size, size, 3)), layers.Rescaling(1 / 255)])
    for count in filters:
        model.add(layers.Conv2D(count, 3, activation="relu" if inside else None))
        model.add(layers.MaxPooling2D())
        if not inside:
            model.add(activation())
        model.add(layers.BatchNormalization(momentum=0.8))
        model.add(layers.Dropout(0.25))
    for layer in (layers.Flatten(), layers.Dense(16, activation="relu"), layers.Dropout(0.5)):
        model.add(layer)
    model.add(layers.Dense(2, activation="softmax"))
    return compiled(model, keras.optimizers.Adam(0.01), eager=eager)


def with_shortcut():
    inputs = keras.Input((24, 24, 3))
    start = layers.Conv2D(4, 3, strides=4, padding="same")(layers.Rescaling(1 / 255)(inputs))
    maps = layers.ReLU()(layers.BatchNormalization()(start))
    maps = layers.Add()([start, layers.Conv2D(4, 3, padding="same")(maps)])
    outputs = layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling2D()(maps))
    return compiled(keras.Model(inputs, outputs))


def with_network_inside():
    pixels = layers.Normalization()
    pixels.adapt(np.arange(300).reshape(100, 3))
    steps = [pixels, layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Dropout(0.2)]
    inside = keras.Sequential([keras.Input((24, 24, 3)), *steps])
    last = [layers.Flatten(), layers.Dense(2), layers.Softmax()]
    return compiled(keras.Sequential([keras.Input((24, 24, 3)), inside, *last]))


CHANGES = {
    "relu inside": lambda: network(inside=True),
    "another activation": lambda: network((4, 8), size=17, activation=layers.LeakyReLU),
    "a shortcut": with_shortcut,
    "a network inside, softmax as a layer": with_network_inside,
}


@pytest.mark.parametrize("case", CHANGES)
def test_networks_with_the_commonest_changes_are_trained_and_saved_as_plain_keras(
    photos, tmp_path, case
):
    model = CHANGES[case]()
    generators = make_generators(photos, model.input_shape[1], wrong=48)
    pictures = generators[1].pixels
    twin = faster(model, "float32")
    assert twin is not model
    fresh = model.predict(pictures, verbose=0)
    np.testing.assert_allclose(twin.predict(pictures, verbose=0), fresh, atol=1e-6)
    train(photos, tmp_path, 1, model, twin=twin, generators=generators)
    trained = model.predict(pictures, verbose=0)
    np.testing.assert_allclose(twin.predict(pictures, verbose=0), trained, atol=1e-6)
    assert (trained != fresh).any() and np.isfinite(trained).all()
    model.save(tmp_path / "trained.keras")
    assert b"helpers" not in ZipFile(tmp_path / "trained.keras").read("config.json")
    opened = keras.models.load_model(tmp_path / "trained.keras")
    np.testing.assert_allclose(opened.predict(pictures, verbose=0), trained, atol=1e-6)
    assert {weights.dtype for weights in opened.trainable_weights} == {"float32"}


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_it_learns_with_16_bits_as_well_and_weights_stay_32_bits(photos, tmp_path, precision):
    keras.config.set_dtype_policy(precision)  # as some notebooks do
    model, generators = network(eager=False), make_generators(photos, 24, wrong=48)
    twin = faster(model, precision)
    keras.config.set_dtype_policy("float32")
    inner = getattr(twin.optimizer, "inner_optimizer", twin.optimizer)
    assert type(inner) is keras.optimizers.Adam, "the loss is scaled once"
    kinds = {layer.compute_dtype for layer in twin.layers[:-1]}
    assert kinds == {precision.removeprefix("mixed_")}
    assert twin.layers[-1].compute_dtype == "float32", "shares that add up to 1"
    train(photos, tmp_path, 5, model, [], twin, generators=generators)
    assert {values.dtype.name for values in model.get_weights()} == {"float32"}
    right = model.predict(generators[0].pixels, verbose=0).argmax(axis=1) == generators[0].labels
    assert right.mean() > 0.85


class Own(keras.Model):
    """A network written as a class."""

    def __init__(self):
        super().__init__()
        self.steps = [layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(2, "softmax")]

    def call(self, inputs):
        for step in self.steps:
            inputs = step(inputs)
        return inputs


class Secret(layers.Layer):
    """A layer that does not say what it was made with."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def call(self, inputs):
        return self.change(inputs)


@pytest.mark.parametrize("case", ["a class", "a layer that cannot be copied"])
def test_what_cannot_be_copied_trains_as_it_is(photos, tmp_path, capsys, case):
    model, generators = Own(), make_generators(photos, 24, wrong=48)
    if case != "a class":
        steps = [Secret(lambda values: values / 255), layers.Flatten(), layers.Dense(2, "softmax")]
        model = keras.Sequential([keras.Input((24, 24, 3)), *steps])
    compiled(model)
    model(generators[1].pixels)
    assert faster(model, "float32") is model
    assert "This network trains as it is, since Keras cannot copy it (" in capsys.readouterr().out
    if case == "a class":
        training, _ = train(photos, tmp_path, 2, model, generators=generators)
        assert len(training.log) == 2
    else:
        model.fit(generators[0], shuffle=False, verbose=0)
        with pytest.raises(ValueError, match="Give your own layers a get_config, or leave"):
            train(photos, tmp_path, 2, model, generators=generators)


def test_without_the_callback_one_line_copies_the_weights(photos):
    model, (training, validation) = network(), make_generators(photos, 24)
    twin, batch = faster(model, "float32"), training[0][0]
    twin.fit(training, epochs=2, shuffle=False, verbose=0)
    assert (training[0][0] != batch).any(), "new variants by itself"
    twin_says = twin.predict(validation, verbose=0)
    assert np.abs(model.predict(validation, verbose=0) - twin_says).max() > 0.001
    model.set_weights(twin.get_weights())
    np.testing.assert_allclose(model.predict(validation, verbose=0), twin_says, atol=1e-5)


NORMALIZATIONS = {
    "usual": ({}, (2, 2, 3, 4)),
    "with its own momentum": ({"momentum": 0.5, "epsilon": 0.1}, (2, 2, 3, 4)),
    "without scale": ({"scale": False}, (2, 2, 3, 4)),
    "channels first": ({"axis": 1}, (2, 2, 3, 4)),
    "frozen": ({"trainable": False}, (2, 2, 3, 4)),
    "after Dense": ({}, (12, 4)),
}


@pytest.mark.parametrize("case", NORMALIZATIONS)
def test_the_faster_normalization_computes_what_keras_does(case):
    options, shape = NORMALIZATIONS[case]
    values = tf.constant(np.random.default_rng(3).normal(2, 5, shape).astype("float32"))
    wanted, results = tf.random.normal(shape, seed=1), []
    for kind in (FusedBatchNormalization, layers.BatchNormalization):
        layer = kind(**options)
        with tf.GradientTape() as tape:
            tape.watch(values)
            outputs = layer(values, training=True)
            loss = tf.reduce_sum(outputs * wanted)
        gradients = tape.gradient(loss, [values, *[v.value for v in layer.trainable_variables]])
        start = layer.moving_variance.numpy()
        results.append([outputs, *gradients, layer.moving_mean, start])
    for mine, theirs in zip(*(result[:-1] for result in results), strict=True):
        np.testing.assert_allclose(np.array(mine), np.array(theirs), rtol=1e-4, atol=1e-4)
    momentum = options.get("momentum", 0.99)
    mine, theirs = (result[-1] - momentum for result in results)
    if "momentum" in options or case == "usual":  # 12 numbers: Bessel's correction is 12 / 11
        mine = mine * 11 / 12
    np.testing.assert_allclose(mine, theirs, rtol=1e-3)
