# Prometheus and Alertmanager out of Debian, under the names that docker-compose.yml uses: tests take nothing from a hub.
FROM debian:bookworm-slim AS monitoring
RUN apt-get update && apt-get install -y --no-install-recommends prometheus prometheus-alertmanager wget \
    && install -d -o 65534 -g 65534 /prometheus /alertmanager
USER 65534:65534

FROM monitoring AS prometheus
ENTRYPOINT ["prometheus"]

FROM monitoring AS alertmanager
ENTRYPOINT ["prometheus-alertmanager"]
