# The HTTP process, and the webhooks' deliverer. No torch: the image stays small and starts fast.
# Build from the repository root: docker build -f docker/api.Dockerfile .
# BASE is any Debian or Ubuntu with Python 3.11 or newer.
ARG BASE=python:3.11-slim
FROM ${BASE}

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 PATH=/opt/rollover/bin:${PATH}
WORKDIR /srv/rollover
RUN python3 -m venv /opt/rollover

COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY contracts contracts
COPY outbound outbound
COPY rollover rollover
COPY app app
RUN pip install -c requirements.lock '.[api,s3,otel]'

# The same user id as in the worker's image: they share the artifact volume.
RUN useradd --uid 10001 --create-home rollover && install -d -o rollover -g rollover /var/lib/rollover
USER rollover
# Not where the sources are: what runs is what was installed.
WORKDIR /var/lib/rollover

# A container is reached through its own address, so the API asks for a key: `rollover keys create NAME` in it.
ENV ROLLOVER_HOST=0.0.0.0 ROLLOVER_PORT=8000 ROLLOVER_DATA_DIR=/var/lib/rollover
VOLUME /var/lib/rollover
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["python3", "-m", "app"]
