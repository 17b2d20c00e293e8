"""The hub through its own client, against a small hub on the loopback interface.

The client reads its endpoint when it is imported: each test runs it in a process of its own.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save
from test_load import as_torchvision

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {
    "architecture": "squeezenet1_1",
    "num_classes": 1000,
    "pretrained_cfg": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "input_size": [3, 160, 192],
        "license": "apache-2.0",
    },
}


class Hub(NamedTuple):
    endpoint: str
    asked: list[str]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    weights = save(as_torchvision())
    return {
        "timm/squeezenet1_1.test/model.safetensors": weights,
        "timm/squeezenet1_1.test/config.json": json.dumps(CONFIG).encode(),
        "owner/bare/model.safetensors": weights,
        "owner/empty/README.md": b"nothing here",
    }


@pytest.fixture
def hub(files: dict[str, bytes]) -> Iterator[Hub]:
    asked: list[str] = []
    repositories = {"/".join(name.split("/")[:2]) for name in files}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            asked.append(f"{self.command} {self.path}")
            repository, _, rest = self.path.strip("/").partition("/resolve/")
            revision, _, file = rest.partition("/")
            if repository not in repositories:
                self.answer(404, X_Error_Code="RepoNotFound")
            elif revision not in ("main", "v1", COMMIT):
                self.answer(404, X_Error_Code="RevisionNotFound")
            elif f"{repository}/{file}" not in files:
                self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            else:
                body = files[f"{repository}/{file}"]
                tag = f'"{hashlib.sha256(body).hexdigest()}"'
                self.answer(200, body, ETag=tag, X_Repo_Commit=COMMIT, Accept_Ranges="none")

        do_GET = do_HEAD

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Hub(f"http://127.0.0.1:{server.server_port}", asked)
    server.shutdown()
    thread.join()
    server.server_close()


REPORT = """
import json, sys
from vizsynth.models import load
def tell(call):
    try:
        record = (net := load(*call)).record
    except ValueError as error:
        return {"error": str(error), "kind": type(error).__name__}
    return {"bias": net.conv1.bias[:4].tolist(), "mean": record.mean, "license": record.license,
            "size": record.input_size, "origin": record.origin, "network": record.network}
print(json.dumps([tell(call) for call in json.loads(sys.argv[1])]))
"""


def ask(home: Path, endpoint: str, *calls: tuple[str, ...], offline: bool = False) -> list[dict]:
    """Make some calls of `load`, all in one process."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "JAX_PLATFORMS": "cpu",
    }
    if offline:
        environment["HF_HUB_OFFLINE"] = "1"
    command = [sys.executable, "-c", REPORT, json.dumps(calls)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_weights_come_from_the_hub_and_then_from_the_cache(hub: Hub, tmp_path: Path) -> None:
    name = "hf:timm/squeezenet1_1.test"
    (first,) = ask(tmp_path, hub.endpoint, ("squeezenet1_1", name))
    np.testing.assert_array_equal(first["bias"], as_torchvision()["features.0.bias"][:4])
    assert first["mean"] == [0.5, 0.5, 0.5] and first["size"] == [160, 192]  # as config.json says
    assert first["license"] == "apache-2.0" and first["origin"] == name
    assert any("model.safetensors" in line for line in hub.asked)
    hub.asked.clear()
    again, none = ask(tmp_path, hub.endpoint, (name,), ("squeezenet1_1", "hf:owner/bare"), offline=True)
    assert again == first  # and config.json names the network
    assert "not in the cache" in none["error"] and "HF_HUB_OFFLINE" in none["error"]
    assert "\n" not in none["error"] and hub.asked == []
    unreachable = "http://127.0.0.1:9"
    assert ask(tmp_path, unreachable, ("squeezenet1_1", name)) == [first]


def test_what_the_hub_has_not_is_said_in_one_line(hub: Hub, tmp_path: Path) -> None:
    names = {
        "hf:owner/nothing": "the hub has no repository 'owner/nothing'",
        "hf:owner/empty": "holds neither model.safetensors nor pytorch_model.bin",
        "hf:owner/bare@v9": "has no revision 'v9'",
        "hf:a/b/c": "is not hf:OWNER/NAME",
    }
    calls = [("squeezenet1_1", name) for name in names]
    last = [("squeezenet1_1", "hf:owner/bare@v1"), ("hf:owner/bare",)]
    *refused, found, unnamed = ask(tmp_path, hub.endpoint, *calls, *last)
    for answer, said in zip(refused, names.values(), strict=True):
        assert said in answer["error"] and "\n" not in answer["error"]
        assert answer["kind"] == "WeightsError"
    assert found["mean"] == [0.485, 0.456, 0.406]  # without config.json: as torchvision does
    assert any("/resolve/v1/" in line for line in hub.asked)
    assert "does not say which network" in unnamed["error"]
