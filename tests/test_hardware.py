"""Keras starts without a word, all GPUs get work, and the precision suits the hardware."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import hardware
import keras
import pytest
import tensorflow as tf

NOTEBOOKS = Path(hardware.__file__).parent


def run(script, **environment):
    """Run a script in a process of its own, beside the modules of the notebook."""
    environment = os.environ | environment
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=NOTEBOOKS,
        env=environment,
        timeout=300,
    )


def test_keras_starts_without_a_word_and_whatever_its_own_settings_say(tmp_path):
    wishes = {"floatx": "float16", "image_data_format": "channels_first", "epsilon": 1e-7}
    (tmp_path / "keras.json").write_text(json.dumps(wishes | {"backend": "tensorflow"}))
    done = run(
        "from hardware import start_keras_quietly\n"
        "start_keras_quietly()\n"
        "import keras\n"
        "model = keras.Sequential([keras.Input((9, 8, 3)), keras.layers.Conv2D(4, 3)])\n"
        "assert model.output_shape == (None, 7, 6, 4), model.output_shape\n"
        "assert {weight.dtype for weight in model.weights} == {'float32'}\n"
        "assert model.layers[0].compute_dtype == 'float32'\n",
        KERAS_HOME=str(tmp_path),
        KERAS_BACKEND="tensorflow",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_package_that_keras_lacks_is_named():
    done = run(
        "import sys\n"
        "sys.modules['jax'] = None  # as if it were not installed\n"
        "from hardware import start_keras_quietly\n"
        "start_keras_quietly()\n",
        KERAS_BACKEND="jax",
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: Keras needs the package 'jax', which is not inst")
    assert "During handling" not in done.stderr and "direct cause" not in done.stderr


def test_what_compiled_code_writes_to_the_error_stream_is_off_only_for_a_while(capfd):
    with hardware.error_stream_off():
        os.write(2, b"a message of TensorFlow")
    os.write(2, b"an error")
    assert capfd.readouterr().err == "an error"


@pytest.mark.parametrize(
    ("devices", "gpus"),
    [
        (["cpu:0"], []),
        (["gpu:0", "gpu:1"], ["gpu:0", "gpu:1"]),
        (["tpu:0"], []),
    ],
)
def test_gpus_are_told_from_other_devices(monkeypatch, devices, gpus):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: devices)
    assert hardware.find_gpus() == gpus


@pytest.mark.parametrize(
    ("count", "apple", "gpus"),
    [(0, False, []), (0, True, ["mps"]), (2, False, ["cuda:0", "cuda:1"])],
)
def test_pytorch_is_asked_itself_for_its_gpus(monkeypatch, count, apple, gpus):
    mps = SimpleNamespace(is_available=lambda: apple)
    cuda = SimpleNamespace(device_count=lambda: count, is_available=lambda: count > 0)
    cuda.get_device_capability = lambda: (8, 9)
    cuda.get_device_name = lambda: "RTX"
    torch = SimpleNamespace(cuda=cuda, backends=SimpleNamespace(mps=mps))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    assert hardware.find_gpus() == gpus
    assert hardware.look_at_gpu() == (("RTX", (8, 9)) if count else ("Apple", (0, 0)))


@pytest.mark.parametrize(
    ("text", "capability"), [("9.0", (9, 0)), ("gfx90a", None), (None, (0, 0))]
)
def test_tensorflow_and_jax_tell_what_a_gpu_is(monkeypatch, text, capability):
    known = {} if text is None else {"compute_capability": text}
    gpu = SimpleNamespace(device_kind="NVIDIA H100", **known)
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(devices=lambda: [gpu]))
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert hardware.look_at_gpu() == ("NVIDIA H100", capability or (0, 0))

    details = {"device_name": "NVIDIA H100"}
    details |= {"compute_capability": capability} if text and capability else {}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [gpu])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    assert hardware.look_at_gpu() == ("NVIDIA H100", capability or (0, 0))


@pytest.mark.parametrize(
    ("backend", "gpus", "printed", "shared"),
    [
        ("tensorflow", [], "GPU: none found, the processor does the work.", None),
        ("jax", [], "GPU: none found, the processor does the work.", None),
        ("torch", [], "GPU: none found, the processor does the work.", None),
        ("tensorflow", ["gpu:0"], "GPU: NVIDIA H100; Keras runs on tensorflow.", None),
        ("jax", ["gpu:0"], "GPU: NVIDIA H100; Keras runs on jax.", None),
        ("torch", ["cuda:0"], "GPU: NVIDIA H100; Keras runs on torch.", None),
        ("tensorflow", ["gpu:0", "gpu:1"], "2 GPUs share every batch.", "MirroredStrategy"),
        ("jax", ["gpu:0", "gpu:1"], "2 GPUs share every batch.", None),  # from step 24 on
        ("torch", ["cuda:0", "cuda:1"], "One of 2 GPUs is used: to share", None),
    ],
)
def test_several_gpus_share_the_work(monkeypatch, capsys, backend, gpus, printed, shared):
    chosen = []
    monkeypatch.setattr(hardware, "find_gpus", lambda: gpus)
    monkeypatch.setattr(hardware, "look_at_gpu", lambda: ("NVIDIA H100", (9, 0)))
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda gpus: ("MirroredStrategy", gpus))
    monkeypatch.setattr(tf.distribute, "experimental_set_strategy", chosen.append)
    monkeypatch.setattr(keras.distribution, "set_distribution", chosen.append)
    hardware.use_all_gpus()
    assert capsys.readouterr().out.startswith(printed)
    assert chosen == ([(shared, gpus)] if shared else [])


def test_a_network_built_without_a_scope_lies_on_both_devices():
    """Run in a process of its own, since one processor must pass for two devices."""
    done = run(
        "import tensorflow as tf\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "two = [tf.config.LogicalDeviceConfiguration()] * 2\n"
        "tf.config.set_logical_device_configuration(cpu, two)\n"
        "import hardware, keras\n"
        "hardware.use_all_gpus(['cpu:0', 'cpu:1'])\n"
        "dense = keras.layers.Dense(2)\n"
        "model = keras.Sequential([keras.Input((6,)), dense])\n"
        "print(type(dense.kernel.value).__name__, len(dense.kernel.value.values))\n",
        TF_NUM_INTEROP_THREADS="8",  # two devices on one processor wait for each other
    )
    assert done.stdout.splitlines() == ["2 GPUs share every batch.", "MirroredVariable 2"], (
        done.stderr
    )


@pytest.mark.parametrize(
    ("wish", "speed", "chosen", "reason"),
    [
        ("auto", 1.2, "float32", "bfloat16 has 1.2 times the speed of float32 here"),
        ("auto", 1.4, "mixed_bfloat16", "bfloat16 has 1.4 times the speed of float32 here"),
        ("auto", 0.02, "float32", "bfloat16 has 0.0 times the speed of float32 here"),
        ("mixed_float16", None, "mixed_float16", "as asked for"),
    ],
)
def test_a_processor_is_timed(monkeypatch, capsys, wish, speed, chosen, reason):
    monkeypatch.setattr(hardware, "find_gpus", list)
    monkeypatch.setattr(hardware, "speed_of_bfloat16", lambda: speed)
    assert hardware.choose_precision(wish) == chosen
    assert capsys.readouterr().out == f"Precision: {chosen} ({reason})\n"


@pytest.mark.parametrize(
    ("capability", "chosen"),
    [
        ((9, 0), "mixed_bfloat16"),
        ((8, 0), "mixed_bfloat16"),
        ((7, 5), "mixed_float16"),
        ((6, 1), "float32"),
        ((0, 0), "float32"),
    ],
)
def test_a_gpu_is_judged_by_what_it_is(monkeypatch, capsys, capability, chosen):
    monkeypatch.setattr(hardware, "find_gpus", lambda: ["gpu:0"])
    monkeypatch.setattr(hardware, "look_at_gpu", lambda: ("some GPU", capability))
    monkeypatch.setattr(hardware, "speed_of_bfloat16", None)
    assert hardware.choose_precision() == chosen
    reason = "compute capability {}.{}".format(*capability)
    assert capsys.readouterr().out == f"Precision: {chosen} ({reason})\n"


@pytest.mark.parametrize("wish", ["float16", "", "AUTO"])
def test_a_precision_that_is_none_is_said(wish):
    with pytest.raises(ValueError) as raised:
        hardware.choose_precision(wish)
    assert str(raised.value) == (
        f"PRECISION is {wish!r}; choose auto, float32, mixed_bfloat16, mixed_float16."
    )


@pytest.mark.parametrize(
    ("times", "ratio", "rounds"),
    [
        ({"float32": [9, 2, 2.2], "bfloat16": [8, 1, 1.5]}, 2, 10),
        ({"float32": [9, 2], "bfloat16": [80, 20]}, 0.1, 2),
    ],
)
def test_the_best_times_are_compared(monkeypatch, times, ratio, rounds):
    calls = []

    def time_convolution(dtype):
        calls.append(dtype)
        past = calls.count(dtype) - 1
        return times[dtype][min(past, len(times[dtype]) - 1)]

    monkeypatch.setattr(hardware, "time_convolution", time_convolution)
    assert hardware.speed_of_bfloat16() == pytest.approx(ratio)
    assert calls == ["float32", "bfloat16"] * rounds


def test_jax_finds_its_gpus_before_tensorflow_is_there():
    done = run(
        "import sys, hardware\n"
        "find = hardware.find_gpus\n"
        "hardware.find_gpus = lambda: print('tensorflow' in sys.modules) or find()\n"
        "hardware.start_keras_quietly()\n"
        "print('tensorflow' in sys.modules)\n",
        KERAS_BACKEND="jax",
    )
    assert done.stdout.split() == ["False", "True"], done.stderr
