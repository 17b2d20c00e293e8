"""Files that may be packed by gzip."""

import gzip
import zlib
from pathlib import Path

from vizsynth.datasets.errors import AGAIN, DataError


def read_unpacked(path: Path) -> bytes:
    """Return a file's bytes, unpacked where it is packed.

    Raises:
        DataError: no such file; one that is damaged or cut off.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "packed"
    ...     _ = path.write_bytes(gzip.compress(b"inside"))
    ...     read_unpacked(path)
    b'inside'
    """
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{path} is damaged or cut off: {AGAIN}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
