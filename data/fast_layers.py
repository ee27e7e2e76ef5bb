"""Two of Keras's layers, computed in a way that TensorFlow trains faster on a processor.

Results, arguments and weights are those of Keras's own layers; so is what is saved. What each
gains is measured in `tests/benchmark.md`.
"""

import keras
from keras import layers

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
if ON_TENSORFLOW:
    import tensorflow as tf


class Conv2D(layers.Conv2D):
    """A `keras.layers.Conv2D` that adds its bias in such a way that TensorFlow trains it faster.

    Keras adds the bias with TensorFlow's `bias_add`. On a processor, TensorFlow merges that
    operation's gradient with the gradient of the windows, and oneDNN's float32 code for both at
    once takes up to four times as long as its code for the windows alone. An ordinary sum is not
    merged. In 16 bits, the merged code is the faster one, so nothing changes there.

    Input: (batch, height, width, channels); output: (batch, height - 2, width - 2, filters) for
    windows of 3 x 3.
    """

    __module__ = "keras.layers"  # Keras writes it into model files: any Keras can load them

    def call(self, inputs):
        merged_is_faster = self.compute_dtype != "float32"
        if merged_is_faster or not self.use_bias or self.data_format == "channels_first":
            return super().call(inputs)
        # The bias goes first: the other way round, Keras would take bias_add again.
        outputs = keras.ops.add(self.bias, self.convolution_op(inputs, self.kernel))
        return outputs if self.activation is None else self.activation(outputs)


class BatchNormalization(layers.BatchNormalization):
    """A `keras.layers.BatchNormalization` that trains in one operation instead of a dozen.

    Keras computes mean, variance and result one after the other, each in a pass over all numbers,
    in float32 even where these have 16 bits. TensorFlow's fused normalization does it at once.
    One detail differs: it divides the sum of squares by one less than the count of numbers
    (Bessel's correction), which matters to the running variance only, and little.

    It takes over in training, for pictures (batch, height, width, channels), on a processor and
    on TensorFlow; everything else is left to Keras. The output has the shape of the input.
    """

    __module__ = "keras.layers"

    def call(self, inputs, training=None, mask=None):
        plain = self.scale and self.center and not (self.renorm or self.synchronized)
        pictures = len(inputs.shape) == 4 and self.axis in (-1, 3) and mask is None
        if not (training and self.trainable and plain and pictures and fused_is_faster()):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        for average, value in [(self.moving_mean, mean), (self.moving_variance, variance)]:
            value = tf.stop_gradient(value)
            average.assign(average * self.momentum + value * (1 - self.momentum))
        return outputs


def fused_is_faster():
    """Say whether the fused normalization can be used: on TensorFlow, where there is no GPU."""
    return ON_TENSORFLOW and not tf.config.list_physical_devices("GPU")
