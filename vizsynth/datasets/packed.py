"""Files that may be packed by gzip."""

import gzip
import io
import zlib
from pathlib import Path

from vizsynth.core.claims import file_size, most_unpacked, stand_in
from vizsynth.datasets.errors import AGAIN, DataError


def read_unpacked(path: Path) -> bytes:
    """Return a file's bytes, unpacked where it is packed.

    Raises:
        DataError: no such file; one that is damaged or cut off, or that unpacks to more than images do.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "packed"
    ...     _ = path.write_bytes(gzip.compress(b"inside"))
    ...     read_unpacked(path)
    b'inside'
    """
    try:
        most = most_unpacked(size := file_size(path))
        if (instead := stand_in(path)) is not None:
            raise DataError(f"{path} {instead}")
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(most + 1)
            if len(data) > most:
                raise DataError(
                    f"{path} unpacks from {size:,} bytes to more than {most:,}, as no images do: {AGAIN}"
                )
        return data
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{path} is damaged or cut off: {AGAIN}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
