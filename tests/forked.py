"""Run a script in a process of its own that has Keras loaded already, in half the time."""

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from unittest import mock


def run(script, *arguments, timeout=180):
    """Run a Python script as `python -c` would; return a `subprocess.CompletedProcess`.

    Its process is a copy of one that has loaded Keras and done nothing else; on Windows, which has
    no such copies, it is a fresh one. Modules are found where this process finds them.

    Args:
        script: the source.
        arguments: strings, `sys.argv[1:]` of the script.
        timeout: seconds it may take.

    Raises:
        subprocess.TimeoutExpired: when it takes longer; it is killed.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", script, *arguments]
        options = {"capture_output": True, "text": True, "timeout": timeout}
        return subprocess.run(command, env=environment, **options)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keras", "pandas"])
    readers, writers = zip(*[context.Pipe(duplex=False) for _ in range(2)], strict=True)
    process = context.Process(target=_child, args=(script, arguments, writers))
    with mock.patch.dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3"):
        process.start()
    for writer in writers:
        writer.close()
    with ThreadPoolExecutor() as pool:
        printed = pool.map(_read, readers)
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired("the script", timeout)
        return subprocess.CompletedProcess(script, process.exitcode, *printed)


def _read(pipe):
    """Return all that is written into a pipe, as text."""
    with open(pipe.fileno(), encoding="utf-8", closefd=False) as file:
        return file.read()


def _child(script, arguments, pipes):
    """Run the script, with what it prints going into two pipes."""
    for number, pipe in enumerate(pipes, start=1):
        os.dup2(pipe.fileno(), number)
    sys.argv = ["-c", *arguments]
    exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
