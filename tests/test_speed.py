"""The faster twin gives the same answers, learns in every way, and is saved as plain Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.speed import FusedBatchNormalization, faster
from keras import layers
from test_training import compiled, make_generators, train


def network(filters=(4, 8), size=24, activation=None, inside=False, functional=False, eager=True):
    """Return a compiled network like that of step 9, with the commonest changes to it."""
    keras.utils.set_random_seed(1)
    steps = [layers.Rescaling(1 / 255)]
    for count in filters:
        steps.append(layers.Conv2D(count, 3, activation="relu" if inside else None))
        steps.append(layers.MaxPooling2D())
        steps += [] if inside else [activation or layers.ReLU()]
        steps += [layers.BatchNormalization(momentum=0.8), layers.Dropout(0.25)]
    steps += [layers.Flatten(), layers.Dense(16, activation="relu"), layers.Dropout(0.5)]
    steps.append(layers.Dense(2, activation="softmax"))
    inputs = keras.Input((size, size, 3))
    if not functional:
        model = keras.Sequential([inputs, *steps])
        return compiled(model, keras.optimizers.Adam(0.01), eager=eager)
    outputs = inputs
    for step in steps:
        outputs = step(outputs)
    return compiled(keras.Model(inputs, outputs))


def with_shortcut():
    inputs = keras.Input((24, 24, 3))
    start = layers.Conv2D(4, 3, strides=4, padding="same")(layers.Rescaling(1 / 255)(inputs))
    maps = layers.ReLU()(layers.BatchNormalization()(start))
    maps = layers.Add()([start, layers.Conv2D(4, 3, padding="same")(maps)])
    outputs = layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling2D()(maps))
    return compiled(keras.Model(inputs, outputs))


def with_network_inside():
    steps = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Dropout(0.2)]
    inside = keras.Sequential([keras.Input((24, 24, 3)), *steps])
    last = [layers.Flatten(), layers.Dense(2), layers.Softmax()]
    return compiled(keras.Sequential([keras.Input((24, 24, 3)), inside, *last]))


CHANGES = {
    "as it is": network,
    "relu inside": lambda: network(inside=True),
    "another activation": lambda: network((4,), activation=layers.LeakyReLU()),
    "one block less": lambda: network((4,)),
    "one block more": lambda: network((4, 4, 4)),
    "another size": lambda: network(size=17),
    "functional": lambda: network(functional=True),
    "a shortcut": with_shortcut,
    "a network inside, softmax as a layer": with_network_inside,
}


def documented():
    """Return the network of step 9, compiled."""
    model = keras.Sequential([keras.Input((128, 128, 3)), layers.Rescaling(1 / 255)])
    for filters in (32, 64, 128):
        model.add(layers.Conv2D(filters, 3))
        model.add(layers.MaxPooling2D())
        model.add(layers.ReLU())
        model.add(layers.BatchNormalization())
        model.add(layers.Dropout(0.25))
    model.add(layers.Flatten())
    model.add(layers.Dense(512, activation="relu"))
    model.add(layers.BatchNormalization())
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(2, activation="softmax"))
    return compiled(model)


LOADER = """
import sys, numpy as np, keras
folder = sys.argv[1]
for name, size, answers in np.load(f"{folder}/answers.npy", allow_pickle=True):
    model = keras.models.load_model(f"{folder}/{name}.keras")
    photos = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), "uint8")
    np.testing.assert_allclose(model.predict(photos, verbose=0), answers, atol=1e-5, err_msg=name)
    assert {values.dtype.name for values in model.get_weights()} == {"float32"}
assert not [name for name in sys.modules if name.startswith("helpers")]
print("all the same")
"""


def test_networks_with_the_commonest_changes_are_trained_saved_and_open_without_this_project(
    photos, tmp_path, run_script
):
    answers = []
    for name, build in [*CHANGES.items(), ("documented", documented)]:
        model = build()
        size = model.input_shape[1]
        pictures = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), "uint8")
        before = model.predict(pictures, verbose=0)
        twin = faster(model, "float32")
        assert twin is not model, name
        generators = make_generators(photos, size, wrong=48)
        train(photos, tmp_path, 1, model, twin=twin, generators=generators)
        predicted = model.predict(pictures, verbose=0)
        assert (predicted != before).any() and np.isfinite(predicted).all(), name
        np.testing.assert_allclose(predicted.sum(axis=1), 1, atol=1e-5)
        model.evaluate(generators[1], verbose=0)
        model.save(tmp_path / f"{name}.keras")
        answers.append((name, size, predicted))
    assert model.count_params() == 12_942_786
    assert (tmp_path / "documented.keras").stat().st_size < 55e6
    np.save(tmp_path / "answers.npy", np.array(answers, dtype=object), allow_pickle=True)
    done = run_script(LOADER, tmp_path)
    assert done.stdout.split("\n")[-2:] == ["all the same", ""], done.stderr


def learns(generators, model):
    """Whether a network is right about most photos that it has seen, as they are."""
    right = model.predict(generators[0].pixels, verbose=0).argmax(axis=1) == generators[0].labels
    return right.mean() > 0.85


@pytest.mark.parametrize("has_twin", [True, False])
@pytest.mark.parametrize("has_callback", [True, False])
def test_with_and_without_twin_and_callback_it_learns(photos, tmp_path, has_twin, has_callback):
    model, generators = network(eager=False), make_generators(photos, 24, wrong=48)
    pictures = generators[1].pixels
    twin = faster(model, "float32") if has_twin else model
    fresh = model.predict(pictures, verbose=0)
    np.testing.assert_allclose(twin.predict(pictures, verbose=0), fresh, atol=1e-6)
    if has_callback:
        train(photos, tmp_path, 12, model, [], twin, generators=generators)
    else:
        options = {"epochs": 12, "shuffle": False, "verbose": 0}
        twin.fit(generators[0], validation_data=generators[1], **options)
        model.set_weights(twin.get_weights())
    trained = model.predict(pictures, verbose=0)
    np.testing.assert_allclose(twin.predict(pictures, verbose=0), trained, atol=1e-6)
    assert np.abs(trained - fresh).max() > 0.1 and learns(generators, model)


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


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_16_bits_train_to_numbers_and_weights_stay_32_bits(photos, tmp_path, precision):
    model, generators = network(eager=False), make_generators(photos, 24, wrong=48)
    twin = faster(model, precision)
    kinds = {layer.compute_dtype for layer in twin.layers[:-1]}
    assert kinds == {precision.removeprefix("mixed_")}
    assert twin.layers[-1].compute_dtype == "float32", "shares that add up to 1"
    training, _ = train(photos, tmp_path, 12, model, [], twin, generators=generators)
    assert np.isfinite([row["val_loss"] for row in training.log]).all()
    assert {values.dtype.name for values in model.get_weights()} == {"float32"}
    assert learns(generators, model)


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
