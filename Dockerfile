# The service in an image that holds nothing else: no shell, no package manager.
#
#   docker build -t nowserving .
#   docker run -p 8080:8080 -v nowserving:/data nowserving
#
# Run like this it keeps its own database in /data. Give it DATABASE_URL and
# REDIS_URL to share those with other instances.

FROM golang:1.26-bookworm AS build
WORKDIR /src
# The modules change less often than the code: keep their layer.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /out/nowserving ./cmd/nowserving \
    && mkdir /out/data

# Certificates, time zones and an account without rights; nothing to run.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/nowserving /usr/local/bin/nowserving
# A new volume takes the owner of the folder it covers.
COPY --from=build --chown=65532:65532 /out/data /data
ENV NOWSERVING_DATA=/data NOWSERVING_ENV=production
# By number, so that an orchestrator can see it is not root.
USER 65532:65532
VOLUME /data
EXPOSE 8080
# Asks the running service for /healthz: it is healthy while its process answers.
# Whether it should get requests is another question, which a load balancer asks
# at /readyz.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/nowserving", "healthcheck"]
# The service shuts down in order on this signal.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/nowserving"]
CMD ["serve"]
