"""One contender of a comparison, in a process of its own: `python -m dslc.api.contender FOLDER KIND`.

It prepares its network from the folder that `contest.py` wrote, makes one call whose results it leaves there, prints `ready`, and
answers each line that it then reads with the median milliseconds of the calls of a third of a second. What it cannot translate it
leaves in the folder as a diagnostic. KIND `limits` answers with the limits of the machine as JSON.
"""

from __future__ import annotations

import json
import pickle
import statistics
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dslc.api.contest import SHOWN, Task
from dslc.api.measure import timed_block
from dslc.diagnostics import DiagnosticError
from dslc.runtime.serve import serve

BLOCK_S = 0.35
Array = np.ndarray[Any, Any]


def main(folder: Path, kind: str) -> None:
    """Serve until standard input ends."""
    task = Task.read(folder)
    if kind == "limits":
        answer = _limits(task)
    else:
        try:
            call = {"dslc": _dslc, "onnxruntime": _onnxruntime}.get(kind, _torch)(task, folder, kind)
        except DiagnosticError as error:
            (folder / f"{kind}.refused").write_bytes(pickle.dumps((error.diagnostics, error.sources)))
            raise SystemExit(1) from None
        answer = _timed(call)
    serve(lambda _: answer(), sys.stdout, "ready")


def _timed(call: Callable[[], object]) -> Callable[[], str]:
    for _ in range(3):
        call()
    return lambda: str(statistics.median(timed_block(call, BLOCK_S)) * 1e3)


def _limits(task: Task) -> Callable[[], str]:
    from dslc.api.compilation import cache_of
    from dslc.api.measure import Machine

    machine = Machine(task.options(), cache_of(task.options()))
    return lambda: json.dumps(asdict(machine.measure(BLOCK_S)))


def _keep(folder: Path, kind: str, results: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """Results as they are, and the first elements of every parameter."""
    arrays: dict[str, Any] = {f"result {name}": np.asarray(a) for name, a in results.items()}
    arrays |= {f"weight {name}": np.asarray(a).reshape(-1)[:SHOWN] for name, a in weights.items()}
    np.savez(folder / f"{kind}.npz", **arrays)


def _dslc(task: Task, folder: Path, kind: str) -> Callable[[], object]:
    from dslc.api.compilation import compile as compile_source
    from dslc.api.compilation import load
    from dslc.api.trainer import Trainer

    inputs = dict(np.load(folder / "inputs.npz"))
    if not task.training:
        program = (
            load(task.artifact, threads=task.threads)
            if task.artifact
            else compile_source(task.source(), task.name, dims=task.dims, precision=task.precision, threads=task.threads, width=task.width)
        )
        program.load_weights(dict(np.load(folder / "weights.npz")))
        made = program(**inputs)
        _keep(folder, kind, made if isinstance(made, dict) else {next(iter(program.outputs)): made}, {})
        return lambda: program(**inputs)
    trainer = Trainer(
        task.source(), task.name, {"train": inputs}, batch=task.batch, save=False, dims=task.dims, precision=task.precision,
        threads=task.threads, width=task.width,
    )  # fmt: skip
    program_of_steps, settings = trainer.program, task.settings
    made = program_of_steps.step(inputs, settings)
    _keep(folder, kind, {name: np.asarray(value) for name, value in made.items()}, trainer.weights)
    return lambda: program_of_steps.step(inputs, settings)


def _torch(task: Task, folder: Path, kind: str) -> Callable[[], object]:
    import torch

    from dslc.interchange.torch_network import inference
    from dslc.interchange.torch_training import training

    warnings.filterwarnings("ignore")
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    inputs, arrays = dict(np.load(folder / "inputs.npz")), dict(np.load(folder / "weights.npz"))
    last = kind == "torch channels-last"
    program = task.program(folder)
    if not task.training:
        call = inference(torch, program, arrays, inputs, last, kind == "torch compile")
        _keep(folder, kind, {name: value.numpy() for name, value in call().items()}, {})
        return call
    step, weights = training(torch, program, arrays, inputs, task.settings, last)
    made = step()
    _keep(folder, kind, {name: value.detach().numpy() for name, value in made.items()}, {n: weights.array(n) for n in weights.leaves})
    return step


def _onnxruntime(task: Task, folder: Path, kind: str) -> Callable[[], object]:
    import onnxruntime

    from dslc.interchange.onnx_export import export

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    model = export(task.program(folder), dict(np.load(folder / "weights.npz")))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = dict(np.load(folder / "inputs.npz"))
    made = session.run(None, inputs)
    names = [output.name.removesuffix("_") for output in session.get_outputs()]
    _keep(folder, kind, dict(zip(names, made, strict=True)), {})
    return lambda: session.run(None, inputs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
