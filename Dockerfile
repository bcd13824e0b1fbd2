# Build:  docker build -t ragstone .
# Run:    docker run -p 8000:8000 -v ragstone:/data ragstone
# A key:  docker run -v ragstone:/data ragstone keys create NAME
# With vLLM, for GPUs:  docker build --target cuda -t ragstone:cuda .
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/ragstone
WORKDIR /source
# Dependencies before code, so that a change of code does not install them again.
COPY infra/locks/image.txt infra/locks/image.txt
RUN /opt/ragstone/bin/pip install --no-deps --require-hashes -r infra/locks/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY docs docs
COPY infra infra
COPY retrieval retrieval
COPY training training
COPY evals evals
COPY monitoring monitoring
COPY service service
RUN /opt/ragstone/bin/pip install --no-deps .

# vLLM's own image with the service beside it, in an environment of its own: `python = "/usr/bin/python3"` in
# the settings of an engine is the interpreter that has vLLM.
FROM vllm/vllm-openai:v0.32.0 AS cuda
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# LightGBM takes the library of threads from the system.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/ragstone
WORKDIR /source
COPY infra/locks/image.txt infra/locks/image.txt
RUN /opt/ragstone/bin/pip install --no-deps --require-hashes -r infra/locks/image.txt
COPY --from=build /source /source
RUN /opt/ragstone/bin/pip install --no-deps . \
 && useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin ragstone \
 && install -d -o ragstone -g ragstone -m 0700 /data
ENV PATH=/opt/ragstone/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAGSTONE_DATA_FOLDER=/data
WORKDIR /data
VOLUME /data
USER ragstone
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/live', timeout=4)"]
ENTRYPOINT ["ragstone"]
CMD ["serve", "--host", "0.0.0.0"]

FROM python:3.11-slim
# LightGBM takes the library of threads from the system.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin ragstone \
 && install -d -o ragstone -g ragstone -m 0700 /data
COPY --from=build /opt/ragstone /opt/ragstone
ENV PATH=/opt/ragstone/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAGSTONE_DATA_FOLDER=/data
WORKDIR /data
VOLUME /data
USER ragstone
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/live', timeout=4)"]
ENTRYPOINT ["ragstone"]
CMD ["serve", "--host", "0.0.0.0"]
