# The service in an image that holds nothing else: no shell, no package manager.
#
#   docker build -t nowserving .
#   docker run -p 8080:8080 -v nowserving:/data nowserving
#
# Run like this it keeps its own database in /data. Give it DATABASE_URL and
# REDIS_URL to share those with other instances.
#
# Both images are pinned by digest: to update one, replace tag and digest together.

FROM golang:1.26.8-bookworm@sha256:a688600ca24f8a4d3ca77f95b0dd40704a9fc787c826660eb7ba0b641b8b175d AS build
WORKDIR /src
# The modules change less often than the code: keep their layer.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# As `make build` does, and for the same reasons.
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -tags nomsgpack,disable_grpc_modules,grpcnotrace -o /out/nowserving ./cmd/nowserving \
    && mkdir /out/data

# Certificates, time zones and an account without rights; nothing to run.
FROM gcr.io/distroless/static-debian12:nonroot@sha256:afa5c872c891853ca7fcf1f12c3edb23f7eeef36189728842dd51042ff57f7ab
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
