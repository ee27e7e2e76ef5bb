"""Step 9: one of Keras's layers, computed in a way that TensorFlow trains faster on a processor.

Arguments, weights and saved files are those of Keras's own layer. So are the results, up to
rounding and one detail of the running variance. What it gains is measured in
`tests/benchmark.md`.
"""

import keras
from keras import layers

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
if ON_TENSORFLOW:
    import tensorflow as tf


class BatchNormalization(layers.BatchNormalization):
    """A `keras.layers.BatchNormalization` that TensorFlow trains in one operation, not a dozen.

    Keras computes mean, variance and result one after the other, each in a pass over all numbers,
    in float32 even where these have 16 bits. TensorFlow's fused normalization does it at once, and
    so does its gradient. One detail differs: for the running variance, the sum of squared
    deviations is divided by one less than the count of numbers (Bessel's correction).

    It takes over in training, for pictures (batch, height, width, channels) in 16 or 32 bits, with
    the usual arguments, on TensorFlow without a GPU. Everything else is left to Keras: a mask, a
    frozen layer, `axis`, `scale`, `center`, `renorm` or `synchronized` other than by default. The
    output has the shape of the input.
    """

    # Keras writes it into model files, and loads its own layer from them, without this file.
    __module__ = "keras.layers"

    def call(self, inputs, training=None, mask=None):
        usual = self.scale and self.center and not (self.renorm or self.synchronized)
        pictures = len(inputs.shape) == 4 and self.axis in (-1, 3) and mask is None
        usual = usual and pictures and self.compute_dtype != "float64"
        if not (training and self.trainable and usual and use_fused()):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        for average, value in [(self.moving_mean, mean), (self.moving_variance, variance)]:
            value = tf.stop_gradient(value)
            average.assign(average * self.momentum + value * (1 - self.momentum))
        return outputs


def use_fused():
    """Return whether to use it: on TensorFlow, if it sees no GPU (there, it was not measured)."""
    return ON_TENSORFLOW and not tf.config.list_physical_devices("GPU")
