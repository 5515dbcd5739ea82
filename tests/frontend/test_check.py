"""`check`: sizes left open, all errors at once without cascades, lints, and hostile files refused at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from spent import python

from dslc.diagnostics import DiagnosticError, render
from dslc.frontend import check, elaborate


def codes(text: str) -> list[str]:
    return [d.code for d in check(text, "test.dl").diagnostics]


def model(body: str, signature: str = "(x: f32[N, 4]) -> f32[N, 4]", before: str = "") -> str:
    return f"{before}\nmodel M{signature} {{ {body} }}"


# --- open sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        model("return x[:, 0:H / 2]", "(x: f32[N, H]) -> f32[N, H / 2] given H % 2 == 0"),
        model("return x |> Conv2D[3, 3, padding = 1]", "(x: f32[N, 3, H, W]) -> f32[N, 3, H, W]"),
        model("return x |> MaxPool2D[2] |> MaxPool2D[2]", "(x: f32[N, 3, H, W]) -> f32[N, 3, H / 4, W / 4] given H % 4 == 0, W % 4 == 0"),
        model("return x |> flatten |> Dense[10]", "(x: f32[N, 3, H, W]) -> f32[N, 10]"),
        model(
            "return wpe(x)",
            "(x: f32[N, T, 8]) -> f32[N, T, 8] given T <= 100",
            "block wpe(x: f32[N, T, D]) -> f32[N, T, D] given T <= 1024 { return x }",
        ),
        model("return x + zeros[T, 1][0:S]", "(x: f32[S, T]) -> f32[S, T] given S <= T"),
        model("return x[0:4]", "(x: f32[N]) -> f32[4] given N >= 4"),
        "block Chain[widths](x: f32[N, D]) -> f32[N, widths[-1]] { return x |> Dense[widths[0]] |> Dense[widths[-1]] }",
        "block Chain[widths: dims](x: f32[N, D]) -> f32[N, D] { for w in widths { x = x |> Dense[w] |> Dense[D] }  return x }",
        "block Around[inner](x: f32[N, D]) -> f32[N, D] { return inner[2](x) }",
        model("for _i in 0..T { x = x + 1 }  return x", before="dim T = 3"),
        model("if T > 2 { x = x + 1 } else { x = x * 2 }  return x", "(x: f32[N, T]) -> f32[N, T]"),
        model("return x * (if T > 2 then 1.0 else 2.0)", "(x: f32[N, T]) -> f32[N, T]"),
        model("return x |> MaxPool2D[K]", "(x: f32[N, 3, 8, 8]) -> f32[N, 3, 4, 4]", before="dim K = 2"),
        model("return reshape[N, H * W](x)", "(x: f32[N, H, W]) -> f32[N, H * W]"),
        model("a, b = split[2, axis = 1](x) return a * b", "(x: f32[N, 2 * T]) -> f32[N, T]"),
    ],
)
def test_accepted_for_all_sizes(text: str) -> None:
    result = check(text, "test.dl")
    assert [render(d, result.sources) for d in result.diagnostics] == []


@pytest.mark.parametrize(
    ("text", "code", "fragment"),
    [
        (model("return x[:, 0:H / 2]", "(x: f32[N, H]) -> f32[N, H // 2]"), "DL0219", "fails at H = 1"),
        (model("return x[0:4]", "(x: f32[N]) -> f32[4]"), "DL0221", "fails at N = 1"),
        (model("return x + y", "(x: f32[N, T], y: f32[N, S]) -> f32[N, T]"), "DL0210", "axis 1 is T and S"),
        (model("return x", "(x: f32[N, H, W]) -> f32[N, W, H]"), "DL0213", "f32[N, H, W]"),
        (model('assert T > 3, "long enough"  return x', "(x: f32[N, T]) -> f32[N, T]"), "DL0218", "fails at T = 1"),
    ],
)
def test_refuted_with_a_counterexample(text: str, code: str, fragment: str) -> None:
    result = check(text, "test.dl")
    assert [d.code for d in result.errors] == [code]
    assert fragment in render(result.errors[0], result.sources)


# --- errors ----------------------------------------------------------------------------------------------------------------


def test_all_mistakes_of_a_file_each_once() -> None:
    text = """
block Head(x: f32[N, D]) -> f32[N, 10] {
  y = rellu(x) |> Dense[10]
  z = y * 2 + undefined_thing
  w = sum[axes = 1](x) + y
  return y + z + w
}
model A(x: f32[N, 4]) -> f32[N, 10] { return Head(x) + Head(x * 2) }
model B(x: f32[N, 4]) -> f32[N, 7] { return A(x) |> Dense[8] }
train t {
  data x: f32[N, 4], y: i64[N] from "digits"
  minimize cross_entropy(A(x), z) over A with Adma[1e-3]
  epoch 3
}
"""
    found = [(d.code, d.span.line if d.span else 0) for d in check(text, "test.dl").errors]
    assert found == [("DL0101", 3), ("DL0101", 4), ("DL0103", 5), ("DL0213", 9), ("DL0101", 12), ("DL0101", 12), ("DL0110", 13)]


def test_a_failed_call_still_has_its_declared_type() -> None:
    text = """
block Broken(x: f32[N, 4]) -> f32[N, 6] { return missing(x) }
model M(x: f32[N, 4]) -> f32[N, 7] { return Broken(x) }
"""
    assert codes(text) == ["DL0101", "DL0213"]


def test_syntax_errors_do_not_hide_or_cause_others() -> None:
    text = """
block Broken(x: f32[N, 4]) -> f32[N, 4] { return x + }
model M(x: f32[N, 4]) -> f32[N, 4] { return Broken(x) + nothing }
"""
    found = check(text, "test.dl").errors
    assert [(d.code[:4], d.span.line if d.span else 0) for d in found] == [("DL00", 2), ("DL01", 3)]


def test_errors_in_the_library_stand_at_the_users_call() -> None:
    result = check(model("return x |> Dense[8] |> LayerNorm |> Conv2D[4, 3]"), "test.dl")
    (error,) = result.errors
    assert error.span is not None and error.span.file == "test.dl" and "Conv2D" in render(error, result.sources)


def test_compiling_refuses_what_checking_leaves_open() -> None:
    text = model("return x", "(x: f32[N, T]) -> f32[N, T] given T % 2 == 0", "dim N <= 8")
    assert codes(text) == []
    assert elaborate(text, "test.dl", dims={"T": 6}).module.programs["infer"].batch == "N"
    with pytest.raises(DiagnosticError, match="DL0513"):
        elaborate(text, "test.dl")
    with pytest.raises(DiagnosticError, match="DL0214"):
        elaborate(text, "test.dl", dims={"T": 5})
    with pytest.raises(DiagnosticError, match="DL0217"):
        elaborate(text, "test.dl", dims={"T": 0})
    with pytest.raises(DiagnosticError, match="no size `Q`"):
        elaborate(text, "test.dl", dims={"T": 2, "Q": 3})


# --- lints -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("block B[k, j = 2](x: f32[N], y: f32[N]) -> f32[N] { a = x  param w: f32[2] = 0  return x * k }", ["j", "y", "a", "w"]),
        ("block B(x: f32[N], _y: f32[N]) -> f32[N] { for _i in 0..3 { x = x * 2 }  return x }", []),
        ("optimizer O[lr](p: float[*L], g: float[*L], step: i64[]) -> float[*L] { return p - 0.1 * g }", ["lr"]),
        ("block constant_rate[rate](step: i64[], total: i64[]) -> f32[] { return rate }", []),
        ("dim N <= 3, T = 4\nmodel M(x: f32[N]) -> f32[N] { return x }", ["T"]),
        ('import "std/layers.dl" as layers\nmodel M(x: f32[N]) -> f32[N] { return x }', ["layers"]),
    ],
)
def test_unused_names(text: str, names: list[str]) -> None:
    found = check(text, "test.dl").diagnostics
    assert [d.message.split("`")[1] for d in found if d.code == "DL0523"] == names
    assert {d.code for d in found} <= {"DL0523"}


# --- hostile files ---------------------------------------------------------------------------------------------------------

CALLS = "".join(f"block b{i}(x: f32[N]) -> f32[N] {{ return b{i + 1}(b{i + 1}(x)) }}\n" for i in range(40))
LONG = model("l = [0]  for i in 0..16 { l = l + l }  for i in 0..99_000 { ... }  return x")
HOSTILE = {
    "a loop over too much": model("for _i in 0..99_000 { x = x + 1  y = x * x  x = y }  return x"),
    "loops in loops": model("for i in 0..100_000 { for j in 0..100_000 { y = i + j } }  return x"),
    "calls that double": CALLS + "block b40(x: f32[N]) -> f32[N] { return x }\nmodel M(x: f32[N]) -> f32[N] { return b0(x) }",
    "lists that double": "const K0 = [1, 2]\n" + "".join(f"const K{i + 1} = K{i} + K{i}\n" for i in range(50)),
    "lists of lists": "const K0 = [1, 2]\n" + "".join(f"const K{i + 1} = [K{i}, K{i}]\n" for i in range(2000)),
    "strings that double": 'const K0 = "ab"\n' + "".join(f"const K{i + 1} = K{i} + K{i}\n" for i in range(50)),
    "numbers that square": "const K0 = 2\n" + "".join(f"const K{i + 1} = K{i} * K{i}\n" for i in range(50)),
    "a power": "const K = 9 ** 9 ** 9 ** 9",
    "a polynomial": model("return zeros[" + "*".join(["(A+B+C+D)"] * 60) + "]", "(x: f32[A, B, C, D]) -> f32[A, B, C, D]"),
    "a quotient": model("return zeros[A" + " // B" * 200 + "]", "(x: f32[A, B]) -> f32[A, B]"),
    "unknown names": model(" ".join(f"y{i} = z{i}" for i in range(2000))),
    "constants in a circle": "const A = B\nconst B = A",
    "sizes in a circle": "dim A = B, B = A\n" + model("return x", "(x: f32[A]) -> f32[A]"),
    "models in a circle": "model A(x: f32[N]) -> f32[N] { return B(x) }\nmodel B(x: f32[N]) -> f32[N] { return A(x) }",
    "a default that is itself": "block f[g = f](x: f32[N]) -> f32[N] { return g(x) }\nmodel M = f",
    "size 0": model("return x |> Dense[0]"),
    "size -1": model("return x |> Dense[-1]"),
    "size 2^31": model("return x |> Dense[2147483648]"),
    "size 2^63": model("return x |> Dense[9223372036854775808]"),
    "a bound of 2^31": "dim N <= 2147483648\n" + model("return x"),
    "a huge parameter": model("param w: f32[2147483647, 2147483647] = 0  return x + sum(w)"),
    "stride 0": model("return x |> Conv2D[3, 3, 0]", "(x: f32[N, 3, 8, 8]) -> f32[N, 3, 8, 8]"),
    "window 0": model("return x |> MaxPool2D[0]", "(x: f32[N, 3, 8, 8]) -> f32[N, 3, 8, 8]"),
    "negative padding": model("return x |> Conv2D[3, 3, padding = -3]", "(x: f32[N, 3, 8, 8]) -> f32[N, 3, 8, 8]"),
    "a slice far away": model("return x[:, 9223372036854775807:]"),
    "facts without end": "model M(x: f32[A, B]) -> f32[A, B] given "
    + ", ".join(f"A * {i} > B - {i}" for i in range(3000))
    + " { return x }",
    "facts that multiply": model(
        "return zeros[A0]",
        f"(x: f32[{', '.join(f'A{i}' for i in range(30))}]) -> f32[A0] given "
        + ", ".join(f"A{i} == A{i + 1} * A{i + 1}" for i in range(29)),
    ),
    "long lists in a loop": LONG.replace("...", "m = l + [i]"),
    "long lists reversed": LONG.replace("...", "m = reversed(l)"),
    "long lists numbered": LONG.replace("...", "m = enumerate(l)"),
    "parts of long lists": LONG.replace("...", "m = l[1:]"),
    "long lists of axes": LONG.replace("...", "m = sum[axis = l](x)"),
    "long lists of tensors": LONG.replace("[0]", "[x]").replace("0..16", "0..14").replace("...", "m = concat[axis = 0](l)"),
    "quotients of quotients": model(
        "p = T  for i in 0..100 { p = (p + N) // (T + i) }  for i in 0..9000 { q = p * p + p // T }  return x",
        "(x: f32[N, T]) -> f32[N, T]",
    ),
    "open comparisons": model("for i in 0..40_000 { y = x[0:i] }  return x", "(x: f32[T, H]) -> f32[T, H] given T % 7 == 3, H % 9 == 1"),
    "parts of nothing": model("a = split[100000000, axis = 1](x)  return a[0]"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_at_once(name: str) -> None:
    begin = time.process_time()
    result = check(HOSTILE[name], "test.dl")
    assert result.errors
    assert time.process_time() - begin < 1.5  # of two seconds, starting included
    assert all(render(d, result.sources) for d in result.diagnostics)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which Python finds the byte code of all modules, as it does after the first command of an installation."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = kept | {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("bytecode"))}
    source = tmp_path_factory.mktemp("first") / "first.dl"
    source.write_text(HOSTILE["stride 0"])
    python("-m", "dslc", "check", source, environment=environment)
    return environment


@pytest.mark.parametrize("name", ["calls that double", "long lists of axes", "loops in loops", "size 2^63", "stride 0"])
def test_the_command_refuses_hostile_files_in_two_seconds(name: str, installed: dict[str, str], tmp_path: Path) -> None:
    """Two seconds of processor time, starting included, and 500 MB. The least of three: others on a machine only slow it down."""
    (tmp_path / "hostile.dl").write_text(HOSTILE[name])
    runs = [python("-m", "dslc", "check", tmp_path / "hostile.dl", environment=installed) for _ in range(3)]
    assert all(run.status == 1 and "error[DL" in run.output for run in runs)
    assert min(run.seconds for run in runs) < 2
    assert max(run.peak for run in runs) < 500 << 20


def test_large_files_check_in_time() -> None:
    text = model("for _i in 0..400 { x = x |> Dense[4] }  return x", before="dim N <= 8")
    text += '\ntrain t { data x: f32[N, 4] from "digits"  minimize mean(M(x)) over M with AdamW[1e-3]  epochs 1 }'
    begin = time.process_time()
    assert check(text, "test.dl").diagnostics == ()
    assert time.process_time() - begin < 10


@pytest.mark.parametrize(
    "text",
    [
        model(" ".join(["x = x + 1"] * 39_000) + " return x", before="dim N <= 8"),
        model("return x " + "|> relu " * 60_000, before="dim N <= 8"),
        "\n".join(f"const a{i} = {i} + 1" for i in range(33_000)),
        "\n".join(f"block b{i}(x: f32[N, 4]) -> f32[N, 4] {{ return x }}" for i in range(7000)),
    ],
    ids=["statements", "a pipe", "constants", "blocks"],
)
def test_files_at_the_limit_of_length_check_in_time(text: str) -> None:
    begin = time.process_time()
    assert not check(text, "test.dl").errors
    assert time.process_time() - begin < 10
