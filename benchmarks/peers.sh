#!/usr/bin/env bash
# Make the environment in which ours stand beside the peers: bash benchmarks/peers.sh [FOLDER]
#
# PyTorch, Captum, torch-cam, pytorch-grad-cam, torchattacks, Foolbox and Zennit, all of stated versions, and vizsynth
# itself from this folder. Networks are written out in benchmarks/peers.py, as torchvision has no CPU build
# everywhere.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:-.venv-peers}
python3 -m venv "$folder"
"$folder/bin/pip" install torch==2.13.0 # first by itself: any build of this version will do
"$folder/bin/pip" install -e ".[parity]"
bash tests/parity/install_peers.sh "$folder/bin/python"
printf 'now: %s -m benchmarks --peers\n' "$folder/bin/python"
