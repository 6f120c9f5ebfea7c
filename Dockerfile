# docs/recipes.md tells how to use it; tests/test_recipes.py checks it, and .ci/run runs its steps.
ARG BASE=python:3.12-slim
FROM ${BASE}
WORKDIR /src
COPY constraints.txt pyproject.toml hatch_build.py README.md LICENSE ./
COPY src src
RUN python -m pip install --no-cache-dir --constraint constraints.txt torch
RUN python -m pip install --no-cache-dir --constraint constraints.txt hatchling ".[report,itk]"
# once more, with compiled kernels: whoever runs the image can write no cache for them
RUN HATCH_BUILD_HOOK_ENABLE_CUSTOM=true python -m pip install --no-cache-dir --no-deps --no-build-isolation --force-reinstall .
WORKDIR /data
ENTRYPOINT ["convexadam"]
CMD ["--help"]
