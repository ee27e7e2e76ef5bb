"""Steps 3, 24 and 41: one training shared by several GPUs, or by processes on several machines.

Keras does it on JAX: `keras.distribution.DataParallel` gives every device the same weights and a
share of each batch, and adds up what they learn from it. Only the training is shared. Before and
after it every process works for itself, with one device, so the other steps need not know of it.
"""

import hashlib
import json
import os
import socket
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import keras
import numpy as np

ADDRESSES, NUMBER, ID = (
    f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
)


def are_asked_for():
    """Return whether Keras's own environment variables say that several processes train."""
    return any(name in os.environ for name in (ADDRESSES, NUMBER, ID))


def process():
    """Return the number of this process, from 0 on, and how many train together."""
    if keras.backend.backend() != "jax":
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def join_processes(patience=300):
    """Join the processes that Keras's environment variables tell of, and print which one this is.

    It must come before the first computation. A second call changes nothing.

    Args:
        patience: seconds to wait for the others.

    Raises:
        ValueError: when a variable is missing or wrong, Keras does not run on JAX, or the
            processes have different numbers of devices.
        ConnectionError: when the others do not come, or two have the same number.
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"{ADDRESSES}, {NUMBER} or {ID} is set, but Keras runs on {keras.backend.backend()}. "
            "Several processes train together on JAX only: set KERAS_BACKEND=jax, or unset these."
        )
    import jax

    address, number, count = read_variables()
    if not jax.distributed.is_initialized():
        meet(address, number, count, patience)
        keras.distribution.initialize()
    owners = [device.process_index for device in jax.devices()]
    each = [owners.count(owner) for owner in range(count)]
    if len(set(each)) > 1:
        raise ValueError(
            f"The processes have {', '.join(map(str, each))} devices; it must be the same number "
            "for all: hide the surplus ones, such as with CUDA_VISIBLE_DEVICES=0."
        )
    print(
        f"This is process {number} of {count}, counted from 0. "
        f"Together they have {len(owners)} devices ({jax.devices()[0].platform})."
    )


def read_variables():
    """Return the address of process 0, this process's number, and how many there are."""
    for name in (ADDRESSES, NUMBER, ID):
        if not os.environ.get(name):
            raise ValueError(f"{name} is not set; step 41 says what belongs into it.")
    for name, lowest in [(NUMBER, 1), (ID, 0)]:
        text = os.environ[name]
        if not text.isdecimal() or int(text) < lowest:
            raise ValueError(f"{name} is {text!r}; it takes a whole number from {lowest} on.")
    number, count = int(os.environ[ID]), int(os.environ[NUMBER])
    if number >= count:
        raise ValueError(f"{ID} is {number}; with {NUMBER}={count} it is 0 to {count - 1}.")
    addresses = os.environ[ADDRESSES].split(",")
    port = addresses[0].rpartition(":")[2]
    if ":" not in addresses[0] or not port.isdecimal() or int(port) > 65535:
        raise ValueError(
            f"{ADDRESSES} is {os.environ[ADDRESSES]!r}; it takes the address of process 0 with a "
            "free port, such as 192.168.0.10:7100."
        )
    if len(addresses) not in (1, count):
        raise ValueError(f"{ADDRESSES} holds {len(addresses)} addresses, {NUMBER} is {count}.")
    return addresses[0], number, count


def meet(address, number, count, patience):
    """Wait until all processes are there; else raise ConnectionError.

    JAX's own waiting ends the kernel without a word. Process 0 listens at its address, each other
    one tells its number there, and when all have, process 0 answers.
    """
    host, _, port = address.rpartition(":")
    end = time.monotonic() + patience
    if number:
        return meet_first(host, int(port), number, end, patience)
    with ExitStack() as stack:
        try:
            door = stack.enter_context(socket.create_server(("", int(port))))
        except OSError as problem:
            raise ConnectionError(
                f"Process 0 cannot listen at port {port} ({problem.strerror}): name a free one in "
                f"{ADDRESSES}, for all processes."
            ) from None
        lines = {}
        while len(lines) < count - 1:
            door.settimeout(max(end - time.monotonic(), 0.01))
            try:
                line = stack.enter_context(door.accept()[0])
                line.settimeout(5)
                other = int(line.recv(9))
            except ValueError:  # a stranger
                continue
            except OSError:
                if time.monotonic() < end:
                    continue
                missing = [str(other) for other in range(1, count) if other not in lines]
                raise ConnectionError(
                    f"Process {', '.join(missing)} did not come to {address} within {patience} "
                    "seconds. Start all processes within that time, and let no firewall be "
                    "between them."
                ) from None
            if other in lines:
                with suppress(OSError):  # one that has tried again
                    lines.pop(other).close()
            lines[other] = line
        for line in lines.values():
            line.sendall(b"all here")


def meet_first(host, port, number, end, patience):
    """Tell process 0 that process `number` is there, and wait for its answer."""
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection((host, port), timeout=5) as line:
            line.sendall(str(number).encode())
            line.settimeout(max(end - time.monotonic(), 0.01))
            if line.recv(8):
                return
        time.sleep(0.2)
    raise ConnectionError(
        f"Process 0 did not answer at {host}:{port} within {patience} seconds. Is it running, is "
        f"that its address ({ADDRESSES}), and is no firewall between?"
    )


def tell_all(value):
    """Return in every process what process 0 passes, anything that JSON can write."""
    if process()[1] == 1:
        return value
    text = json.dumps(value).encode()
    size = int(from_first([np.int32(len(text))])[0])
    content = np.zeros(size, "uint8")
    if process()[0] == 0:
        content[:] = np.frombuffer(text, "uint8")
    return json.loads(from_first([content])[0].tobytes())


def from_first(arrays):
    """Return process 0's NumPy arrays in every process; all pass arrays of the same shapes."""
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(arrays)


def own_folder(folder):
    """Return where this process writes: process 0 into `folder`, the others below it."""
    number, _ = process()
    return Path(folder, f"process-{number}") if number else Path(folder)


def share_training(model, generators, agreed, state):
    """Let all devices share the training of a network, from the state that process 0 is in.

    Nothing happens where there is one device, or where Keras does not run on JAX.

    Args:
        model: a compiled `keras.Model` whose optimizer is built.
        generators: the `PhotoGenerator`s of the training; they hand out shares from now on.
        agreed: a text that must be the same in all processes.
        state: what else the training starts from: something that JSON can write, and a list of
            arrays of the shapes of `model.get_weights()`, or None.

    Returns:
        The `state` of process 0.

    Raises:
        ValueError: when processes differ in `agreed`, or photos cannot be shared evenly.
    """
    if keras.backend.backend() != "jax" or len(keras.distribution.list_devices()) == 1:
        return state
    from jax.experimental import multihost_utils

    devices = keras.distribution.list_devices()
    number, count = process()
    hashed = np.frombuffer(hashlib.sha256(agreed.encode()).digest(), "uint8")
    if count > 1 and (multihost_utils.process_allgather(hashed) != hashed).any():
        raise ValueError(
            "The processes differ in their photos, settings or code: give all of them the same, "
            "and the same environment variables."
        )
    for generator in generators:
        if generator.batch_size % len(devices):
            raise ValueError(
                f"{len(devices)} devices cannot share batches of {generator.batch_size} photos "
                f"evenly: set BATCH_SIZE (step 4) to a multiple of {len(devices)}."
            )
        if generator.n < len(devices):
            raise ValueError(f"{len(devices)} devices cannot share {generator.n} photos.")
        generator.share = (number, count, len(devices))

    plain, weights = state
    plain, has_weights = tell_all([plain, weights is not None])
    if has_weights:
        weights = from_first(model.get_weights() if weights is None else weights)
    parallel = keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)
    place(model, from_first(values(model)), parallel)
    return plain, weights


def end_sharing(model, generators):
    """Give the trained network back to each process alone, with one device."""
    if keras.distribution.distribution() is not None:
        for generator in generators:
            generator.share = None
        place(model, values(model), None)


@contextmanager
def alone():
    """Let Keras make new variables in this process only, such as those that it saves models by."""
    shared = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(shared)


def variables(model):
    """Return all variables of a compiled network, each once."""
    found = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return list({id(variable): variable for variable in found}.values())


def values(model):
    """Return copies of the values of all variables of a compiled network, as NumPy arrays."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables(model)]


def place(model, values, distribution):
    """Put values into a network's variables, on all devices of a distribution or, if None, on one.

    Keras fixes a variable's place when it is made; so this reaches into it.
    """
    keras.distribution.set_distribution(distribution)
    for variable, value in zip(variables(model), values, strict=True):
        variable._layout = None
        if distribution is not None:
            variable._layout = distribution.get_variable_layout(variable)
        variable.assign(value)
    model.train_function = model.test_function = model.predict_function = None


def say_who_trained():
    """Print how many processes and devices shared the training."""
    number, count = process()
    devices = len(keras.distribution.list_devices())
    processes = "1 process" if count == 1 else f"{count} processes (this is number {number})"
    print(f"This run had {processes} and {devices} device{'s' * (devices > 1)} to train on.")


def part():
    """Wait for the other processes, then leave them: from now on, none needs another."""
    if process()[1] == 1:
        return
    import jax
    from jax.experimental import multihost_utils

    if jax.distributed.is_initialized():
        multihost_utils.sync_global_devices("part")
        jax.distributed.shutdown()
