# Both programs in one image; the coordinator is what it starts. docs/operations.md says how to use it.

FROM node:22-bookworm-slim AS dashboard
WORKDIR /source
COPY dashboard dashboard
COPY docs/openapi.json docs/openapi.json
RUN dashboard/npm build

FROM rust:1.95-bookworm AS programs
WORKDIR /source
COPY . .
COPY --from=dashboard /source/dashboard/dist dashboard/dist
RUN cargo build --release --locked --package ollama-coordinator --package ollama-agent

FROM debian:bookworm-slim
COPY --from=programs /source/target/release/ollama-coordinator /source/target/release/ollama-agent /usr/local/bin/
COPY LICENSE /usr/share/doc/ollama-coordinator/
# A volume that is made here takes over who may write to it.
RUN useradd --system --uid 11400 --no-create-home --home-dir /data ollama-coordinator \
    && install --directory --owner ollama-coordinator --mode 0700 /data
USER 11400
ENV HOME=/data \
    OLLAMA_COORDINATOR_DATA_DIR=/data \
    OLLAMA_AGENT_STATE_DIR=/data/agent
VOLUME /data
EXPOSE 11400
STOPSIGNAL SIGTERM
ENTRYPOINT ["ollama-coordinator"]
