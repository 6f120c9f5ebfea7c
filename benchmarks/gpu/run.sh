#!/bin/sh
# Tests of the GPU kernels, then their benchmark. Without a GPU it says what did not run, and ends well.
# Any option is passed on to run.py; PYTHON chooses the interpreter.
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.." || exit 1
python=${PYTHON:-python3}
status=0
if ! "$python" -c 'import torch; raise SystemExit(not torch.cuda.is_available())'; then
    echo "No GPU is at hand. These did not run: the tests of the Triton kernels on a GPU"
elif ! "$python" -c 'import pytest, jaxtyping, numpy'; then
    echo "pytest is not installed. These did not run: the tests of the Triton kernels"
else
    # without the plug-ins and the import hook that the project's own settings ask for
    "$python" -m pytest -q -p no:cacheprovider -o addopts=--import-mode=importlib tests/kernels/test_*_triton.py || status=1
fi
"$python" benchmarks/gpu/run.py "$@" || status=1
exit $status
