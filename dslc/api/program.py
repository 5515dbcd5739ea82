"""A compiled model that is called with arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dslc.api import weights as files
from dslc.api.copies import Copies
from dslc.api.signature import Signature
from dslc.ir.plan import MemoryReport, PortPlan
from dslc.runtime import artifact as artifacts
from dslc.runtime.artifact import Artifact
from dslc.runtime.convert import Array, show
from dslc.runtime.executable import Executable
from dslc.runtime.executable import Program as RuntimeProgram
from dslc.runtime.initial import initial_value
from dslc.runtime.profile import StepTime

if TYPE_CHECKING:
    from dslc.api.stages import Stages
    from dslc.compiler import Compiled
    from dslc.data.description import DataDescription
    from dslc.ir.module import Module

SAVED = ("parameter", "state")
"""Roles of the buffers that are a model's weights."""

_HOW_TO_SET = "program.load_weights(program.weights | {path: array}) sets a weight"


class Program:
    """A model, ready to run: `program(image=array)` gives its result, or a dictionary of results where it has several.

    Arrays may be anything that NumPy or DLPack understands; results are fresh. Calls from several threads run one after the other.
    Made by `dslc.compile` and `dslc.load`.
    """

    def __init__(
        self, executable: Executable, signature: Signature, artifact: Artifact, *, seed: int = 0, compiled: Compiled | None = None
    ):
        self._executable = executable
        self._signature = signature
        self._artifact = artifact
        self._compiled = compiled
        (self._plan,) = executable.plan.programs
        self._program = executable.program(self._plan.name)
        self._result = self._plan.outputs[0].name if len(self._plan.outputs) == 1 else None
        self._initial_seed = seed
        self._initialised = False
        self._draws = frozenset(p.name for p in self._plan.settings)
        self._plain = False  # nothing to look after before a call
        self.seed = 0
        """The seed of random operators, where the model has some: the same seed gives the same numbers."""

    # ------------------------------------------------------------------------------------------------------- calls

    def __call__(self, /, *, out: Any = None, **inputs: Any) -> Any:
        """Run the model on arrays by name.

        One result comes back as an array, several as a dictionary. `out` takes the results in place of fresh arrays. A model with random
        operators also takes `seed`. Errors: DL0650 to DL0660 for arrays that do not fit.
        """
        if self._plain and out is None:
            results = self._program(inputs)
            return results[self._result] if self._result is not None else results
        return self._call(inputs, out)

    def _call(self, inputs: dict[str, Any], out: Any) -> Any:
        self._initialise()
        self._plain = not self._draws
        settings = self._settings(inputs.pop("seed", self.seed)) if self._draws else None
        into = {self._result: out} if self._result is not None and out is not None and not isinstance(out, Mapping) else out
        results = self._program(inputs, settings, into)
        return results[self._result] if self._result is not None else results

    def _settings(self, seed: int) -> dict[str, int]:
        return {name: seed if name == "seed" else 0 for name in self._draws}

    def profile(self, **inputs: Any) -> list[StepTime]:
        """One call with a clock around every kernel."""
        self._initialise()
        return self._program.profile(inputs, self._settings(self.seed) if self._draws else None)

    # ------------------------------------------------------------------------------------------------------ weights

    def initialise(self, seed: int = 0) -> None:
        """Give every parameter and state its initial value, drawn from `seed`."""
        initialise(self._executable, seed)
        self._initialised = True

    def _initialise(self) -> None:
        if not self._initialised:
            self.initialise(self._initial_seed)

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Copies of the parameters by path."""
        return self._copies("parameter")

    @property
    def weights(self) -> Mapping[str, Array]:
        """Copies of the parameters and of the states that belong to the model, such as running means. `load_weights` sets them:
        `program.load_weights(program.weights | {path: array})` sets one."""
        return self._copies(*SAVED)

    def _copies(self, *roles: str) -> Mapping[str, Array]:
        self._initialise()
        return Copies({name: self._executable.get(name) for role in roles for name in self._executable.names(role)}, _HOW_TO_SET)

    @property
    def parameter_count(self) -> int:
        """Numbers that are trained."""
        return sum(_count(p.shape) for p in self._executable.plan.persistent if p.role == "parameter")

    def load_weights(
        self,
        source: Path | str | Mapping[str, Any],
        *,
        rename: Sequence[tuple[str, str | None]] = (),
        fresh: Sequence[str] = (),
        layout: str | None = None,
        ema: bool = False,
    ) -> None:
        """Take weights from a file (safetensors, a checkpoint of training, an artifact) or from arrays by path.

        `rename` is a list of pairs: names of the source that fit the pattern take the new name, `None` drops them. `fresh` are patterns of
        weights that keep the values that they have. `layout="torch"` is for a state dict of PyTorch: linear weights are transposed,
        `num_batches_tracked` is dropped, and what `rename` does not name is paired in the order of definition. Names are relative to the
        model. `ema` takes the averaged weights of a checkpoint. Of a file that dslc wrote when it trained several models, those of others are
        passed over. Nothing is loaded in part: DL0804 lists what is missing, left over or of another shape; DL0806 refuses such a `rename`.
        """
        from dslc.data.renaming import linear_weights, match_weights

        if isinstance(source, Mapping):
            found, where = files.from_arrays(source), "the weights"
        else:
            found, where = files.read_weights(source, ema), f"the weights in {source}"
        wanted = {p.name: p.shape for p in self._executable.plan.persistent if p.role in SAVED}
        models = {path.partition(".")[0] for path in wanted}
        tensors = found.tensors if rename else found.of_models(models)
        plan = match_weights(
            wanted,
            {name: tensor.shape for name, tensor in tensors.items()},
            rename,
            fresh,
            layout,
            model=models.pop() if len(models) == 1 else None,
            linear=linear_weights(self.module) if layout is not None else None,
            ordered=found.ordered,
            where=where,
        )
        if plan.fresh:
            self._initialise()
        self._initialised = True
        for name, tensor in plan.assemble(tensors).items():
            self._executable.set(name, tensor)
        if found.data is not None:
            self._set_data(found.data)

    def save_weights(self, path: Path | str) -> None:
        """Write the weights as a safetensors file. DL0803 where that is not possible."""
        files.write_weights(path, self.weights, self._signature.data)

    def save(self, path: Path | str, *, embed: bool = False) -> None:
        """Write an artifact (`.dlc`): the typed graph, the weights and the plan. `embed` puts the machine code in, for readers who
        trust it."""
        objects = None
        if embed:
            objects = {key: bytes(code) for key, code in self._objects().items()}
        artifact = Artifact(
            plan=self._artifact.plan,
            graph=self._artifact.graph,
            source=self._artifact.source,
            versions=self._artifact.versions,
            signature=self._signature.to_json(),
            data=self._signature.data,
            constants=self._artifact.constants,
        )
        artifacts.save(path, artifact, self.weights, objects)

    def _objects(self) -> Mapping[str, bytes]:
        compiled = self.stages.compiled
        return compiled.objects

    def _set_data(self, data: str) -> None:
        from dataclasses import replace

        self._signature = replace(self._signature, data=data)

    # -------------------------------------------------------------------------------------------------- inspection

    @property
    def name(self) -> str:
        """The model's name."""
        return self._signature.name

    @property
    def threads(self) -> int:
        """Into how many shares the work is cut."""
        return self._executable.threads

    @property
    def inputs(self) -> dict[str, str]:
        """Names and types of the inputs: `{"image": "f32[N, 1, 28, 28]"}`."""
        return {p.name: show(p.dtype, p.shape) for p in self._plan.inputs}

    @property
    def outputs(self) -> dict[str, str]:
        """Names and types of the results."""
        return {p.name: show(p.dtype, p.shape) for p in self._plan.outputs}

    @property
    def input_ports(self) -> tuple[PortPlan, ...]:
        """The inputs as the plan describes them."""
        return self._plan.inputs

    @property
    def runtime(self) -> RuntimeProgram:
        """The program as the runtime has it (`dslc.runtime.executable.Program`)."""
        return self._program

    @property
    def batch_bound(self) -> int | None:
        """The largest batch, or None where the sizes are fixed."""
        return self._plan.batch_bound

    @property
    def data(self) -> DataDescription | None:
        """How the data that the weights were trained on is scaled and what its classes are called, if the weights say."""
        if self._signature.data is None:
            return None
        from dslc.data.description import DataDescription

        try:
            return DataDescription.from_json(self._signature.data)
        except ValueError:
            return None

    def memory(self, batch: int = 1) -> MemoryReport:
        """Exact bytes that a call with this batch takes."""
        return self._executable.memory(self._plan.name, batch)

    def flops(self, batch: int = 1) -> int:
        """Floating-point operations of a call; a multiply-add is two."""
        fixed, each = self._signature.flops.get(self._plan.name, (0, 0))
        return fixed + batch * each

    @property
    def kernel_count(self) -> int:
        """Kernels that differ; equal layers share one."""
        return len(self._executable.plan.kernels)

    @property
    def kernel_labels(self) -> dict[str, str]:
        """For the key of every kernel, the operators that it runs and where they stand in the source."""
        found: dict[str, list[str]] = {}
        keys = {k.name: k.key for k in self._executable.plan.kernels}
        for step in self._plan.steps:
            found.setdefault(keys[step.kernel], []).append(f"{step.label} {step.span}".strip())
        return {key: ", ".join(dict.fromkeys(labels)) for key, labels in found.items()}

    @property
    def module(self) -> Module:
        """The typed graph."""
        return self.stages.module

    @property
    def stages(self) -> Stages:
        """Every stage of the compiler for this program."""
        from dslc.api.stages import Stages

        return Stages.of(self._artifact.graph, self._compiled, self._executable.plan)

    def show(self, stage: str = "graph") -> str:
        """A stage as text: graph, clusters, loops, kernels, memory or asm."""
        return self.stages.text(stage)

    def summary(self) -> str:
        """The layers with shapes, parameters, arithmetic and bytes, as a table."""
        from dslc.api.layers import layers, table

        return table(layers(self.module))

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name}: {type_}" for name, type_ in self.inputs.items())
        outputs = ", ".join(self.outputs.values())
        batch = f", N <= {self.batch_bound}" if self.batch_bound else ""
        return f"<dslc.Program {self.name}({inputs}) -> {outputs}; {self.parameter_count:,} parameters{batch}>"

    def _repr_svg_(self) -> str:
        from dslc.api.picture import graph_svg

        return graph_svg(self.module)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<div><code>{escape(repr(self))}</code><br>{self._repr_svg_()}</div>"


def initialise(executable: Executable, seed: int) -> None:
    """Fill every persistent buffer of an executable with its initial value."""
    for p in executable.plan.persistent:
        if p.role != "packed":
            executable.view(p.name)[...] = initial_value(p.initial, p.dtype, p.shape, seed)
    executable.touch()


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for extent in shape:
        total *= extent
    return total
