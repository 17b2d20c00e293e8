#!/usr/bin/env bash
# Install the peers of the parity tests: tests/parity/install_peers.sh PYTHON
#
# pytorch-grad-cam, Zennit and torchattacks ask for torchvision, whose wheels on PyPI are made for PyTorch with
# CUDA, and Foolbox asks for GitPython and requests, to download networks. What they need of these is told in
# peers.py. So they come without their dependencies: the `parity` extra has the others, and comes first.
set -euo pipefail
"${1:-python}" -m pip install --no-deps grad-cam==1.5.7 zennit==0.5.1 torchattacks==3.5.1 foolbox==3.3.4
