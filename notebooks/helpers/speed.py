"""Step 24: the same network, computed faster."""

import time

import keras
from keras import layers

LARGE_MAP = 400  # places in a feature map from which on one draw of dropout serves a whole batch


def faster(model, precision="auto"):
    """Return a twin of a compiled network that trains faster, with the same weights to begin with.

    Its layers are exchanged one by one, its wiring is not. It computes with 16 bits where this
    computer is faster so (or as `precision` says, such as "float32"), normalizes in one operation
    instead of a dozen, and draws dropout on large feature maps once for a whole batch. To train it
    without `ResumeTraining`, copy the weights: `model.set_weights(twin.get_weights())`. Where Keras
    cannot copy a network, `model` itself is returned, with a sentence.
    """
    precision = choose_precision() if precision == "auto" else precision
    last = model.layers[-1] if model.layers else None

    def exchange(layer):
        if isinstance(layer, keras.Model):
            return keras.models.clone_model(layer, clone_function=exchange)
        config = layer.get_config()
        if config.get("dtype"):  # shares that add up to 1 need 32 bits
            config["dtype"] = "float32" if layer is last else precision
        kind = type(layer)
        if kind is layers.BatchNormalization:
            kind = FusedBatchNormalization
        elif kind is layers.Dropout and layer.noise_shape is None:
            shape = layer.output.shape
            if len(shape) == 4 and (None in shape[1:3] or shape[1] * shape[2] > LARGE_MAP):
                config["noise_shape"] = (1, None, None, None)
        return kind.from_config(config)

    try:
        twin = keras.models.clone_model(model, clone_function=exchange)
        twin.compile_from_config(model.get_compile_config() | {"auto_scale_loss": False})
        copy_weights(model, twin)
    except Exception as problem:  # what a reader's own layers raise can be anything
        reason = str(problem).strip().split("\n")[0]
        print(f"This network trains as it is, since Keras cannot copy it ({reason}).")
        return model
    if precision == "mixed_float16":  # which has no very small corrections
        twin.optimizer = keras.optimizers.LossScaleOptimizer(twin.optimizer)
    return twin


def copy_weights(source, target):
    """Give a network the weights of another one of the same build."""
    target.set_weights(source.get_weights())
    for layer in all_layers(target):
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()  # which `set_weights` leaves out


def all_layers(model):
    """Yield the layers of a network and of the networks within it."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from all_layers(layer)


class FusedBatchNormalization(layers.BatchNormalization):
    """A `keras.layers.BatchNormalization` that TensorFlow trains in one operation, not a dozen.

    Results are the same, but for Bessel's correction of the running variance. It takes over in
    training, for feature maps, on TensorFlow without a GPU; everything else is left to Keras.
    """

    def call(self, inputs, training=None, mask=None):
        usual = self.scale and self.center and not self.synchronized
        usual = usual and not getattr(self, "renorm", False)  # Keras has it from 3.14 on
        usual = usual and len(inputs.shape) == 4 and self.axis in (-1, 3) and mask is None
        on_processor = keras.backend.backend() == "tensorflow" and not gpus()
        if not (training and self.trainable and usual and on_processor):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        for average, value in [(self.moving_mean, mean), (self.moving_variance, variance)]:
            average.assign(average * self.momentum + tf.stop_gradient(value) * (1 - self.momentum))
        return outputs


def gpus():
    """Return the names of the GPUs that Keras sees, such as ["gpu:0"]."""
    devices = keras.distribution.list_devices()
    return [name for name in devices if not name.lower().startswith(("cpu", "tpu"))]


def choose_precision():
    """Return the fastest precision that this computer trains well in.

    A processor is timed: bfloat16 must make a convolution more than 1.3 times as fast. An NVIDIA
    GPU is judged by its compute capability: 8 or more for A100, RTX 30 and later, 7 for T4, V100.
    """
    if not gpus():
        kinds = ["float32", "bfloat16"] * 5  # in turns, so a burst of other work does not decide
        seconds = [time_convolution(dtype) for dtype in kinds]
        return "mixed_bfloat16" if min(seconds[::2]) > 1.3 * min(seconds[1::2]) else "float32"
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        gpu = tf.config.list_physical_devices("GPU")[0]
        capability = tf.config.experimental.get_device_details(gpu).get("compute_capability", (0,))
    else:
        import jax

        capability = str(getattr(jax.devices()[0], "compute_capability", "")).split(".")
    major = int(capability[0]) if str(capability[0]).isdigit() else 0  # AMD's: such as gfx90a
    return "mixed_bfloat16" if major >= 8 else "mixed_float16" if major == 7 else "float32"


def time_convolution(dtype):
    """Return the seconds that the second convolution of step 9 takes on 64 photos."""
    maps = keras.ops.ones((64, 63, 63, 32), dtype)
    windows = keras.ops.ones((3, 3, 32, 64), dtype)
    start = time.perf_counter()
    result = keras.ops.conv(maps, windows)
    float(keras.ops.sum(result[0, 0, 0]))  # waits until the result is there
    return time.perf_counter() - start
