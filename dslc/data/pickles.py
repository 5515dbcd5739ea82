"""Reads pickles without an unpickler: only dictionaries, lists, tuples, bytes, text, numbers and NumPy arrays of numbers.

`pickle` runs what a file names, so it is not used. `pickletools.genops` only splits the file into opcodes; the few that plain data need
are carried out here, arrays are made of checked bytes, and every other opcode and name is refused. Nothing is called by a file.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dslc.data.description import Array

_MOST_OPCODES = 5_000_000
_ARRAY_MAKERS = {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}
_KINDS = "biuf"


class _Mark:
    """Where a group of values on the stack begins."""


@dataclass(slots=True)
class _Name:
    """A global that the file refers to."""

    module: str
    name: str


@dataclass(slots=True)
class _Type:
    """A NumPy dtype, before its state (the byte order) is known."""

    code: str
    order: str = "|"


@dataclass(slots=True)
class _Shell:
    """An array before its state is known."""

    value: Array | None = None


@dataclass(slots=True)
class _Machine:
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def group(self) -> list[Any]:
        """The values above the last mark, which goes too."""
        values: list[Any] = []
        while not isinstance(value := self.stack.pop(), _Mark):
            values.append(value)
        return values[::-1]


def read_pickle(data: bytes) -> Any:
    """The value of a pickle of protocol 0 to 5. Raises ValueError for whatever is not plain data."""
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count > _MOST_OPCODES:
                raise ValueError("it is too long")
            if opcode.name == "STOP":
                return _finished(machine.stack.pop())
            _carry_out(machine, opcode.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError, UnicodeDecodeError, OverflowError, RecursionError) as error:
        raise ValueError(f"it is damaged ({type(error).__name__})") from error
    raise ValueError("it does not end")


_IGNORED = ("PROTO", "FRAME")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TEXTS = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE")
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_OLD_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING")  # Python 2's, which are bytes


def _carry_out(machine: _Machine, name: str, argument: Any) -> None:
    stack, memo = machine.stack, machine.memo
    match name:
        case _ if name in _IGNORED:
            pass
        case _ if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        case _ if name in _TEXTS or name in _NUMBERS:
            stack.append(argument)
        case _ if name in _OLD_TEXTS:
            stack.append(argument.encode("latin-1") if isinstance(argument, str) else argument)
        case "MARK":
            stack.append(_Mark())
        case "EMPTY_DICT":
            stack.append({})
        case "EMPTY_LIST":
            stack.append([])
        case "EMPTY_TUPLE":
            stack.append(())
        case "LIST":
            stack.append(machine.group())
        case "TUPLE":
            stack.append(tuple(machine.group()))
        case "DICT":
            values = machine.group()
            stack.append(dict(zip(values[::2], values[1::2], strict=True)))
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            size = int(name[-1])
            taken = tuple(stack[-size:])
            del stack[-size:]
            stack.append(taken)
        case "APPEND":
            value = stack.pop()
            stack[-1].append(value)
        case "APPENDS":
            values = machine.group()
            stack[-1].extend(values)
        case "SETITEM":
            value, key = stack.pop(), stack.pop()
            _dictionary(stack)[key] = value
        case "SETITEMS":
            values = machine.group()
            _dictionary(stack).update(zip(values[::2], values[1::2], strict=True))
        case "PUT" | "BINPUT" | "LONG_BINPUT":
            memo[argument] = stack[-1]
        case "MEMOIZE":
            memo[len(memo)] = stack[-1]
        case "GET" | "BINGET" | "LONG_BINGET":
            stack.append(memo[argument])
        case "GLOBAL":
            module, _, attribute = argument.partition(" ")
            stack.append(_Name(module, attribute))
        case "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_Name(module, attribute))
        case "REDUCE":
            arguments, what = stack.pop(), stack.pop()
            stack.append(_made(what, arguments))
        case "BUILD":
            state = stack.pop()
            _build(stack[-1], state)
        case _:
            raise ValueError(f"it has the opcode {name}, which plain data do not need")


def _dictionary(stack: list[Any]) -> dict[Any, Any]:
    if not isinstance(stack[-1], dict):
        raise ValueError("it sets items of what is no dictionary")
    return stack[-1]


def _made(what: Any, arguments: Any) -> Any:
    """What a call in the file stands for; nothing is called."""
    if isinstance(what, _Name) and isinstance(arguments, tuple):
        if (what.module, what.name) in _ARRAY_MAKERS:
            return _Shell()
        if (what.module, what.name) == ("numpy", "dtype"):
            code = arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]
            if not isinstance(code, str) or len(code) != 2 or code[0] not in _KINDS or code[1] not in "1248":
                raise ValueError("it has an array of something other than numbers")
            return _Type(code)
        if what.module in ("__builtin__", "builtins") and what.name == "bytes" and arguments == ():
            return b""  # how protocol 2 spells no bytes, and here others
        if (what.module, what.name) == ("_codecs", "encode"):
            text, encoding = arguments
            if encoding == "latin1" and isinstance(text, str):
                return text.encode("latin-1")
        raise ValueError(f"it names {str(what.module)[:40]}.{str(what.name)[:40]}, which is not plain data")
    raise ValueError("it calls what is not plain data")


def _build(target: Any, state: Any) -> None:
    if isinstance(target, _Type):
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "="):
            raise ValueError("it has an unknown byte order")
        target.order = order
    elif isinstance(target, _Shell):
        _, shape, kind, fortran, data = state
        if not isinstance(kind, _Type) or not isinstance(data, bytes) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError("it has a damaged array")
        # Made of the bytes that are there: the shape only divides them.
        target.value = np.frombuffer(data, kind.order + kind.code).reshape(shape, order="F" if fortran else "C")
    else:
        raise ValueError("it sets the state of what is no array")


def _finished(value: Any) -> Any:
    """The value, an array or a dictionary of values, with arrays in the place of their shells."""
    return {key: _unwrapped(item) for key, item in value.items()} if isinstance(value, dict) else _unwrapped(value)


def _unwrapped(value: Any) -> Any:
    if isinstance(value, _Mark | _Name | _Type):
        raise ValueError("it is not plain data")
    if not isinstance(value, _Shell):
        return value
    if value.value is None:
        raise ValueError("it has an array without contents")
    return value.value
