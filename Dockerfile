# docs/recipes.md tells how to use it; tests/test_recipes.py checks it, and .ci/run runs its steps.
ARG BASE=python:3.12-slim
FROM ${BASE}
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src
RUN python -m pip install --no-cache-dir --constraint constraints.txt torch
RUN python -m pip install --no-cache-dir --constraint constraints.txt ".[report,itk]"
WORKDIR /data
ENTRYPOINT ["convexadam"]
CMD ["--help"]
