"""Read the arrays that lie in an HDF5 file itself.

HDF5 can take a dataset's bytes from any file on the disk (external storage, external links, virtual
datasets), fill in bytes that were never written, and unpack without end. Keras writes none of these: they are
refused.
"""

import math
import mmap
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from vizsynth.core.claims import most_unpacked, shown
from vizsynth.models.io.stored import MOST, Stored, WeightsError

_h5py: Any = h5py  # its low-level modules have no types
_WHOLE, _UNPACKED = "save the weights again, as one file", "save the weights again, unpacked"
_HEAP = b"GCOL\1\0\0\0"
_GZIP, _SHUFFLE, _CHECKSUM = 1, 2, 3  # HDF5's numbers of its filters


class Reader:
    """Reads one file, and bounds the bytes and the objects that are read from it."""

    def __init__(self, file: h5py.File, size: int):
        """Take an open file and its size in bytes."""
        self.file = file
        self.left = size  # bytes of datasets that are not packed
        self.free = most_unpacked(size)  # bytes of datasets that are packed, unpacked
        self.seen: set[int] = set()

    def members(self, group: Any) -> Iterator[tuple[str, Any]]:
        """Yield the members of a group by name, each only once per file."""
        for name in group:
            yield name, self.member(group, name)

    def member(self, group: Any, name: str) -> Any:
        """Return a member that the group itself holds.

        Raises:
            WeightsError: the member is a link, was read before, or exceeds the number of members allowed.
        """
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise WeightsError(f"{_told(name)} is a link to another place: {_WHOLE}")
        found = group[name]
        if (address := _h5py.h5o.get_info(found.id).addr) in self.seen:
            raise WeightsError(f"{_told(name)} is found under two names: save the weights again")
        self.seen.add(address)
        if len(self.seen) > MOST:
            raise WeightsError(f"it holds more than {MOST:,} groups and arrays, more than any network")
        return found

    def arrays(self, group: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Stored]]:
        """Yield the arrays in a group and its subgroups, by their paths."""
        if depth > 50:
            raise WeightsError("its groups are more than 50 deep")
        for name, found in self.members(group):
            if isinstance(found, h5py.Group):
                yield from self.arrays(found, f"{path}{name}/", depth + 1)
            elif isinstance(found, h5py.Dataset):
                yield f"{path}{name}", self.stored(found)

    def stored(self, dataset: Any) -> Stored:
        """Return a dataset whose numbers all lie in this file.

        Raises:
            WeightsError: some of them do not.
        """
        name, identity = _told(dataset.name), dataset.id
        plan = identity.get_create_plist()
        if plan.get_layout() == h5py.h5d.VIRTUAL or (
            plan.get_layout() == h5py.h5d.CONTIGUOUS and plan.get_external_count()
        ):
            raise WeightsError(f"{name} keeps its numbers in another file: {_WHOLE}")
        shape, dtype = dataset.shape, dataset.dtype
        if shape is None or dtype.kind not in "fiub" or dtype.itemsize > 8:
            raise WeightsError(f"{name} holds {shown(dtype)}, not numbers of a network")
        nbytes = math.prod(shape) * identity.get_type().get_size()
        filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
        if not nbytes:
            return Stored(shape, dtype, lambda: np.zeros(shape, dtype))
        if filters:
            self._check_packed(dataset, filters, name)
        else:
            self.left -= nbytes
            if identity.get_storage_size() < nbytes or self.left < 0:
                raise WeightsError(
                    f"{name} must have {nbytes:,} bytes {shape}, and the file has fewer: copy it again"
                )
        return Stored(shape, dtype, lambda: dataset[()])

    def _check_packed(self, dataset: Any, filters: list[int], name: str) -> None:
        """Raise if a chunk is missing or unpacks to more bytes than its shape needs."""
        if not set(filters) <= {_GZIP, _SHUFFLE, _CHECKSUM} or len(set(filters)) < len(filters):
            raise WeightsError(f"{name} must be packed by gzip alone: {_UNPACKED}")
        count = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        nbytes = math.prod(dataset.chunks) * dataset.id.get_type().get_size()
        self.free -= count * nbytes
        if self.free < 0 or dataset.id.get_num_chunks() != count:
            packed = dataset.id.get_storage_size()
            raise WeightsError(
                f"{name} must have {count * nbytes:,} bytes, which its {packed:,} packed bytes cannot hold: "
                f"{_UNPACKED}"
            )
        for i in range(count):
            place = dataset.id.get_chunk_info(i)
            skipped, packed = dataset.id.read_direct_chunk(place.chunk_offset)
            if _GZIP not in filters or skipped & 1 << filters.index(_GZIP):
                continue
            if len(zlib.decompressobj().decompress(packed, nbytes + 5)) > nbytes + 4:  # and a checksum
                raise WeightsError(f"{name} unpacks to more bytes than its shape needs: copy it again")


def text(holder: Any, name: str) -> str | None:
    """Return an attribute that is one text, or None if the holder has no such attribute.

    Raises:
        WeightsError: the attribute is not one text.
    """
    if name not in holder.attrs:
        return None
    _check_heaps(holder.file.filename)
    identity = holder.attrs.get_id(name)
    # The type is checked before the read: HDF5 takes the bytes of other types for memory addresses.
    is_text = isinstance(identity.get_type(), _h5py.h5t.TypeStringID)
    value = holder.attrs[name] if is_text and identity.shape == () else None
    if isinstance(value, np.bytes_ | bytes):
        return value.decode()
    if isinstance(value, str):
        return value
    raise WeightsError(f"its {name} must be a text")


def _check_heaps(path: str) -> None:
    """Raise if a heap, where HDF5 keeps texts, has no end: HDF5 would search for it for ever.

    A heap is a mark, its size, and objects. An object is a number, the length of its bytes, and the bytes;
    number 0 is the free space, whose length counts the header as well.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = data.find(_HEAP)
        while place >= 0:
            at = place + 16
            end = min(place + int.from_bytes(data[place + 8 : at], "little"), len(data))
            while end - at >= 16:
                number, length = struct.unpack_from("<H6xQ", data, at)
                step = 16 + -(-length // 8) * 8 if number else length
                if step < 16 or at + step > end:
                    raise WeightsError("one of its heaps has no end: copy it again")
                at += step
            place = data.find(_HEAP, place + 1)


def _told(name: Any) -> str:
    return repr(shown(str(name).strip("/")))
