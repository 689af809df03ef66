# A small image with runtime dependencies only, installed by their hashes in requirements-run.lock. The program itself is
# built by what requirements-build.lock names, by hash too.

FROM python:3.11.13-slim-bookworm AS build
WORKDIR /src
COPY requirements-run.lock requirements-build.lock requirements-node.lock ./
RUN python -m venv --without-pip /app \
 && pip --python /app/bin/python install --no-cache-dir --no-compile --require-hashes -r requirements-run.lock
COPY pyproject.toml README.md LICENSE ./
COPY api api
COPY cluster cluster
COPY config config
COPY ops ops
# The page: what api/dashboard/package-lock.json names, by hash, with the node of requirements-node.lock.
RUN python -m venv /build \
 && HORAE_BUILD_NODE=wheel /build/bin/python -m api.dashboard.build --no-types --force \
 && /build/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock \
 && /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
 && pip --python /app/bin/python install --no-cache-dir --no-compile --no-deps --no-index /wheels/*.whl \
 && python -m compileall -q /app/lib

FROM python:3.11.13-slim-bookworm
RUN groupadd --system --gid 10001 horae && useradd --system --uid 10001 --gid 10001 --no-create-home horae
COPY --from=build /app /app
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 PORT=5000 HORAE_NODES=1 HORAE_LOG_FORMAT=json HORAE_DATA_DIR=/tmp/horae
USER 10001:10001
WORKDIR /tmp
EXPOSE 5000
STOPSIGNAL SIGTERM
# Checks that the process responds, not that it is ready: a restart does not help when the database is unavailable.
HEALTHCHECK --interval=10s --timeout=4s --start-period=15s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/healthz\", timeout=3)"]
ENTRYPOINT ["horae"]
CMD ["serve"]
