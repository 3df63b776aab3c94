# A worker: one model on one GPU. torch's wheel brings its CUDA libraries; the base brings the rest of the runtime.
# Build from the repository root: docker build -f docker/worker.Dockerfile .
# BASE is any Debian or Ubuntu with Python 3.11 or newer, python:3.11-slim for a CPU worker included.
ARG BASE=nvidia/cuda:13.0.1-base-ubuntu24.04
FROM ${BASE}

RUN python3 -c 'import venv, ensurepip' 2>/dev/null || \
    (apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*)

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 PATH=/opt/rollover/bin:${PATH}
WORKDIR /srv/rollover
RUN python3 -m venv /opt/rollover

# torch is most of the image: a layer of its own, kept as long as the lock is.
COPY requirements.lock ./
RUN pip install -c requirements.lock torch

COPY pyproject.toml README.md LICENSE ./
COPY contracts contracts
COPY models models
COPY outbound outbound
COPY rollover rollover
COPY sampling sampling
COPY workers workers
RUN pip install -c requirements.lock '.[worker,s3,otel]'

# The same user id as in the API's image: they share the artifact volume.
RUN useradd --uid 10001 --create-home rollover && install -d -o rollover -g rollover /var/lib/rollover /var/cache/rollover
USER rollover
# Not where the sources are: what runs is what was installed.
WORKDIR /var/lib/rollover

# Downloaded weights go to the volume: little else can be written to.
ENV ROLLOVER_DATA_DIR=/var/lib/rollover HF_HOME=/var/lib/rollover/huggingface
# What torch compiles is loaded from where it lies: /tmp may forbid that, and others may write to the other volume.
ENV TORCHINDUCTOR_CACHE_DIR=/var/cache/rollover/inductor TRITON_CACHE_DIR=/var/cache/rollover/triton
VOLUME /var/lib/rollover /var/cache/rollover
# A model of many gigabytes takes its time to load; the worker beats from its first second on.
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s CMD ["python3", "-m", "workers.health"]
CMD ["python3", "-m", "workers", "--model", "shapes"]
