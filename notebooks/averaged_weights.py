"""Steps 24 and 39: the callback that puts the averaged weights in place for each validation."""

import keras

ON_JAX = keras.backend.backend() == "jax"
if ON_JAX:
    import jax


class UseAveragedWeights(keras.callbacks.SwapEMAWeights):
    """Tests and keeps the averaged weights, with normalization averages that belong to them.

    The optimizer averages the weights (`use_ema=True`); Keras's `SwapEMAWeights` puts these
    averages in place for validation and at the end of an epoch. But what `BatchNormalization`
    has averaged belongs to the weights of single batches, to photos that were changed, and to
    numbers that `Dropout` has thinned. So before each validation these averages are taken anew:
    the network looks at some training photos, unchanged and without dropout. This makes
    validation accuracy higher and calmer; `tests/benchmark.md` says by how much.

    After Izmailov et al., "Averaging weights leads to wider optima and better generalization"
    (2018), section 3.2, and Wu and Johnson, "Rethinking 'batch' in BatchNorm" (2021), section 3.

    Args:
        generator: a `PhotoGenerator` of the training photos, or another object with their
            pixels, an array of the shape (photos, height, width, 3), in an attribute `pixels`.
        photos: how many of them to look at, at most; never more than a quarter of them.
        batch_size: how many at a time. Only whole batches count, unless there is none.
    """

    def __init__(self, generator, photos=1024, batch_size=128):
        super().__init__(swap_on_epoch=True)
        pixels = generator.pixels
        photos = max(1, min(photos, len(pixels) // 4))
        pixels = pixels[:: len(pixels) // photos][:photos]
        whole = len(pixels) // batch_size * batch_size or len(pixels)
        self.batches = [pixels[start : start + batch_size] for start in range(0, whole, batch_size)]

    def on_test_begin(self, logs=None):
        super().on_test_begin(logs)
        self._average_normalization()

    def set_model(self, model):
        super().set_model(model)
        self._norms = [
            layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
        ]
        self._look = compiled(model, self._look_at) if ON_JAX else self._look_at

    def _average_normalization(self):
        """Set each normalization's mean and variance to the averages over all batches."""
        layers = self.model.layers
        dropouts = [layer for layer in layers if isinstance(layer, keras.layers.Dropout)]
        rates = [layer.rate for layer in dropouts]
        momenta = [layer.momentum for layer in self._norms]
        try:
            for layer in dropouts:
                layer.rate = 0
            for number, photos in enumerate(self.batches):
                self._look(photos, number / (number + 1))  # so that all batches count the same
        finally:
            for layer, rate in zip(dropouts, rates, strict=True):
                layer.rate = rate
            for layer, momentum in zip(self._norms, momenta, strict=True):
                layer.momentum = momentum

    def _look_at(self, photos, momentum):
        """Let the network look at photos; `momentum` is what remains of the averages so far."""
        for layer in self._norms:
            layer.momentum = momentum
        self.model(photos, training=True)


def compiled(model, function):
    """Return a function that does the same to a network's variables, compiled by JAX.

    Called as it is, JAX starts hundreds of small operations, which takes longer than they do.
    """

    @jax.jit
    def without_side_effects(values, *arguments):
        with keras.StatelessScope(zip(model.variables, values, strict=True)) as scope:
            function(*arguments)
        return [scope.get_current_value(variable) for variable in model.variables]

    def with_side_effects(*arguments):
        values = without_side_effects([variable.value for variable in model.variables], *arguments)
        for variable, value in zip(model.variables, values, strict=True):
            variable.assign(value)

    return with_side_effects
