#!/bin/sh
# What an image holds, in a virtual environment without pip: exactly the packages of a lock, and Bedplate's wheel.
#
#   deploy/install.sh deploy/locks/api.txt /opt/bedplate /dist/bedplate-*.whl
#
# Needs uv; `UV_TORCH_BACKEND=cpu` has it take PyTorch's CPU build, which the lock `cpu` names, from PyTorch's own index.
set -eu
lock=$1 environment=$2 wheel=$3

uv venv --python python3 --no-python-downloads "$environment"
set -- uv pip install --python "$environment/bin/python" --no-cache --compile-bytecode --link-mode copy
"$@" --require-hashes --only-binary :all: --requirement "$lock"
"$@" --no-deps --no-index "$wheel"
uv pip check --python "$environment/bin/python"
