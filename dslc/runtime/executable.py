"""Programs that can be called: buffers in memory, object code linked, step tables built once and patched a call.

    executable = Executable(plan, objects, constants)
    executable.set("LeNet.head.w", array)
    results = executable.program("forward")({"image": batch})          # {"logits": fresh array}

All programs of one executable share its persistent buffers and its arena: calls from several threads run one after the other.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dslc.ir.plan import ExecutablePlan, MemoryReport, PortPlan, ProgramPlan, concrete, memory_report, scales
from dslc.runtime import loader
from dslc.runtime.arena import Arena
from dslc.runtime.buffers import aligned_zeros, constant_buffer, persistent_buffer
from dslc.runtime.cache import Cache
from dslc.runtime.convert import DTYPES, Array, Scalar, address_of, check_shape, convert, did_you_mean, refuse, show_array
from dslc.runtime.job import EXAMPLES_APART, THREADS_WORD, Choice, Job
from dslc.runtime.linking import linked
from dslc.runtime.pool import Pool, shared_pool, thread_count
from dslc.runtime.pool_code import PROFILE_WORDS
from dslc.runtime.profile import StepTime, step_times

Inputs = Mapping[str, Any]
_Array = tuple[str, np.dtype[Any], tuple[int, ...], list[tuple[Any, int, int]]]  # name, type, shape, (words, which, offset)
DENSE = 0x101  # NumPy's flags of an array that is C-contiguous and aligned


class Executable:
    """The programs of a plan with their memory. `threads`: into how many shares steps are cut (one a processor if None)."""

    def __init__(
        self,
        plan: ExecutablePlan,
        objects: Mapping[str, bytes],
        constants: Mapping[str, Array] | None = None,
        threads: int | None = None,
        cache: Cache | None = None,
        guarded: bool = False,
        pool: Pool | None = None,
    ):
        loader.check_features(plan.features)
        self.plan = plan
        self.pool = pool or shared_pool(thread_count(threads), cache)
        self.threads = self.pool.threads
        self.arena = Arena(guarded)
        self.lock = threading.RLock()
        self.version = 1  # rises with every change of a persistent buffer that a prologue may have read
        self._libraries, self._kernels = linked(plan, objects)
        self._roles = {p.name: p.role for p in plan.persistent}
        self._shapes = {p.name: p for p in plan.persistent}
        self._buffers = {p.name: persistent_buffer(p) for p in plan.persistent}
        self._constants = {c.name: constant_buffer(c, (constants or {}).get(c.name)) for c in plan.constants}
        self._derived_from = frozenset(
            p.buffers[at].name
            for p in plan.programs
            for step in p.prologue
            for at, _ in step.args
            if at >= 0 and p.buffers[at].region == "persistent"
        )
        self._programs = {p.name: Program(self, p) for p in plan.programs}
        _alive.add(self)

    def program(self, name: str) -> Program:
        """The program of that name; DL0657 where there is none."""
        try:
            return self._programs[name]
        except KeyError:
            raise refuse("DL0657", f"there is no program `{name}` here", did_you_mean(name, self._programs)) from None

    def call(
        self, program: str, inputs: Inputs, settings: Inputs | None = None, out: Mapping[str, Array] | None = None, batch: int = 0
    ) -> dict[str, Array]:
        """Run a program once; see `Program.__call__`."""
        return self.program(program)(inputs, settings, out, batch)

    def memory(self, program: str, batch: int = 1) -> MemoryReport:
        """Exact bytes that a call of this batch needs."""
        return memory_report(self.plan, program, batch)

    # ------------------------------------------------------------------------------------------- persistent buffers

    def names(self, role: str | None = None) -> tuple[str, ...]:
        """Persistent buffers of a role, or all but the packed ones."""
        return tuple(n for n, r in self._roles.items() if r == role or (role is None and r != "packed"))

    def get(self, name: str) -> Array:
        """A copy of a persistent buffer."""
        with self.lock:
            return self._buffer(name).copy()

    def set(self, name: str, value: Any) -> None:
        """Fill a persistent buffer; DL0659 for an unknown name or a wrong shape."""
        buffer = self._buffer(name)
        plan = self._shapes[name]
        array = convert(name, plan.dtype, value)
        if array.shape != plan.shape:
            raise refuse("DL0659", f"`{name}` is {show_array(array)}, it must have the shape {list(plan.shape)}")
        with self.lock:
            buffer[...] = array
            self.version += 1

    def view(self, name: str) -> Array:
        """The buffer itself, whose rows may be padded; call `touch` after writing to it, and hold `lock` where other threads run programs."""
        return self._buffer(name)

    def touch(self) -> None:
        """Say that persistent buffers were changed through `view`: prologues run again."""
        with self.lock:
            self.version += 1

    def _buffer(self, name: str) -> Array:
        try:
            return self._buffers[name]
        except KeyError:
            raise refuse("DL0659", f"there is no persistent buffer `{name}`", did_you_mean(name, self.names())) from None


class _InputPort:
    """What the hot path checks of an input."""

    __slots__ = ("dtype", "factor", "name", "port", "shape", "tail", "words")

    words: list[tuple[Any, int, int]]  # where the job has its address

    def __init__(self, port: PortPlan):
        self.name, self.dtype, self.port = port.name, DTYPES[port.dtype], port
        first = port.shape[0] if port.shape else 0
        self.factor = 0 if isinstance(first, int) else first[1]
        self.shape = concrete(port.shape, 1)
        self.tail = self.shape[1:]


@dataclass(frozen=True, slots=True)
class _Known:
    """What a call found out for the next one: names, types and shapes of the arrays with the words that hold their addresses."""

    generation: int
    inputs: list[_Array]
    results: list[_Array]


class Program:
    """One program of an executable. Call it with its inputs; results are fresh arrays by name."""

    def __init__(self, executable: Executable, plan: ProgramPlan):
        self.executable = executable
        self.plan = plan
        kernels, threads = executable._kernels, executable.threads
        self._job = self._usual = Job(plan.steps, kernels, threads, plan.loops)
        self._apart = Job(plan.steps, kernels, threads, plan.loops, True) if threads > 1 and any(n.apart for n in plan.loops) else None
        self._prologue = Job(plan.prologue, kernels, threads)
        self._jobs = [job for job in (self._usual, self._apart, self._prologue) if job is not None]
        self._prologue_version = 0
        self._ages = not executable._derived_from.isdisjoint(plan.writes)  # what a prologue made is out of date after a call
        self._block = aligned_zeros("i64", (max(1, len(plan.settings)),))
        self._scalars = {p.name: Scalar(p, plan.buffers[p.buffer].offset) for p in plan.settings}
        self._defaults = {p.name: p.default for p in plan.settings if p.default is not None}
        self._needed = frozenset(self._scalars) - frozenset(self._defaults)
        self._block_is_default = False
        self._inputs = [_InputPort(p) for p in plan.inputs]
        self._input_names = frozenset(p.name for p in plan.inputs)
        self._direct: list[tuple[PortPlan, Any, list[tuple[Any, int, int]]]] = []
        self._fixed_outputs: list[tuple[str, tuple[int, ...], Any, list[tuple[Any, int, int]], bool]] = []
        self._copied = [p for p in plan.outputs if plan.buffers[p.buffer].region != "output"]
        self._batched = plan.batch_bound is not None
        self._input_index = {p.buffer: number for number, p in enumerate(plan.inputs)}
        self._batch = self._capacity = 0  # what the tables were written for
        self._generation = -1
        self._addresses: dict[int, int] = {}
        self._choices: dict[int, Choice] = {}
        self._choice = Choice()
        self._alone = self._profiling = False
        self._known: _Known | None = None
        self._find_words()

    def __call__(
        self, inputs: Inputs, settings: Inputs | None = None, out: Mapping[str, Array] | None = None, batch: int = 0
    ) -> dict[str, Array]:
        """Run it. `settings` are scalars; what is left out has its default. `out` takes results instead of fresh arrays.

        The batch is the inputs' leading extent; `batch` says it where no input has one. Diagnostics: DL0650 to DL0660.
        """
        if settings is None and out is None and not batch and (again := self._again(inputs)) is not None:
            return again
        arrays, batch = self._check_inputs(inputs, batch)
        direct = self._fresh(batch)
        results: dict[str, Array] = direct
        if out is not None:
            results = self._check_out(out, batch, arrays)
            for name, array in results.items():
                if name in direct and not any(np.may_share_memory(array, a) for a in arrays):
                    direct[name] = array
        executable = self.executable
        with executable.lock:
            self._known = None  # until this call has succeeded
            if settings or not self._block_is_default:
                self._write_settings(settings or {})
            if batch != self._batch or self._generation != executable.arena.generation:
                self._place(batch)
            for port, array in zip(self._inputs, arrays, strict=True):
                address = address_of(array)
                for words, at, offset in port.words:
                    words[at] = address + offset
            for name, _, _, places, _ in self._fixed_outputs:
                address = address_of(direct[name])
                for words, at, offset in places:
                    words[at] = address + offset
            self._run()
            for output in self._copied:
                direct[output.name] = self._read(output, batch, arrays)
            self._known = self._know(arrays, batch)
        if out is None:
            return direct
        for name, array in results.items():
            if array is not direct[name]:
                array[...] = direct[name]
        return results

    def _know(self, arrays: list[Array], batch: int) -> _Known | None:
        """What `_again` compares the next call with; None where there is more to a call."""
        if self._copied or not self._block_is_default:
            return None
        inputs = [(port.name, port.dtype, array.shape, port.words) for port, array in zip(self._inputs, arrays, strict=True)]
        results = [(port.name, dtype, concrete(port.shape, batch), words) for port, dtype, words in self._direct]
        return _Known(self._generation, inputs, results)

    def _again(self, inputs: Inputs) -> dict[str, Array] | None:
        """The call with arrays of the last one's types and shapes, for which nothing is left to find out; None where anything differs.

        Small networks take microseconds, so that a look at what is known already would be a good part of a call.
        """
        executable = self.executable
        with executable.lock:
            known = self._known
            if known is None or known.generation != executable.arena.generation or len(inputs) != len(known.inputs):
                return None
            for name, dtype, shape, places in known.inputs:
                array = inputs.get(name)
                if type(array) is not np.ndarray or array.dtype is not dtype or array.shape != shape or array.flags.num & DENSE != DENSE:
                    return None
                address = address_of(array)
                for words, at, offset in places:
                    words[at] = address + offset
            results = {}
            for name, dtype, shape, places in known.results:
                results[name] = array = np.empty(shape, dtype)
                address = address_of(array)
                for words, at, offset in places:
                    words[at] = address + offset
            self._run()
        return results

    def profile(self, inputs: Inputs, settings: Inputs | None = None, batch: int = 0) -> list[StepTime]:
        """Run it once with a clock around every kernel call."""
        threads = self.executable.threads
        times = np.zeros((len(self.plan.steps), threads, PROFILE_WORDS), np.int64)
        with self.executable.lock:
            for job in self._jobs[:-1]:
                job.set_profile(address_of(times))
            self._profiling = True
            self._set_alone(False)
            try:
                self(inputs, settings, None, batch)
            finally:
                for job in self._jobs[:-1]:
                    job.set_profile(0)
                self._profiling = False
        return step_times(self.plan, times)

    # ------------------------------------------------------------------------------------------------------- inputs

    def _check_inputs(self, inputs: Inputs, batch: int) -> tuple[list[Array], int]:
        if len(inputs) != len(self._inputs):
            self._refuse_names(inputs)
        arrays = []
        known = batch
        for port in self._inputs:
            try:
                array = inputs[port.name]
            except KeyError:
                raise self._refuse_names(inputs) from None
            if (
                type(array) is not np.ndarray
                or array.dtype is not port.dtype
                or not ((flags := array.flags).c_contiguous and flags.aligned)
            ):
                array = convert(port.name, port.port.dtype, array)
            shape = array.shape
            if port.factor == 0:
                if shape != port.shape:
                    check_shape(port.port, array)
            else:
                count = shape[0] if port.factor == 1 and shape and shape[1:] == port.tail else check_shape(port.port, array)
                if count != known:
                    if known:
                        raise refuse("DL0653", f"input `{port.name}` has a batch of {count}, the others {known}")
                    known = count
                    if not 0 < count <= (self.plan.batch_bound or 0):
                        self._refuse_batch(count)
            arrays.append(array)
        if batch or (self._batched and not known):
            self._refuse_batch(known)
        return arrays, known or 1

    def _refuse_batch(self, batch: int) -> None:
        bound = self.plan.batch_bound
        if bound is None:
            if batch not in (0, 1):
                raise refuse("DL0653", f"program `{self.plan.name}` has no batch, {batch} was asked for")
        elif not 0 < batch <= bound:
            several = "compile it with a larger bound, as in `dim N <= 1024`, or split the batch"
            hint = several if batch else "hand in at least one example" if self._inputs else "say how many: `batch = 4`"
            raise refuse("DL0653", f"a batch of {batch}, program `{self.plan.name}` takes 1 to {bound}", hint)

    def _refuse_names(self, inputs: Inputs) -> Exception:
        for name in inputs:
            if name not in self._input_names:
                raise refuse("DL0650", f"program `{self.plan.name}` has no input `{name}`", did_you_mean(name, self._input_names))
        missing = sorted(self._input_names - set(inputs))
        raise refuse("DL0650", f"program `{self.plan.name}` needs {', '.join(f'`{n}`' for n in missing)}")

    def _write_settings(self, settings: Inputs) -> None:
        self._block_is_default = False
        for name in settings:
            if name not in self._scalars:
                raise refuse("DL0654", f"program `{self.plan.name}` has no setting `{name}`", did_you_mean(name, self._scalars))
        missing = self._needed - set(settings)
        if missing:
            raise refuse("DL0654", f"program `{self.plan.name}` needs the setting `{min(missing)}`")
        for name, scalar in self._scalars.items():
            scalar.write(self._block.data.cast("B"), settings.get(name, self._defaults.get(name)))
        self._block_is_default = not settings

    # ------------------------------------------------------------------------------------------------------ results

    def _fresh(self, batch: int) -> dict[str, Array]:
        results = {}
        for name, shape, dtype, _, grows in self._fixed_outputs:
            results[name] = np.empty((shape[0] * batch, *shape[1:]) if grows else shape, dtype)
        return results

    def _read(self, port: PortPlan, batch: int, arrays: list[Array]) -> Array:
        """A copy of a result that lies in the arena, a persistent buffer, a constant or an input."""
        result = np.empty(concrete(port.shape, batch), DTYPES[port.dtype])
        if port.buffer in self._input_index:
            address = address_of(arrays[self._input_index[port.buffer]]) + self.plan.buffers[port.buffer].offset
        else:
            address = self._addresses[port.buffer]
        ctypes.memmove(address_of(result), address, result.nbytes)
        return result

    def _check_out(self, out: Mapping[str, Array], batch: int, arrays: list[Array]) -> dict[str, Array]:
        ports = {p.name: p for p in self.plan.outputs}
        for name in (*out, *ports):
            if name not in ports:
                raise refuse("DL0655", f"program `{self.plan.name}` has no output `{name}`", did_you_mean(name, ports))
            if name not in out:
                raise refuse("DL0655", f"`out` lacks `{name}`", "give an array for every output")
        taken: list[Array] = []
        for name, port in ports.items():
            array = out[name]
            shape, dtype = concrete(port.shape, batch), DTYPES[port.dtype]
            if type(array) is not np.ndarray or array.dtype != dtype or array.shape != shape or not array.flags.carray:
                seen = show_array(array) if isinstance(array, np.ndarray) else type(array).__name__
                raise refuse("DL0655", f"`out` for `{name}` must be a writeable C-contiguous {port.dtype}{list(shape)}, not {seen}")
            if any(np.may_share_memory(array, other) for other in taken):
                raise refuse("DL0655", f"`out` for `{name}` overlaps another result")
            taken.append(array)
        return {name: out[name] for name in ports}

    # ---------------------------------------------------------------------------------------------------------- run

    def _run(self) -> None:
        executable, choice = self.executable, self._choice
        if self._prologue_version != executable.version:
            self._run_prologue()
        if choice.left and not self._profiling:  # the short way of most calls
            choice.left -= 1
            if choice.alone is not self._alone:
                self._set_alone(choice.alone)
            pool = executable.pool
            error = (pool.alone if self._alone else pool.run)(self._job.address)
        else:
            error = self._run_undecided()
        if error:
            self._check(error, self._job)
        if self._ages:
            executable.version += 1

    def _run_prologue(self) -> None:
        if not self._prologue.empty:
            self._check(self.executable.pool.run(self._prologue.address), self._prologue)
        self._prologue_version = self.executable.version

    def _run_undecided(self) -> int:
        """The job on the pool, or on this thread alone, to see which is faster, if there is a choice."""
        executable, choice, job = self.executable, self._choice, self._job
        if job.empty:
            return 0
        if executable.threads == 1 or self._profiling:
            return executable.pool.run(job.address)
        self._set_alone(choice.trial())
        begin = time.perf_counter()
        error = (executable.pool.alone if self._alone else executable.pool.run)(job.address)
        choice.note(time.perf_counter() - begin)
        return error

    def _set_alone(self, alone: bool) -> None:
        self._alone = alone
        self._job.words[THREADS_WORD] = 1 if alone else self.executable.threads

    def _check(self, error: int, job: Job) -> None:
        if error:
            step = job.steps[(error >> 32) - 1]
            place = f" ({step.span})" if step.span else ""
            raise refuse(
                "DL0658", f"step `{step.label or step.kernel}`{place} of program `{self.plan.name}` failed with status {error & 0xFFFFFFFF}"
            )

    def _find_words(self) -> None:
        """Where the job has the addresses of the caller's arrays."""
        buffers = self.plan.buffers

        def words(buffer: int) -> list[tuple[Any, int, int]]:
            return [(table, word, offset + buffers[buffer].offset) for table, word, offset in self._job.words_of(buffer)]

        for port in self._inputs:
            port.words = words(port.port.buffer)
        self._direct = [(p, DTYPES[p.dtype], words(p.buffer)) for p in self.plan.outputs if buffers[p.buffer].region == "output"]
        self._fixed_outputs = [(p.name, concrete(p.shape, 1), dtype, places, scales(p.shape)) for p, dtype, places in self._direct]

    def _place(self, batch: int) -> None:
        """Have an arena for this batch; write the batch and, where the arena or its division changed, every address in it."""
        executable, plan = self.executable, self.plan
        capacity = max(self._capacity, batch if self._batched else 0)
        executable.arena.reserve(plan.arena_bytes(capacity))
        generation = executable.arena.generation
        moved = (capacity, generation) != (self._capacity, self._generation)
        if moved:
            self._addresses = self._find(capacity)
        for job in self._jobs:
            job.set_batch(batch)
            if moved or job.parts:
                job.place_all(self._addresses.get)
        if self._apart is not None:
            self._set_alone(False)
            self._job = self._apart if batch >= EXAMPLES_APART * executable.threads else self._usual
            self._find_words()
        self._batch, self._capacity, self._generation = batch, capacity, generation
        self._choice = self._choices.setdefault(batch, Choice(self._job.published))

    def _find(self, capacity: int) -> dict[int, int]:
        """Where each buffer is, but for inputs and outputs."""
        executable, plan = self.executable, self.plan
        base = executable.arena.address
        batch_base = base + plan.fixed_bytes
        found: dict[int, int] = {}
        for index, buffer in enumerate(plan.buffers):
            match buffer.region:
                case "fixed":
                    found[index] = base + buffer.offset
                case "batch":
                    found[index] = batch_base + buffer.offset * capacity
                case "persistent":
                    found[index] = address_of(executable._buffers[buffer.name]) + buffer.offset
                case "constant":
                    found[index] = address_of(executable._constants[buffer.name]) + buffer.offset
                case "setting":
                    found[index] = address_of(self._block) + buffer.offset
        return found


_alive: weakref.WeakSet[Executable] = weakref.WeakSet()


def _after_fork() -> None:
    """A thread of the parent may have held a lock; it does not exist here."""
    for executable in list(_alive):
        executable.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
