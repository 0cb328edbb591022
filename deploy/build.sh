#!/bin/sh
# Builds Bedplate's wheel from this tree with the build tools of deploy/locks/build.txt.
#
#   deploy/build.sh /tmp/dist
#
# PYTHON names another interpreter than python3.
set -eu
folder=$1
tools=$folder/tools
"${PYTHON:-python3}" -m venv "$tools"
"$tools/bin/python" -m pip --disable-pip-version-check install --no-cache-dir --require-hashes --only-binary :all: \
    --requirement deploy/locks/build.txt
"$tools/bin/python" -m hatchling build --target wheel --directory "$folder"
rm -r "$tools"
