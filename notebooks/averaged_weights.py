"""Steps 24 and 39: the callback that puts the averaged weights in place for each validation."""

import keras


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

    def _average_normalization(self):
        """Set each normalization's mean and variance to the averages over all batches."""
        layers = self.model.layers
        dropouts = [layer for layer in layers if isinstance(layer, keras.layers.Dropout)]
        norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
        rates = [layer.rate for layer in dropouts]
        momenta = [layer.momentum for layer in norms]
        try:
            for layer in dropouts:
                layer.rate = 0
            for number, photos in enumerate(self.batches):
                for layer in norms:
                    layer.momentum = number / (number + 1)  # so that all batches count the same
                self.model(photos, training=True)
        finally:
            for layer, rate in zip(dropouts, rates, strict=True):
                layer.rate = rate
            for layer, momentum in zip(norms, momenta, strict=True):
                layer.momentum = momentum
