#!/bin/sh
# Tests of the GPU path and its benchmark, each a step of its own that fits one short loan of a machine:
#
#   run.sh tests                        the Triton kernels and whole registrations, in 8 processes
#   run.sh benchmark [--output DIR]     times; every other option goes to run.py
#   run.sh [--output DIR]               both
#
# Needs torch, triton, numpy, numba, scipy, jaxtyping, rich, pytest with xdist, and hypothesis. PYTHON chooses the
# interpreter. A wheel of the published package in local/wheels is compared. Without a GPU it says what did not run.
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.." || exit 1
python=${PYTHON:-python3}
status=0
step=all
case "$1" in tests | benchmark) step=$1 && shift ;; esac

has_gpu() { "$python" -c 'import torch; raise SystemExit(not torch.cuda.is_available())'; }

if [ "$step" != benchmark ]; then
    if ! has_gpu; then
        echo "No GPU is at hand. These did not run: the tests of the Triton kernels and of registrations on a GPU"
    elif ! "$python" -c 'import pytest, xdist, hypothesis, jaxtyping, numpy'; then
        echo "pytest, xdist or hypothesis is not installed. These did not run: the tests on a GPU"
    else
        # without the plug-ins and the import hook that the project's own settings ask for
        PYTHONPATH=src:tests "$python" -m pytest -q -n "${PROCESSES:-8}" -W default -p no:cacheprovider \
            -o addopts=--import-mode=importlib tests/kernels/test_*_triton.py tests/gpu/test_device.py || status=1
    fi
fi
if [ "$step" != tests ]; then
    for wheel in local/wheels/convex[Aa]dam-*.whl; do
        [ -f "$wheel" ] && PYTHONPATH="$wheel${PYTHONPATH:+:$PYTHONPATH}" && export PYTHONPATH
    done
    "$python" benchmarks/gpu/run.py "$@" || status=1
fi
exit $status
