"""Pickles, read by a machine that knows arrays, numbers, texts and their containers, and nothing else.

A pickle is a program. Python's own reader of it calls whatever the program names, keeps as large a memo as it
asks for, and may be led to hash a tuple so deep that the process ends. Here each of its instructions is one
of those below; what they make costs no more than the instruction, or than what the file has paid for by its
own length. Nothing is called but what stands for arrays.
"""

import io
import pickle
import pickletools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np

from vizsynth.core.claims import shown

MOST_STEPS = 1 << 20  # instructions; CIFAR-10's batches have fifty thousand, networks less
DEEPEST = 100  # dictionaries in dictionaries
_MARK = object()


class Refused(pickle.UnpicklingError):
    """A pickle asks for something else than arrays."""


class Odd(pickle.UnpicklingError):
    """A pickle asks for arrays, and for more than there is of them, or for none that can be had here."""


class Named:
    """Stands for a function that a pickle may name; it is only ever called."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]):
        self.function = function


class Attributed:
    """What a pickle may give attributes to."""

    __slots__ = ()

    def set_state(self, state: Any) -> None:
        """Take the attributes."""
        raise NotImplementedError


class _Dtype(Attributed):
    """Stands for a pickled dtype. NumPy's own would take its flags on trust."""

    __slots__ = ("code", "order")

    def __init__(self, code: str | bytes, *flags: Any):
        self.code = as_text(code)
        self.order = "="

    def set_state(self, state: tuple[Any, ...]) -> None:
        self.order = as_text(state[1])

    @property
    def dtype(self) -> np.dtype:
        if not re.fullmatch(r"[fiub][1248]", self.code):
            raise Refused(f"it asks for arrays of {shown(self.code)}")
        return np.dtype(self.code).newbyteorder(cast(Any, self.order))


class _Array(Attributed):
    """Stands for a pickled array. It is a view of the bytes in the pickle."""

    __slots__ = ("array",)

    def __init__(self, *prototype: Any):
        self.array = np.zeros(0)

    def set_state(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray):
            raise Refused("it asks for an array of something else than numbers")
        flat = np.frombuffer(data, dtype.dtype)
        self.array = flat.reshape(shape, order="F" if fortran else "C")


def _from_buffer(data: Any, dtype: Any, shape: Any, order: str, *_: Any) -> _Array:
    array = _Array()
    array.set_state((1, shape, dtype, {"C": False, "F": True}[order], data))
    return array


class Machine:
    """What a pickle's instructions work on: a stack, a memo, and what has been spent."""

    def __init__(
        self,
        known: Mapping[tuple[str, str], Callable[..., Any] | Any],
        *,
        persistent: Callable[[Any], Any] | None = None,
        refused: Callable[[str, str], Exception] | None = None,
        length: int,
    ):
        """Take what may be named.

        Args:
            known: what stands for each name; functions are wrapped in `Named`.
            persistent: gives what the file keeps outside the pickle, by its key.
            refused: makes the error for what is not known.
            length: of the pickle in bytes, as which much may be copied.
        """
        self.known = {
            **known,
            ("_codecs", "encode"): Named(self._encoded),  # how old protocols write bytes
            ("collections", "OrderedDict"): Named(self._dict),
        }
        self.persistent = persistent
        self.refused = refused
        self.left = length
        self.steps = 0

    def _spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise Odd("copies more than it holds")

    def _encoded(self, text: str, encoding: str) -> bytes:
        self._spend(len(text))
        return text.encode("latin1")

    def _dict(self, *pairs: Any) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for pair in pairs[0] if pairs else ():
            self._spend(1)
            key, value = pair
            made[_key(key)] = value
        return made

    def run(self, file: io.BytesIO) -> Any:
        """Return what one pickle makes; the file is read up to its end."""
        stack: list[Any] = []
        memo: dict[int, Any] = {}

        def popped() -> list[Any]:
            """Return what lies above the last mark, and take both away."""
            begin = next((i for i in range(len(stack) - 1, -1, -1) if stack[i] is _MARK), None)
            if begin is None:
                raise ValueError("no mark")
            above = stack[begin + 1 :]
            del stack[begin:]
            return above

        argument: Any
        for operation, argument, _ in pickletools.genops(file):
            self.steps += 1
            if self.steps > MOST_STEPS:
                raise Odd(f"has more than {MOST_STEPS:,} instructions")
            match operation.name:
                case name if name in _PLAIN:
                    stack.append(argument)
                case "PUT" | "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "PROTO" | "FRAME":
                    pass
                case "STOP":
                    return stack.pop()
                case "MARK":
                    stack.append(_MARK)
                case "NONE":
                    stack.append(None)
                case "NEWTRUE" | "NEWFALSE":
                    stack.append(operation.name == "NEWTRUE")
                case "EMPTY_DICT":
                    stack.append({})
                case "EMPTY_LIST":
                    stack.append([])
                case "EMPTY_TUPLE":
                    stack.append(())
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    count = int(operation.name[-1])
                    above = tuple(stack[-count:])
                    if len(above) < count or _MARK in above:
                        raise ValueError("a tuple of nothing")
                    del stack[-count:]
                    stack.append(above)
                case "TUPLE":
                    stack.append(tuple(popped()))
                case "LIST":
                    stack.append(popped())
                case "DICT":
                    above = popped()
                    stack.append({})
                    _fill(stack[-1], above)
                case "APPEND":
                    value = stack.pop()
                    _list(stack[-1]).append(value)
                case "APPENDS":
                    above = popped()
                    _list(stack[-1]).extend(above)
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    _fill(stack[-1], [key, value])
                case "SETITEMS":
                    above = popped()
                    _fill(stack[-1], above)
                case "POP":
                    stack.pop()
                case "POP_MARK":
                    popped()
                case "DUP":
                    stack.append(stack[-1])
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "GET" | "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "GLOBAL":
                    module, _, name = argument.partition(" ")
                    stack.append(self._find(module, name))
                case "STACK_GLOBAL":
                    name, module = stack.pop(), stack.pop()
                    stack.append(self._find(as_text(module), as_text(name)))
                case "REDUCE" | "NEWOBJ":
                    arguments, function = stack.pop(), stack.pop()
                    if not isinstance(function, Named) or type(arguments) is not tuple:
                        raise Refused("it calls what it has made itself")
                    stack.append(function.function(*arguments))
                case "BUILD":
                    state = stack.pop()
                    if isinstance(stack[-1], Attributed):
                        stack[-1].set_state(state)
                    elif not isinstance(stack[-1], dict):  # whose attributes hold no weights
                        raise Refused("it changes what it has not made")
                case "BINPERSID" if self.persistent is not None:
                    stack.append(self.persistent(stack.pop()))
                case "STRING" | "BINSTRING" | "SHORT_BINSTRING":
                    stack.append(argument.encode("latin1"))  # Python 2's texts may be either
                case name:
                    raise Refused(f"it uses the instruction {name}")
        raise EOFError("no end")

    def _find(self, module: str, name: str) -> Any:
        found = self.known.get((module, name))
        if found is None:
            if self.refused is not None:
                raise self.refused(module, name)
            raise Refused(f"it asks for {shown(f'{module}.{name}')}")
        return found


# fmt: off
_PLAIN = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
))
# fmt: on


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("no list")
    return value


def _fill(value: Any, items: list[Any]) -> None:
    if not isinstance(value, dict) or len(items) % 2:
        raise TypeError("no dictionary")
    for key, item in zip(items[::2], items[1::2], strict=True):
        value[_key(key)] = item


def _key(key: Any) -> Any:
    """Return what may be a key: texts and numbers, whose hashes are soon had."""
    if isinstance(key, str | bytes) or key is None or (isinstance(key, int | float) and abs(key) < 1 << 63):
        return key
    raise Odd("has a dictionary whose keys are no names")


def as_text(code: Any) -> str:
    """Return a text; Python 2 pickled it as bytes."""
    if isinstance(code, bytes):
        return code.decode("latin1")
    if isinstance(code, str):
        return code
    raise TypeError("no text")


_NUMPY = {
    ("numpy.core.multiarray", "_reconstruct"): Named(_Array),
    ("numpy._core.multiarray", "_reconstruct"): Named(_Array),
    ("numpy.core.numeric", "_frombuffer"): Named(_from_buffer),
    ("numpy._core.numeric", "_frombuffer"): Named(_from_buffer),
    ("numpy", "ndarray"): "ndarray",  # only ever handed to _reconstruct
    ("numpy", "dtype"): Named(_Dtype),
}


def _arrays(data: bytes) -> Any:
    return Machine(_NUMPY, length=len(data)).run(io.BytesIO(data))


def arrays_by_name(data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays in a pickle's dictionaries, by their path.

    Raises:
        Refused: it asks for something else than arrays, numbers, texts and containers.
        Odd: it holds itself, or its parts so often that nobody could go through them.
        Exception: a damaged pickle raises whatever its bytes happen to say.

    >>> arrays_by_name(pickle.dumps({"conv": {"bias": np.zeros(2), "steps": 3}}))
    {'conv/bias': array([0., 0.])}
    """
    return {name: leaf.array for name, leaf in walk(_arrays(data)) if isinstance(leaf, _Array)}


def unpickle(data: bytes) -> dict[str, Any]:
    """Return what a pickled dictionary holds: arrays, numbers, texts, lists, also if Python 2 wrote it.

    Its keys are texts.

    Raises:
        Refused: it asks for something else.
        Exception: a damaged pickle raises whatever its bytes happen to say.

    >>> unpickle(pickle.dumps({b"labels": [1, 2], b"data": np.arange(3)}))
    {'labels': [1, 2], 'data': array([0, 1, 2])}
    """
    found = _arrays(data)
    if not isinstance(found, dict):
        raise Odd("holds no dictionary")
    return {
        key if isinstance(key, str) else _path("", key): leaf.array if isinstance(leaf, _Array) else leaf
        for key, leaf in found.items()
    }


def walk(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of dictionaries in dictionaries, and the path of each.

    Raises:
        Odd: a dictionary that holds itself, or more leaves, by sharing them, than a pickle can have
            instructions.

    >>> list(walk({"a": {"b": 1}, "c": 2}))
    [('a/b', 1), ('c', 2)]
    """
    if _count(tree, {}, 0) > MOST_STEPS:
        raise Odd("shares its parts so often that they cannot be gone through")
    yield from _leaves(tree, "")


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, dict):
        yield path, tree
        return
    for name, branch in tree.items():
        yield from _leaves(branch, _path(path, name))


def _path(path: str, name: Any) -> str:
    text = as_text(name) if isinstance(name, bytes) else str(name)
    return f"{path}/{text}" if path else text


def _count(tree: Any, known: dict[int, int | None], depth: int) -> int:
    """Return how many nodes whoever goes through a tree will meet; each part is counted once."""
    if not isinstance(tree, dict):
        return 1
    if depth > DEEPEST:
        raise Odd(f"has dictionaries more than {DEEPEST} deep")
    if id(tree) in known:
        count = known[id(tree)]
        if count is None:
            raise Odd("has a dictionary that holds itself")
        return count
    known[id(tree)] = None
    count = 1 + sum(_count(branch, known, depth + 1) for branch in tree.values())
    known[id(tree)] = count
    return count
