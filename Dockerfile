# Images of hotlora, from the repository's root:
#
#   docker build -t hotlora:cpu .
#   docker build --target cuda -t hotlora:cuda .     the host needs NVIDIA's container toolkit
#
# BASE        what the images stand on: Debian 12, or something made from it
# BUILD_BASE  the same for the stage that compiles; an image with a filled ~/.cache (ccache, hotlora) makes that quick
# SOURCE      where the stage that compiles has the sources, for a cache that knows them by another path
ARG BASE=debian:bookworm-slim
ARG BUILD_BASE=${BASE}

FROM ${BUILD_BASE} AS build-cpu
ARG SOURCE=/src
ENV HOME=/root PIP_ROOT_USER_ACTION=ignore
WORKDIR ${SOURCE}
COPY deploy/install_dependencies.sh deploy/find_nvcc.sh deploy/libtorch-cpu.txt deploy/libtorch-cuda.txt \
     deploy/cuda-compiler.txt deploy/
RUN deploy/install_dependencies.sh
COPY . .
RUN cmake --preset release -DBUILD_TESTING=OFF \
    && cmake --build --preset release \
    && cmake --build build/release --target hotlora_protoset \
    && cmake --install build/release --prefix /out --strip

FROM build-cpu AS build-cuda
RUN deploy/install_dependencies.sh --cuda \
    && cmake --preset cuda -DBUILD_TESTING=OFF \
    && cmake --build build/cuda \
    && rm -rf /out \
    && cmake --install build/cuda --prefix /out --strip

# The Debian libraries that the programs load, a user without rights, and how the programs are run; they come last.
FROM ${BASE} AS runtime
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
       libabsl20220623 libcurl4 libgrpc++1.51 libjpeg62-turbo libmicrohttpd12 libpng16-16 libprometheus-cpp-core1.0 \
       libprotobuf32 libre2-9 libspdlog1.10 libssl3 libutf8proc2 libwebp7 \
    && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/cache/debconf \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin hotlora \
    && install -d -o hotlora -g hotlora /adapters /controls
LABEL org.opencontainers.image.title="hotlora" \
      org.opencontainers.image.description="Stable Diffusion XL over gRPC with hot-swappable LoRA adapters" \
      org.opencontainers.image.licenses="Apache-2.0"
# It listens on all of the container's addresses, so it starts only with HOTLORA_TOKENS_FILE or HOTLORA_TLS_CLIENT_CA, or with
# HOTLORA_INSECURE=1 if the container's network alone decides who can call.
ENV HOTLORA_MODEL=/model \
    HOTLORA_ADAPTERS=/adapters \
    HOTLORA_LISTEN=0.0.0.0:50051 \
    HOTLORA_METRICS_LISTEN=0.0.0.0:9464
EXPOSE 50051 9464
USER 10001:10001
WORKDIR /
STOPSIGNAL SIGTERM
# A large model takes minutes to load. With TLS or another port, set HOTLORA_SERVER or a health check of your own.
HEALTHCHECK --interval=5s --timeout=5s --start-period=300s --retries=3 CMD ["hotlora", "health"]
ENTRYPOINT ["hotlora-server"]

FROM runtime AS cuda
# Not "auto", which would serve on the CPU, hundreds of times as slow, if the driver does not work. "utility" brings NVML,
# and with it the figures of the GPU's memory.
ENV HOTLORA_DEVICE=cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /out /usr/local

FROM runtime AS cpu
COPY --from=build-cpu /out /usr/local
