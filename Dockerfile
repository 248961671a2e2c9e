# One image for workers, migrations and the command line. It holds the wheel, not the checkout.

FROM python:3.13-slim AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/perdure \
    && /opt/perdure/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[mcp]'

FROM python:3.13-slim
RUN useradd --uid 10001 --no-create-home --home-dir /app perdure \
    && install -d -o perdure -g perdure /app
COPY --from=build /opt/perdure /opt/perdure
ENV PATH=/opt/perdure/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# For the health check; /healthz says whether the worker can serve.
ENV PERDURE_HEALTH_ADDRESS=127.0.0.1:8081
# Agents that are mounted or copied here are found by module name: PERDURE_AGENTS='["my_agents"]'.
WORKDIR /app
USER perdure
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s --retries=3 CMD ["perdure", "worker", "--check"]
# SIGTERM lets running activities finish; give the container longer than PERDURE_GRACEFUL_SHUTDOWN.
CMD ["perdure", "worker"]
