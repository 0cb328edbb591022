#!/bin/sh
# What an image holds, in a virtual environment without pip: exactly the packages of a lock file, and Bedplate's wheel.
#
#   deploy/install.sh deploy/locks/api.txt /opt/bedplate dist/bedplate-*.whl
#
# PYTHON names another interpreter than python3; it needs pip 22.3 or newer, the environment gets none.
set -eu
lock=$1 environment=$2 wheel=$3
python=${PYTHON:-python3}

"$python" -m venv --without-pip "$environment"
set -- "$python" -m pip --python "$environment/bin/python" --disable-pip-version-check
"$@" install --no-cache-dir --require-hashes --only-binary :all: --requirement "$lock"
"$@" install --no-cache-dir --no-deps --no-index "$wheel"
"$@" check
