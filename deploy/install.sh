#!/bin/sh
# A virtual environment without pip, of wheels alone: what an image holds below /opt/bedplate.
#
#   deploy/install.sh /opt/bedplate --require-hashes --requirement deploy/locks/api.txt
#   deploy/install.sh /opt/bedplate --no-deps --no-index /dist/bedplate-*.whl
#
# Needs uv; `UV_TORCH_BACKEND=cpu` has it take PyTorch's CPU build, which the lock `cpu` names, from PyTorch's own index.
set -eu
environment=$1
shift

uv venv --python python3 --no-python-downloads "$environment"
uv pip install --python "$environment/bin/python" --no-cache --compile-bytecode --link-mode copy --only-binary :all: "$@"
