"""Keras's Conv2D, with a faster gradient in float32 on a processor."""

import keras
from keras import layers


class Conv2D(layers.Conv2D):
    """A `keras.layers.Conv2D` that adds its bias in such a way that TensorFlow trains it faster.

    Results, arguments and weights are those of `keras.layers.Conv2D`; so is what is saved. Keras
    adds the bias with TensorFlow's `bias_add`. On a processor, TensorFlow merges that operation's
    gradient with the gradient of the windows, and oneDNN's float32 code for both at once takes up
    to four times as long as its code for the windows alone (`tests/benchmark.md`). An ordinary
    sum is not merged. In 16 bits, the merged code is the faster one, so nothing changes there.

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
