"""`dslc ops`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import click

from dslc.cli.output import json_option, print_json
from dslc.diagnostics import Diagnostic, DiagnosticError

if TYPE_CHECKING:
    from dslc.ir.operator import Operator


@click.command("ops")
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """The operators by family, or the reference of one of them; for a capitalised name, the library's source.

    Example: dslc ops softmax
    """
    from dslc.ops import register_operators

    public = {n: o for n, o in register_operators().items() if not (o.internal or o.meta)}
    library = library_items()
    if name is None:
        _list(public, library, as_json)
    elif name in public:
        print_json(described(public[name])) if as_json else print(reference(public[name]))
    elif name in library:
        print_json({"name": name, "source": library[name]}) if as_json else print(library[name])
    else:
        from difflib import get_close_matches

        near = get_close_matches(name, [*library, *public], 1) or get_close_matches(name.lower(), public, 1)
        hint = f"did you mean {near[0]}?" if near else "`dslc ops` lists them"
        raise DiagnosticError(Diagnostic("DL0820", f"there is no operator or block {name[:60]!r}", hint=hint))


def described(operator: Operator) -> dict[str, Any]:
    """The operator as data."""
    from dslc.ir.operator import REQUIRED

    return {
        "name": operator.name,
        "family": operator.family,
        "inputs": list(operator.inputs),
        "attributes": {
            n: {"kind": a.kind, "doc": a.doc} | ({} if a.default is REQUIRED else {"default": _value(a.default)})
            for n, a in operator.attrs.items()
        },
        "differentiable": operator.differentiable,
        "doc": inspect.cleandoc(operator.__doc__ or ""),
    }


def signature(operator: Operator) -> str:
    """`softmax[axis = -1](x)`."""
    from dslc.ir.operator import REQUIRED

    attrs = ", ".join(n if a.default is REQUIRED else f"{n} = {_value(a.default)}" for n, a in operator.attrs.items())
    return f"{operator.name}{f'[{attrs}]' if attrs else ''}({', '.join(operator.inputs)})"


def reference(operator: Operator) -> str:
    """Signature, meaning and attributes as text."""
    lines = [signature(operator), "", inspect.cleandoc(operator.__doc__ or "")]
    if operator.attrs:
        lines += ["", *(f"  {n}: {a.kind}{f'  {a.doc}' if a.doc else ''}" for n, a in operator.attrs.items())]
    if not operator.differentiable:
        lines += ["", "It has no gradient."]
    return "\n".join(lines)


def library_items() -> dict[str, str]:
    """The source of every block, optimizer and schedule of the library, with the comment above it."""
    from dslc.options import resource

    found: dict[str, str] = {}
    for path in sorted(resource("std").glob("*.dl")):
        for piece in path.read_text(encoding="utf-8").split("\n\n"):
            for word in ("block ", "optimizer "):
                at = piece.find(f"\n{word}") + 1 if not piece.startswith(word) else 0
                if piece.startswith(word) or at > 0:
                    head = piece[at + len(word) :]
                    name = head[: min(i for i in (head.find("["), head.find("(")) if i > 0)]
                    found[name] = piece.strip()
    return found


def _list(public: dict[str, Operator], library: dict[str, str], as_json: bool) -> None:
    if as_json:
        print_json({"operators": [described(o) for o in public.values()], "library": sorted(library)})
        return
    families: dict[str, list[Operator]] = {}
    for operator in public.values():
        families.setdefault(operator.family, []).append(operator)
    for family, operators in families.items():
        print(family)
        for operator in operators:
            first = inspect.cleandoc(operator.__doc__ or "").split("\n")[0]
            print(
                f"  {signature(operator):44s}  {first}" if len(signature(operator)) <= 44 else f"  {signature(operator)}\n{'':48s}{first}"
            )
    print("library (dslc ops NAME prints the source)")
    print(f"  {', '.join(sorted(library))}")


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "none"
    return list(value) if isinstance(value, tuple) else getattr(value, "value", value)
