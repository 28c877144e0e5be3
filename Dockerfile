# syntax=docker/dockerfile:1
# The environment of routerr1. The workspace is a clone of the repository, mounted at /workspace.
#
#   docker build -t routerr1 .                                  # CPU
#   docker build -t routerr1:cuda --build-arg DEVICE=cuda .     # the CUDA build of torch
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/workspace" routerr1 dvc repro

ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim-bookworm AS base
# git: versions carry the commit. libgomp1: torch and scikit-learn use it.
RUN apt-get update \
    && apt-get install -y --no-install-recommends git libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /workspace \
    && useradd --create-home --uid 1000 routerr1 \
    && chmod 0777 /home/routerr1 \
    && install -d -o routerr1 -g routerr1 /opt/venv /artifacts /workspace
# LOGNAME and the open home folder let the image run under any user id (docker run --user).
ENV HOME=/home/routerr1 \
    LOGNAME=routerr1 \
    PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=true \
    MLFLOW_DISABLE_TELEMETRY=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false
USER routerr1

FROM base AS environment
ARG DEVICE=cpu
ARG EXTRAS=postgres
WORKDIR /home/routerr1/source
RUN python -m venv /opt/venv
COPY --chown=routerr1:routerr1 constraints.txt ./
# The index package of torch is the CUDA build; the CPU build is 2 GB smaller.
RUN case "$DEVICE" in \
      cpu) pip install --no-cache-dir --no-deps -c constraints.txt \
             --index-url https://download.pytorch.org/whl/cpu torch ;; \
      cuda) ;; \
      *) echo "DEVICE=$DEVICE: use cpu or cuda" >&2; exit 1 ;; \
    esac
COPY --chown=routerr1:routerr1 . ./
RUN pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]"

FROM environment AS dev
RUN pip install --no-cache-dir -c constraints.txt ".[test,dev,docs]"
WORKDIR /workspace

FROM base AS runtime
COPY --from=environment /opt/venv /opt/venv
# The code of a mounted clone comes before the installed package.
ENV PYTHONPATH=/workspace
WORKDIR /workspace
CMD ["routerr1", "--help"]
