# The image of bearer-proxy: a slim Python, a virtual environment, an unprivileged user, a read-only root.
#
#   docker build --tag bearer-proxy .
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges --publish 127.0.0.1:8080:8080 \
#     --volume ./config.yaml:/etc/bearer-proxy/config.yaml:ro --volume ./secrets:/run/secrets:ro bearer-proxy
#
# In a container 127.0.0.1 is the container's own, so the config says `listen: 0.0.0.0:8080`. Who reaches that
# address can use the credential: the proxy refuses to start on it without `guard.client_key`.
# Instead of a mounted file, BEARER_PROXY_CONFIG_YAML may hold the text of the config; secrets stay references.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# The data path is compiled (docs/adr/0007-compiled.md) by whichever compiler this Debian has; it stays in this stage.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && python -m venv /opt/bearer-proxy
WORKDIR /source
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY proxy ./proxy
# A store on a server; with otel, spans too.
ARG EXTRAS=fleet
RUN HATCH_BUILD_HOOKS_ENABLE=1 /opt/bearer-proxy/bin/pip install ".[${EXTRAS}]" \
    && /opt/bearer-proxy/bin/python -m compileall -q /opt/bearer-proxy \
    && /opt/bearer-proxy/bin/pip uninstall --yes pip

FROM python:3.13-slim
LABEL org.opencontainers.image.title="bearer-proxy" \
      org.opencontainers.image.description="A local authenticating reverse proxy" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/bearer-proxy /opt/bearer-proxy
# State and run file are the only things written. Volumes inherit this owner and mode.
RUN mkdir -m 0700 /var/lib/bearer-proxy /run/bearer-proxy \
    && chown 10001:10001 /var/lib/bearer-proxy /run/bearer-proxy
VOLUME ["/var/lib/bearer-proxy", "/run/bearer-proxy"]
# /etc/bearer-proxy/config.yaml, /var/lib/bearer-proxy and /run/bearer-proxy follow from the XDG names.
ENV PATH=/opt/bearer-proxy/bin:$PATH \
    XDG_CONFIG_HOME=/etc \
    XDG_STATE_HOME=/var/lib \
    XDG_RUNTIME_DIR=/run \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, so that an orchestrator can see that it is not root (runAsNonRoot).
USER 10001:10001
WORKDIR /
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["bearer-proxy", "healthcheck"]
ENTRYPOINT ["bearer-proxy"]
CMD ["run"]
