"""Run pickles on a machine that knows only arrays, numbers, texts and their containers.

A pickle is a program. Python's own unpickler calls any function that the program names, keeps a memo of any
size, and can be made to hash a tuple so deep that the process crashes. This machine runs only the
instructions below, and calls only the stand-ins for arrays. An instruction allocates a constant number of
bytes, or bytes that are deducted from the length of the file.
"""

import io
import pickle
import pickletools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np

from vizsynth.core.claims import shown

MOST_STEPS = 1 << 20  # instructions; CIFAR-10's batches have fifty thousand, networks fewer
DEEPEST = 100  # dictionaries in dictionaries
_MARK = object()


class Refused(pickle.UnpicklingError):
    """A pickle asks for anything but arrays."""


class Odd(pickle.UnpicklingError):
    """A pickle asks for more arrays than it holds, or for arrays that cannot be read."""


class Named:
    """Stands for a function that a pickle may name and call."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]):
        self.function = function


class _Dtype:
    """Stands for a pickled dtype, whose flags NumPy would not check."""

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


class _Array:
    """Stands for a pickled array: a view of the bytes in the pickle."""

    __slots__ = ("array",)

    def __init__(self, *prototype: Any):
        self.array = np.zeros(0)

    def set_state(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray):
            raise Refused("it asks for an array that does not hold numbers")
        flat = np.frombuffer(data, dtype.dtype)
        self.array = flat.reshape(shape, order="F" if fortran else "C")


def _from_buffer(data: Any, dtype: Any, shape: Any, order: str, *_: Any) -> _Array:
    array = _Array()
    array.set_state((1, shape, dtype, {"C": False, "F": True}[order], data))
    return array


class Machine:
    """Runs the instructions of a pickle on a stack and a memo, within bounds."""

    def __init__(
        self,
        known: Mapping[tuple[str, str], Callable[..., Any] | Any],
        *,
        persistent: Callable[[Any], Any] | None = None,
        refused: Callable[[str, str], Exception] | None = None,
        length: int,
    ):
        """Set the names and the bounds.

        Args:
            known: the stand-in for each name; functions are wrapped in `Named`.
            persistent: returns an object that the file keeps outside the pickle, by its key.
            refused: makes the error for a name that is not known.
            length: of the pickle in bytes: the most that it may copy.
        """
        self.known = {
            **known,
            ("_codecs", "encode"): Named(self._encoded),  # bytes of old protocols
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
        """Return the object of one pickle, and leave the file at the pickle's end."""
        stack: list[Any] = []
        memo: dict[int, Any] = {}

        def popped() -> list[Any]:
            """Pop the last mark and all above it; return the latter."""
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
                case name if name in _CONSTANTS:
                    stack.append(_CONSTANTS[name]())
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
                case "APPEND" | "APPENDS":
                    above = popped() if operation.name == "APPENDS" else [stack.pop()]
                    if not isinstance(stack[-1], list):
                        raise TypeError("no list")
                    stack[-1].extend(above)
                case "SETITEM" | "SETITEMS":
                    above = popped() if operation.name == "SETITEMS" else [stack.pop(-2), stack.pop()]
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
                        raise Refused("it calls an object that it has made")
                    stack.append(function.function(*arguments))
                case "BUILD":
                    state = stack.pop()
                    if isinstance(stack[-1], _Dtype | _Array):
                        stack[-1].set_state(state)
                    elif not isinstance(stack[-1], dict):  # attributes of a dictionary hold no weights
                        raise Refused("it changes an object that it has not made")
                case "BINPERSID" if self.persistent is not None:
                    stack.append(self.persistent(stack.pop()))
                case "STRING" | "BINSTRING" | "SHORT_BINSTRING":
                    stack.append(argument.encode("latin1"))  # a text or bytes of Python 2
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
_CONSTANTS: dict[str, Callable[[], Any]] = {
    **{"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False},
    **{"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple},
}


def _fill(value: Any, items: list[Any]) -> None:
    if not isinstance(value, dict) or len(items) % 2:
        raise TypeError("no dictionary")
    for key, item in zip(items[::2], items[1::2], strict=True):
        value[_key(key)] = item


def _key(key: Any) -> Any:
    """Return a key that is a text or a number: other hashes may take long or crash."""
    if isinstance(key, str | bytes) or key is None or (isinstance(key, int | float) and abs(key) < 1 << 63):
        return key
    raise Odd("has a dictionary whose keys are not names")


def as_text(code: Any) -> str:
    """Return a text, which Python 2 pickled as bytes."""
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
    ("numpy", "ndarray"): "ndarray",  # an argument of _reconstruct
    ("numpy", "dtype"): Named(_Dtype),
}


def _arrays(data: bytes) -> Any:
    return Machine(_NUMPY, length=len(data)).run(io.BytesIO(data))


def arrays_by_name(data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays in a pickle's dictionaries, by their path.

    Raises:
        Refused: the pickle asks for anything but arrays, numbers, texts and containers.
        Odd: the pickle holds itself, or shares its parts so often that it cannot be walked.
        Exception: any other, if the pickle is damaged.

    >>> arrays_by_name(pickle.dumps({"conv": {"bias": np.zeros(2), "steps": 3}}))
    {'conv/bias': array([0., 0.])}
    """
    return {name: leaf.array for name, leaf in walk(_arrays(data)) if isinstance(leaf, _Array)}


def unpickle(data: bytes) -> dict[str, Any]:
    """Return a pickled dictionary of arrays, numbers, texts and lists, of Python 2 or 3; its keys become
    texts.

    Raises:
        Refused: the pickle asks for anything else.
        Exception: any other, if the pickle is damaged.

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
        Odd: a dictionary holds itself, or shares its parts into more leaves than a pickle may have
            instructions.

    >>> list(walk({"a": {"b": 1}, "c": 2}))
    [('a/b', 1), ('c', 2)]
    """
    if _count(tree, {}, 0) > MOST_STEPS:
        raise Odd("shares its parts so often that they cannot be walked")
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
    """Return the number of nodes in a full walk; the count of a shared part is cached."""
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
