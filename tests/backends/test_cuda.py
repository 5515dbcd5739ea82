"""CUDA kernels: the simulator against interpreter and CPU, PTX and machine code without a GPU, refusals, and the printed sources.

The simulator has to be chosen before Numba is imported, so it runs in processes of its own (`cuda_simulator.py`). PTX needs the
extra `dslc[cuda]`.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dslc import compiler
from dslc.api.cuda import cuda_code
from dslc.backends.cuda import device
from dslc.backends.cuda.kernel import CudaKernel
from dslc.diagnostics import DiagnosticError
from dslc.frontend import elaborate
from dslc.options import resource
from tests.backends.test_kernels import KINDS, cases

ROOT = Path(__file__).parent.parent.parent
needs_compiler = pytest.mark.skipif(not device.can_compile(), reason="needs the CUDA compiler: pip install 'dslc[cuda]'")
needs_assembler = pytest.mark.skipif(
    not (device.can_compile() and device.can_assemble()), reason="needs the CUDA compiler and ptxas: pip install 'dslc[cuda]'"
)


def kernels_of(model: str) -> dict[str, tuple[str, CudaKernel]]:
    """The kernels of a recipe's programs by key, with the operators that they are made from."""
    text = (resource("models") / f"{model}.dl").read_text(encoding="utf-8")
    programs = compiler.emit_cuda(elaborate(text, f"{model}.dl", recipe=model).module)
    labels = {step.kernel: step.label for p in programs.values() for step in (*p.plan.prologue, *p.plan.steps)}
    return {key: (labels[key], kernel) for p in programs.values() for key, kernel in p.kernels.items()}


def simulate(*arguments: str) -> str:
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.backends.cuda_simulator", *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# ---- the simulator --------------------------------------------------------------------------------------------------


def test_training_steps_of_the_mlp_agree_with_the_interpreter_and_the_cpu() -> None:
    """Forward, backward, AdamW and metrics at 12-8-8-3, batch 5: the interpreter's results to rounding, the CPU kernels' to the bit.

    The third step runs every kernel in one block: the launch changes no result.
    """
    said = simulate("mlp")
    assert said.count("train step") == 3 and said.count("evaluate step") == 1


FEW = [
    *["cast", "cos", "cumsum", "erf", "floordiv", "gather", "log_softmax", "max_pool2d", "moments", "mod", "pow", "random_normal"],
    *["scatter_add", "sort", "sum", "suppress", "where"],
]


def test_operators_give_the_bits_of_the_cpu_kernels() -> None:
    assert set(FEW) <= set(KINDS)
    said = simulate("operators", *FEW)
    assert said.count("programs agree") == len(FEW)


@pytest.mark.slow
def test_every_operator_gives_the_bits_of_the_cpu_kernels() -> None:
    assert simulate("operators", *KINDS).count("programs agree") == len(KINDS)


@pytest.mark.parametrize(
    ("x", "y", "z"),
    [
        (1 + 2**-12, 1 + 2**-12, -1.0),  # the product needs 25 bits
        (1 + 2**-23, 1 - 2**-23, 2**-60),  # a tie in single precision that the last bit of the exact sum breaks
        (1 + 2**-23, 1 - 2**-23, -(2**-60)),
        (3.0, 2**-149, 2**-149),
        (2.0**127, 2.0, -(2.0**127)),
        (2.0**127, 4.0, 1.0),
        (-1.0, 0.0, 0.0),
        (math.inf, 0.0, 1.0),
        (2.0**127, 2.0**127, -math.inf),
    ],
)
def test_the_simulated_fma_rounds_once(x: float, y: float, z: float) -> None:
    """Against 64 bits of NumPy's longdouble, which hold these sums exactly."""
    with np.errstate(all="ignore"):
        got = device.exact_fma(np.float32(x), np.float32(y), np.float32(z))
        exact = np.longdouble(np.float32(x)) * np.longdouble(np.float32(y)) + np.longdouble(np.float32(z))
        want = np.float32(exact)
    assert got.dtype == np.float32
    assert got.tobytes() == want.tobytes() or (np.isnan(got) and np.isnan(want))


# ---- sources ----------------------------------------------------------------------------------------------------------


def test_sources_are_plain_python_over_their_arguments() -> None:
    kernels = kernels_of("mlp")
    assert len(kernels) > 20
    for label, kernel in kernels.values():
        compile(kernel.text, label, "exec")
        head = re.search(r"^def kernel\((.*)\):$", kernel.text, re.MULTILINE)
        assert head is not None
        assert head[1].split(", ") == [*(f"p{n}" for n in range(len(kernel.buffers))), "batch"]
        (x, y), (across, down) = kernel.launch.at(256)
        assert 1 <= x <= 65535 and 1 <= y <= 65535 and 32 <= across * down <= 1024


def test_command_writes_sources_and_plan(tmp_path: Path) -> None:
    code = cuda_code(resource("models") / "mlp.dl", "mlp")
    files = code.write(tmp_path / "out")
    assert (tmp_path / "out" / "plan.json") in files
    assert sum(p.suffix == ".py" for p in files) == len(code.kernels)
    steps = code.plan_json()["train"]["steps"]
    assert all(step["line"].startswith("mlp.dl:") or "models" in step["line"] or not step["line"] for step in steps)
    assert {"kernel", "grid", "block", "buffers", "operators", "line"} == set(steps[0])


def test_running_without_a_device_is_refused() -> None:
    if device.can_run():
        pytest.skip("there is a CUDA device")
    program = compiler.emit_cuda(elaborate((resource("models") / "mlp.dl").read_text(encoding="utf-8"), "mlp.dl", recipe="mlp").module)[
        "evaluate"
    ]
    with pytest.raises(DiagnosticError, match="DL0811"):
        device.Runner(program, {}, {})


@pytest.mark.skipif(device.can_compile(), reason="the CUDA compiler is installed")
def test_ptx_without_the_compiler_is_refused() -> None:
    _, kernel = next(iter(kernels_of("mlp").values()))
    with pytest.raises(DiagnosticError, match="DL0812"):
        device.ptx(kernel, (8, 0))


# ---- PTX and machine code -----------------------------------------------------------------------------------------------


EXACT_FACTOR = re.compile(r"0(?:f..[08]00000|d...0000000000000);")  # a power of two, where NVVM writes a product for a quotient


def check_ptx(text: str, kernel: CudaKernel) -> None:
    """No instruction that changes bits: nothing flushed or approximate, no product that could be joined with a sum, no call."""
    products = [line for line in re.findall(r"^.*\bmul\.f(?:32|64).*$", text, re.MULTILINE) if not EXACT_FACTOR.search(line)]
    assert products == []
    assert not re.findall(r"^.*(?:\.ftz|\.approx|\bdiv\.full|\bcall\b).*$", text, re.MULTILINE)
    assert "fma.rn" not in text or "fma_f" in kernel.text


@needs_compiler
@pytest.mark.parametrize("capability", device.CAPABILITIES, ids=lambda c: f"{c[0]}.{c[1]}")
def test_every_kernel_of_the_mlp_compiles_to_ptx(capability: tuple[int, int]) -> None:
    for _, kernel in kernels_of("mlp").values():
        text = device.ptx(kernel, capability)
        assert f".target sm_{capability[0]}{capability[1]}" in text
        check_ptx(text, kernel)


@needs_assembler
@pytest.mark.parametrize("capability", [(7, 5), (9, 0)], ids=["7.5", "9.0"])
def test_machine_code_stays_in_registers(capability: tuple[int, int]) -> None:
    for label, kernel in kernels_of("mlp").values():
        figures = device.assemble(device.ptx(kernel, capability), capability)
        assert figures.registers <= 128, label
        assert figures.shared <= 1024, label
        assert figures.stack == figures.spills == 0, label


@needs_compiler
@pytest.mark.slow
def test_kernels_of_every_operator_compile_to_ptx() -> None:
    done: set[str] = set()
    for kind in KINDS:
        for program, _, _ in cases(kind, every=False):
            module = compiler.Module(kind, {program.name: program}, {})
            for key, kernel in compiler.emit_cuda(module)[program.name].kernels.items():
                if key not in done:
                    check_ptx(device.ptx(kernel, (7, 5)), kernel)
                    done.add(key)


@pytest.mark.gpu
@pytest.mark.skipif(device.simulated() or not device.can_run(), reason="needs a CUDA device")
def test_operators_on_a_device() -> None:
    """The same comparison as in the simulator, on a GPU."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.backends.cuda_simulator", "operators", *KINDS],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
