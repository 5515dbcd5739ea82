"""The options of a `data` statement beside `augment`: static values that the reader of the data judges when training begins."""

from __future__ import annotations

from dslc.frontend import syntax
from dslc.frontend.scope import Context, Frame
from dslc.frontend.values import ListValue, Poison, describe
from dslc.ir.recipe import DATA_OPTIONS, DataOption


def read_option(context: Context, option: syntax.Named, frame: Frame) -> tuple[str, DataOption] | None:
    """Name and value; None after an error: DL0103 for an unknown name, DL0305 for what is no number, text, truth value or list of texts."""
    name = option.name.text
    if name not in DATA_OPTIONS:
        known = ", ".join(f"`{n}`" for n in ("augment", *DATA_OPTIONS))
        context.reporter.error("DL0103", f"data have no option `{name}`", option.name.span, hint=f"the options are {known}")
        return None
    value = context.evaluate(option.value, frame)
    if isinstance(value, Poison):
        return None
    if isinstance(value, ListValue):
        texts = tuple(item for item in value.items if isinstance(item, str))
        if len(texts) == len(value.items):
            return name, texts
    elif isinstance(value, bool | int | float | str):
        return name, value
    context.reporter.error(
        "DL0305", f"the option `{name}` is a number, text, true, false or a list of texts, not {describe(value)}", option.value.span
    )
    return None
