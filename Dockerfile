# syntax=docker/dockerfile:1
# A small image with runtime dependencies only, installed by their hashes in requirements-run.lock.

FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements-run.lock ./
RUN python -m venv --without-pip /app \
 && pip --python /app/bin/python install --no-cache-dir --no-compile --require-hashes -r requirements-run.lock
COPY pyproject.toml README.md LICENSE ./
COPY api api
COPY cluster cluster
COPY config config
COPY ops ops
RUN pip --python /app/bin/python install --no-cache-dir --no-compile --no-deps . \
 && python -m compileall -q /app/lib

FROM python:3.11-slim
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
