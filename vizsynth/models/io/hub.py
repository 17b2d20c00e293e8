"""Download weights with huggingface_hub's own client, cache and settings (`HF_HUB_OFFLINE`)."""

from pathlib import Path
from typing import Any

from vizsynth.core.claims import parse_json
from vizsynth.models.io.weights import WeightsError

PREFIX = "hf:"
FILES = ("model.safetensors", "pytorch_model.bin")  # the safe one first


def download(name: str) -> tuple[Path, dict[str, Any]]:
    """Return the weights file of a hub name and its `config.json`, from the cache if they are in it.

    Args:
        name: `hf:OWNER/NAME`, or `hf:OWNER/NAME@REVISION`.

    Raises:
        WeightsError: there is no such repository or file, or neither a connection nor a cached file.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError:
        raise WeightsError(f"{name} needs huggingface_hub: pip install 'vizsynth[hub]'") from None
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    unreached: list[str] = []

    def fetch(file: str) -> Path | None:
        try:
            return Path(hf_hub_download(repository, file, revision=revision or None))
        except LocalEntryNotFoundError:  # not cached, and the hub cannot be reached
            unreached.append(file)
        except EntryNotFoundError:
            pass
        return None

    try:
        path = next((path for path in map(fetch, FILES) if path is not None), None)
        config = fetch("config.json") if path is not None else None
    except GatedRepoError:
        raise WeightsError(f"{name} is gated: get access on the hub, then `hf auth login`") from None
    except RepositoryNotFoundError:
        raise WeightsError(f"the hub has no repository {repository!r}: check hf:OWNER/NAME") from None
    except RevisionNotFoundError:
        raise WeightsError(f"{repository!r} has no revision {revision!r} on the hub") from None
    except HFValidationError as error:
        raise WeightsError(f"{name} is not hf:OWNER/NAME ({error})") from None
    except HfHubHTTPError as error:
        raise WeightsError(f"the hub does not serve {name} ({str(error).splitlines()[0]})") from None
    except OSError as error:
        raise WeightsError(f"cannot cache {name}: {error.strerror or error}") from None
    if path is not None:
        return path, {} if config is None else _said(config, name)
    if unreached:
        raise WeightsError(
            f"{name} is not in the cache, and the hub cannot be reached (or HF_HUB_OFFLINE is set): "
            "connect once, or give the path of a downloaded file"
        )
    raise WeightsError(f"{name} holds neither {' nor '.join(FILES)}: give the path of a weights file")


def _said(config: Path, name: str) -> dict[str, Any]:
    """Parse a repository's `config.json`."""
    try:
        said = parse_json(config.read_bytes())
        if not isinstance(said, dict):
            raise ValueError("it must be an object")
    except ValueError as error:
        raise WeightsError(f"{name}: its config.json is damaged ({error})") from None
    return said
