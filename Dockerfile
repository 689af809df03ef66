FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY api api
COPY cluster cluster
COPY config config
COPY ops ops
RUN python -m venv /app \
 && /app/bin/pip install --no-cache-dir --require-hashes -r requirements.lock \
 && /app/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11-slim
RUN useradd --system --uid 10001 horae
COPY --from=build /app /app
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1
USER horae
WORKDIR /tmp
EXPOSE 5000
ENTRYPOINT ["horae"]
CMD ["serve"]
