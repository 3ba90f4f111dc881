"""Look through the opcodes of a pickle, before any of them runs, for what would harm the reader.

Python's unpickler trusts a pickle's numbers and nesting: one instruction makes it reserve room for
two thousand million objects, and the hash of a deeply nested tuple, taken when it becomes a key,
overflows the stack and ends the process. Both are seen here in the opcodes alone.
"""

import io
import pickletools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tfn_platform.errors import DataError

MAX_DEPTH = 200
"""Containers inside one another, at most."""

_OPCODES = {opcode.code.encode("latin1"): opcode for opcode in pickletools.opcodes}
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_GETS = ("GET", "BINGET", "LONG_BINGET")
_CHANGES = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
"""Opcodes that put what they take into the object below it."""


@dataclass(frozen=True)
class _Item:
    """What is known of an object on the unpickler's stack."""

    depth: int = 0
    """Containers inside one another, itself included."""
    is_tuple: bool = False


def check_opcodes(data: bytes) -> None:
    """Play a pickle through without making any object.

    Lists that are put into others later, by their number in the memo, are counted as they were
    when they got it: whoever walks through them must still be ready for deep ones.

    Raises:
        DataError: it nests more than `MAX_DEPTH` containers, numbers objects that are not there,
            or uses a tuple as a key or in a set.
        ValueError, IndexError, KeyError or another: it is damaged.
    """
    stack: list[_Item] = []
    marks: list[int] = []
    memo: dict[int, _Item] = {}
    for count, (opcode, argument) in enumerate(_instructions(data)):
        if opcode.name == "MARK":
            marks.append(len(stack))
        elif opcode.name in _PUTS:
            if not 0 <= argument <= count:
                raise DataError(
                    f"the pickle numbers an object {argument} after {count} instructions"
                )
            memo[argument] = stack[-1]
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif opcode.name in _GETS:
            stack.append(memo[argument])
        elif opcode.name == "DUP":
            stack.append(stack[-1])
        elif opcode.name == "POP" and marks and marks[-1] == len(stack):
            marks.pop()
        else:
            taken = _take(opcode, stack, marks)
            _check_keys(opcode.name, taken)
            stack += [_made(opcode.name, kind, taken) for kind in opcode.stack_after]


def _instructions(data: bytes) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
    """Opcodes and their arguments up to the first STOP.

    As `pickletools.genops`, which however takes the text of Python 2 for ASCII.
    """
    file = io.BytesIO(data)
    while code := file.read(1):
        if code not in _OPCODES:
            raise ValueError(f"there is no opcode {code!r}")
        opcode = _OPCODES[code]
        if opcode.name == "STRING":
            yield opcode, file.readline()
        else:
            yield opcode, opcode.arg.reader(file) if opcode.arg is not None else None
        if opcode.name == "STOP":
            return
    raise EOFError("it ends before its STOP")


def _take(opcode: pickletools.OpcodeInfo, stack: list[_Item], marks: list[int]) -> Sequence[_Item]:
    """What an opcode takes off the stack, the lowest first."""
    num_below = len(opcode.stack_before)
    begin = len(stack)
    if pickletools.markobject in opcode.stack_before:
        num_below = opcode.stack_before.index(pickletools.markobject)
        begin = marks.pop()
    begin -= num_below
    if begin < (marks[-1] if marks else 0):
        raise IndexError(f"{opcode.name} takes more than there is")
    taken = stack[begin:]
    del stack[begin:]
    return taken


def _check_keys(name: str, taken: Sequence[_Item]) -> None:
    hashed: Sequence[_Item] = ()
    if name in ("SETITEM", "SETITEMS"):
        hashed = taken[1::2]
    elif name == "DICT":
        hashed = taken[::2]
    elif name in ("ADDITEMS", "FROZENSET"):
        hashed = taken
    if any(item.is_tuple for item in hashed):
        raise DataError("keys must be text, bytes or numbers, got a tuple")


def _made(name: str, kind: pickletools.StackObject, taken: Sequence[_Item]) -> _Item:
    is_container = bool(taken) or kind in (
        pickletools.pylist,
        pickletools.pydict,
        pickletools.pyset,
        pickletools.pytuple,
        pickletools.pyfrozenset,
    )
    if not is_container:
        return _Item()
    if name in _CHANGES:
        inside = 1 + max((item.depth for item in taken[1:]), default=0)
        depth = max(taken[0].depth, inside)
    else:
        depth = 1 + max((item.depth for item in taken), default=0)
    if depth > MAX_DEPTH:
        raise DataError(f"the pickle is nested too deeply: more than {MAX_DEPTH} containers")
    return _Item(depth, is_tuple=kind is pickletools.pytuple)
