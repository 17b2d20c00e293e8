"""Read files with or without gzip."""

import gzip
import io
import zlib
from pathlib import Path

from vizsynth.core.claims import file_size, most_unpacked, stand_in
from vizsynth.datasets.errors import AGAIN, DataError


def read_unpacked(path: Path) -> bytes:
    """Return a file's bytes, unpacked if it is packed.

    Raises:
        DataError: the file is missing, damaged or cut off, or unpacks to more bytes than images can.

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
                    f"{path} unpacks from {size:,} bytes to more than {most:,}, more than images can: {AGAIN}"
                )
        return data
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{path} is damaged or cut off: {AGAIN}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
