"""Programs are called with what callers have, give fresh arrays, and refuse what would be wrong."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import programs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import SPAN, W, batch_of, constants, executable, expected, forward, objects, plan, refused

from dslc.diagnostics import DiagnosticError
from dslc.ir.plan import KernelPlan, StepPlan
from dslc.runtime.convert import Scalar, address_of, convert
from dslc.runtime.executable import Executable, Program
from dslc.runtime.job import TRIALS

HERE = Path(__file__).parent


@pytest.fixture(params=[1, 2, 5])
def program(request: pytest.FixtureRequest) -> Program:
    return executable(request.param).program("forward")


# -------------------------------------------------------------------------------------------------------------- calls


def test_any_batch_up_to_the_bound(program: Program) -> None:
    for n in (1, 7, 64, 3, 100, 1):
        x = batch_of(n, n)
        results = program({"x": x})
        assert np.array_equal(results["y"], expected(x))
        assert np.array_equal(results["h"], x + 1)


def test_results_belong_to_the_caller(program: Program) -> None:
    first = program({"x": batch_of(5)})
    kept = {k: v.copy() for k, v in first.items()}
    for array in program({"x": batch_of(5, 1)}).values():
        array[:] = 7
    assert all(np.array_equal(first[k], kept[k]) for k in kept)
    assert all(v.flags.owndata and v.flags.writeable for v in first.values())


def test_settings_have_defaults(program: Program) -> None:
    x = batch_of(3)
    assert np.array_equal(program({"x": x}, {"lr": 2})["y"], expected(x, 2.0))
    assert np.array_equal(program({"x": x})["y"], expected(x))
    assert np.array_equal(program({"x": x}, {"lr": np.float32(0.5)})["y"], expected(x, 0.5))


def test_settings_of_every_kind() -> None:
    scalars = executable().program("scalars")
    results = scalars({}, {"flag": True, "n": -(2**63), "r": np.array(1.5)})
    assert (results["n"], results["flag"], results["r"]) == (-(2**63), True, 1.5)
    assert scalars({}, {"flag": np.False_})["n"] == 3
    for wrong in (
        {},
        {"flag": 1},
        {"flag": True, "n": 2**63},
        {"flag": True, "n": 1.0},
        {"flag": True, "r": "x"},
        {"flag": True, "r": 1e300},
        {"flag": True, "n": True},
    ):
        with refused("DL0654"):
            scalars({}, wrong)
    with refused("DL0654", "did you mean `flag`"):
        scalars({}, {"flap": True})
    assert scalars({}, {"flag": False})["n"] == 3, "a refused setting leaves nothing behind"


def test_prologue_follows_the_weights() -> None:
    made = executable()
    forward, step = made.program("forward"), made.program("step")
    x = batch_of(4)
    assert np.array_equal(forward({"x": x})["y"], expected(x))
    made.set("w", W * 2)
    assert np.array_equal(forward({"x": x})["y"], expected(x, w=W * 2))
    assert np.array_equal(step({})["w"], W * 2 + 1)
    assert np.array_equal(forward({"x": x})["y"], expected(x, w=W * 2 + 1))
    made.view("w")[:] = 1
    made.touch()
    assert np.array_equal(forward({"x": x})["y"], expected(x, w=np.ones(4, np.float32)))


def test_persistent_buffers() -> None:
    made = executable()
    assert made.names() == ("w",)
    assert made.names("packed") == ("packed",)
    copy = made.get("w")
    copy[:] = 0
    assert np.array_equal(made.get("w"), W)
    assert address_of(made.view("w")) % 64 == 0
    made.set("w", [1, 2, 3, 4.5])
    assert made.get("w")[3] == 4.5
    with refused("DL0659", "did you mean `w`"):
        made.set("W", W)
    with refused("DL0659", "shape"):
        made.set("w", W[:3])


def test_constants_and_programs_without_inputs() -> None:
    made = executable()
    results = made.call("step", {})
    assert np.array_equal(results["c"], [1, 2, 3])
    results["c"][:] = 0
    assert np.array_equal(made.call("step", {})["c"], [1, 2, 3])


def test_multiples_of_the_batch_and_inputs_as_outputs() -> None:
    identity = executable().program("identity")
    x = np.arange(12).reshape(4, 3)
    result = identity({"x": x})["x"]
    assert np.array_equal(result, x)
    assert not np.shares_memory(result, x)
    with refused("DL0651"):
        identity({"x": np.zeros((3, 3), np.int64)})


def test_failed_kernel_names_its_line() -> None:
    with refused("DL0658", "boom.*" + SPAN):
        executable().call("failing", {})


# ------------------------------------------------------------------------------------------------------------- inputs


class Lender:
    """Lends its array through DLPack alone."""

    def __init__(self, array: np.ndarray):
        self.array = array

    def __dlpack__(self, **options: object) -> object:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def misaligned(x: np.ndarray) -> np.ndarray:
    raw = np.zeros(x.nbytes + 1, np.uint8)
    view = raw[1:].view(x.dtype).reshape(x.shape)
    view[:] = x
    return view


def read_only(x: np.ndarray) -> np.ndarray:
    copy = x.copy()
    copy.flags.writeable = False
    return copy


@pytest.mark.parametrize(
    "change",
    [
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: np.ascontiguousarray(x[::-1])[::-1],
        lambda x: np.pad(x, 3)[3:-3, 3:-3],
        lambda x: x.astype(">f4"),
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.float16).astype(np.float32),
        lambda x: x.tolist(),
        lambda x: tuple(map(tuple, x.tolist())),
        lambda x: x.view(np.matrix),
        misaligned,
        read_only,
        Lender,
        lambda x: Lender(read_only(x)),
    ],
)
def test_any_array_is_right(program: Program, change: object) -> None:
    x = np.round(batch_of(6) * 8) / 8  # exact in half precision too
    given_x = change(x)  # type: ignore[operator]
    assert np.array_equal(program({"x": given_x})["y"], expected(x))


def test_integers_that_fit(program: Program) -> None:
    x = np.arange(12).reshape(3, 4)
    for dtype in (np.uint8, np.int8, np.int16, np.int32, np.int64, np.uint64):
        assert np.array_equal(program({"x": x.astype(dtype)})["y"], expected(x.astype(np.float32)))
    with refused("DL0652", "do not fit"):
        program({"x": np.full((1, 4), 2**24 + 1)})


@pytest.mark.parametrize(
    ("dtype", "value", "code"),
    [
        ("i64", np.zeros(2, np.float32), "DL0652"),
        ("i32", np.array([2**31]), "DL0652"),
        ("u8", np.array([-1]), "DL0652"),
        ("i64", np.array([2**63], np.uint64), "DL0652"),
        ("bool", np.zeros(2, np.uint8), "DL0652"),
        ("f32", np.array([True]), "DL0652"),
        ("f32", np.array([1j]), "DL0656"),
        ("f32", np.array(["1.0"]), "DL0656"),
        ("f32", [[1.0], [1.0, 2.0]], "DL0656"),
        ("f32", None, "DL0656"),
        ("f32", {"a": 1}, "DL0656"),
        ("f32", np.ma.masked_array([1.0], mask=[True]), "DL0656"),
        ("f32", np.zeros(2, "datetime64[s]"), "DL0656"),
        ("f32", np.array([1e300]), "DL0652"),
    ],
)
def test_lossy_conversions_are_refused(dtype: str, value: object, code: str) -> None:
    with refused(code):
        convert("x", dtype, value)


@given(st.sampled_from(["i32", "i64", "u8", "i8", "f32", "f64"]), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4))
@settings(max_examples=200, deadline=None)
def test_converted_integers_are_equal(dtype: str, values: list[int]) -> None:
    try:
        array = convert("x", dtype, np.array(values, np.int64))
    except DiagnosticError:
        return
    assert [int(v) for v in array] == values


@pytest.mark.parametrize(
    ("x", "code", "part"),
    [
        (np.zeros((3, 5), np.float32), "DL0651", "axis 1 is 5"),
        (np.zeros(4, np.float32), "DL0651", "array\\[None\\]"),
        (np.zeros((1, 1, 4), np.float32), "DL0651", "3 axes"),
        (np.zeros((0, 4), np.float32), "DL0653", "at least one"),
        (np.zeros((101, 4), np.float32), "DL0653", "1 to 100"),
        (np.float32(1), "DL0651", ""),
    ],
)
def test_wrong_shapes_are_refused(program: Program, x: np.ndarray, code: str, part: str) -> None:
    with refused(code, part):
        program({"x": x})


def test_infinities_and_nans_pass() -> None:
    assert np.array_equal(
        convert("x", "f32", [np.inf, -np.inf, np.nan, 1e-300]), np.array([np.inf, -np.inf, np.nan, 0], np.float32), equal_nan=True
    )


def test_wrong_names_are_refused() -> None:
    made = executable()
    with refused("DL0650", "did you mean `x`"):
        made.call("forward", {"X": batch_of(1)})
    with refused("DL0650", "needs `x`"):
        made.call("forward", {})
    with refused("DL0650", "no input `z`"):
        made.call("forward", {"x": batch_of(1), "z": 1})
    with refused("DL0657", "did you mean `forward`"):
        made.program("forwards")


def test_batch_argument() -> None:
    made = executable()
    assert made.call("forward", {"x": batch_of(3)}, batch=3)["y"].shape == (3, 4)
    with refused("DL0653", "the others 2"):
        made.call("forward", {"x": batch_of(3)}, batch=2)
    with refused("DL0653", "has no batch"):
        made.call("step", {}, batch=2)


# ---------------------------------------------------------------------------------------------------------------- out


def test_out_takes_the_results(program: Program) -> None:
    x = batch_of(5)
    out = {"y": np.zeros((5, 4), np.float32), "h": np.zeros((5, 4), np.float32)}
    results = program({"x": x}, out=out)
    assert results["y"] is out["y"]
    assert results["h"] is out["h"]
    assert np.array_equal(out["y"], expected(x))
    assert np.array_equal(out["h"], x + 1)


def test_out_over_the_input(program: Program) -> None:
    x = batch_of(6)
    want = expected(x)
    program({"x": x}, out={"y": x, "h": np.zeros_like(x)})
    assert np.array_equal(x, want)
    block = np.zeros((8, 4), np.float32)
    block[:6] = batch_of(6)
    want = expected(block[:6].copy())
    program({"x": block[:6]}, out={"y": block[1:7], "h": np.zeros_like(x)})
    assert np.array_equal(block[1:7], want)


def test_wrong_out_is_refused(program: Program) -> None:
    x, good = batch_of(5), np.zeros((5, 4), np.float32)
    for bad in (good.astype(np.float64), good[:4], np.zeros((4, 5), np.float32).T, read_only(good), good.tolist(), np.zeros((5, 4), ">f4")):
        with refused("DL0655"):
            program({"x": x}, out={"y": bad, "h": good})
    with refused("DL0655", "lacks `h`"):
        program({"x": x}, out={"y": good})
    with refused("DL0655", "no output `z`"):
        program({"x": x}, out={"y": good, "h": good.copy(), "z": good})
    with refused("DL0655", "overlaps"):
        program({"x": x}, out={"y": good, "h": good})


# ---------------------------------------------------------------------------------------------- threads, forks, speed


def test_two_python_threads(program: Program) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        for i in range(200):
            x = batch_of(1 + (seed + i) % 40, seed)
            lr = seed / 8
            if not np.array_equal(program({"x": x}, {"lr": lr})["y"], expected(x, lr)):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert not any(t.is_alive() for t in threads)


def test_right_after_fork(program: Program) -> None:
    x = batch_of(9)
    program({"x": x})
    with pytest.warns(DeprecationWarning) if sys.version_info >= (3, 12) else contextlib.nullcontext():
        child = os.fork()
    if child == 0:
        try:
            os._exit(0 if all(np.array_equal(program({"x": x})["y"], expected(x)) for _ in range(20)) else 3)
        except BaseException:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(program({"x": x})["y"], expected(x))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_call_costs_microseconds(threads: int) -> None:
    """At most 5 us for a program with nothing to do: input and output of 16 bytes, one serial kernel that returns at once."""
    small = programs.forward()
    nothing = replace(small, steps=(StepPlan("nothing", ((0, 0), (5, 0)), serial=True),), outputs=small.outputs[:1], prologue=())
    made = Executable(replace(plan(), programs=(nothing,)), objects(), constants(), threads=threads)
    call, inputs = made.program("forward"), {"x": batch_of(1)}
    best = min(_median_seconds(call, inputs) for _ in range(5))
    assert best < 5e-6


def _median_seconds(call: Program, inputs: dict[str, np.ndarray]) -> float:
    times = []
    for _ in range(2000):
        begin = time.perf_counter()
        call(inputs)
        times.append(time.perf_counter() - begin)
    return sorted(times)[1000]


# ------------------------------------------------------------------------------------------------------------ loading


def test_missing_code_and_constants_are_refused() -> None:
    some = objects()
    some.popitem()
    with refused("DL0662"):
        Executable(plan(), some, constants())
    wrong = replace(plan(), kernels=tuple(KernelPlan(k.name, k.key, "other") for k in plan().kernels))
    with refused("DL0662"):
        Executable(wrong, objects(), constants())
    damaged = {key: code[:100] for key, code in objects().items()}
    with refused("DL0662"):
        Executable(plan(), damaged, constants())
    with refused("DL0663", "constant `c`"):
        Executable(plan(), objects(), {})
    with refused("DL0661"):
        Executable(plan(features=("+quantum",)), objects(), constants())


def test_profile_names_every_step(program: Program) -> None:
    times = program.profile({"x": batch_of(50)})
    assert [(t.number, t.label, t.span) for t in times] == [(0, "add", SPAN), (1, "affine", SPAN)]
    assert all(0 <= t.seconds < 1 and t.busy >= 0 for t in times)
    assert np.array_equal(program({"x": batch_of(3)})["y"], expected(batch_of(3))), "the clock is off again"


def test_results_do_not_depend_on_the_choice() -> None:
    made = executable(3)
    call, x = made.program("forward"), batch_of(10)
    seen = set()
    for i in range(4 * TRIALS):
        assert np.array_equal(call({"x": x})["y"], expected(x))
        seen.add(call._alone)
        if i == TRIALS:
            call.profile({"x": x})
    assert seen == {False, True}


def test_scalar_packs_in_place() -> None:
    block = bytearray(24)
    Scalar(replace(programs.scalars().settings[2]), 16).write(block, 1)
    assert np.frombuffer(block, np.float32)[4] == 1.0


def test_the_runtime_imports_neither_numba_nor_lark() -> None:
    script = "import sys, dslc.runtime.executable, dslc.runtime.artifact; print(sorted({'numba', 'lark'} & {m.split('.')[0] for m in sys.modules}))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_next_call_may_be_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a call with some arrays, any other arrays, settings, programs and weights are right."""
    alone = replace(forward(), outputs=forward().outputs[:1])  # without a result that is copied out of the arena
    made = Executable(replace(plan(), programs=(alone,)), objects(), constants(), threads=2)
    made.set("w", W)
    call = made.program("forward")
    wide = np.zeros((3, 8), np.float32)
    wide[:, ::2] = batch_of(3)
    unaligned = np.frombuffer(b"\0" + batch_of(3).tobytes(), np.uint8)[1:].view(np.float32).reshape(3, 4)
    for x in (batch_of(3), batch_of(3)[::-1], wide[:, ::2], unaligned, batch_of(3).astype(np.float64), batch_of(100), batch_of(3)):
        assert np.array_equal(call({"x": x}, {"lr": 0.5})["y"], expected(np.asarray(x, np.float32), 0.5))
        for _ in range(2):
            assert np.array_equal(call({"x": x})["y"], expected(np.asarray(x, np.float32)))
            assert call._known is not None
        for wrong in ({}, {"y": x}, {"x": x, "y": x}, {"x": x[:, :2]}, {"x": x[0]}):
            with pytest.raises(DiagnosticError):
                call(wrong)
    with monkeypatch.context() as patch:
        patch.setattr(call, "_run", lambda: call._check(1 << 32, call._job))
        with pytest.raises(DiagnosticError):
            call({"x": batch_of(1)})
    other = batch_of(3, 9)  # memory that is used again holds the old results
    assert np.array_equal(call({"x": other})["y"], expected(other)), "not with the batch of the call that failed"
    first = call({"x": batch_of(3)})["y"]
    assert not np.shares_memory(first, call({"x": batch_of(3)})["y"])
    made.set("w", 2 * made.get("w"))
    assert not np.array_equal(call({"x": batch_of(3)})["y"], first)
