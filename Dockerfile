# Bedplate's images, one stage each. What they hold is fixed by deploy/locks; docs/images.md has more.
#
#   docker build --target api --tag bedplate-api .
#   docker build --target worker-gpu --tag bedplate-worker-gpu .
#
# PyTorch's CPU build comes from PyTorch's own index, everything else from uv's default. Behind a mirror give uv.toml and
# pip.conf as secrets (`--secret id=uv,src=uv.toml --secret id=pip,src=pip.conf`); they stay out of the image.

ARG PYTHON_IMAGE=python:3.11.17-slim-trixie@sha256:45037981b62b34b44602584fccbc4d884d5f7dc92c7ee86bb38a698a79fe1e51

# uv and hatchling, by hash like all others.
FROM ${PYTHON_IMAGE} AS tools
WORKDIR /src
COPY deploy/locks/build.txt deploy/locks/build.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m pip install --no-cache-dir --require-hashes --only-binary :all: --requirement deploy/locks/build.txt

FROM tools AS packages
COPY deploy/install.sh deploy/install.sh

# One environment for each lock; a new commit of Bedplate makes none of them anew.
FROM packages AS packages-api
COPY deploy/locks/api.txt deploy/locks/api.txt
RUN --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    deploy/install.sh /opt/bedplate --require-hashes --requirement deploy/locks/api.txt

FROM packages AS packages-cpu
ENV UV_TORCH_BACKEND=cpu
COPY deploy/locks/cpu.txt deploy/locks/cpu.txt
RUN --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    deploy/install.sh /opt/bedplate --require-hashes --requirement deploy/locks/cpu.txt

FROM packages AS packages-gpu
COPY deploy/locks/gpu.txt deploy/locks/gpu.txt
RUN --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    deploy/install.sh /opt/bedplate --require-hashes --requirement deploy/locks/gpu.txt

# Bedplate itself, in an environment of the same place: laid over the packages, it is a layer of a few megabytes.
FROM packages AS bedplate
COPY pyproject.toml README.md LICENSE ./
COPY sdk sdk
COPY modeling modeling
COPY registry registry
COPY embedding_store embedding_store
COPY workers workers
COPY services services
RUN python -m hatchling build --target wheel --directory /dist \
    && deploy/install.sh /opt/bedplate --no-deps --no-index /dist/*.whl

# What all images share. Nothing below writes outside /tmp, /var/cache/bedplate and /var/spool/bedplate, so that the root
# file system may be read-only; no package manager for Python is left, and the base image has no compiler.
FROM ${PYTHON_IMAGE} AS runtime
ARG PYTHON_IMAGE
LABEL org.opencontainers.image.vendor="Bedplate" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
RUN python -m pip uninstall --yes --root-user-action=ignore setuptools wheel pip \
    && python -c "import ensurepip, shutil; shutil.rmtree(ensurepip.__path__[0])" \
    && groupadd --gid 10001 bedplate \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin bedplate \
    && install --directory --owner bedplate --group bedplate --mode 0750 \
        /var/cache/bedplate /var/spool/bedplate
ENV PATH=/opt/bedplate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    HOME=/tmp \
    BEDPLATE_CACHE_DIR=/var/cache/bedplate \
    BEDPLATE_SPOOL_DIR=/var/spool/bedplate \
    BEDPLATE_HOST=0.0.0.0 \
    BEDPLATE_INFERENCE_HOST=0.0.0.0 \
    BEDPLATE_STORE_NODE_HOST=0.0.0.0 \
    BEDPLATE_METRICS_HOST=0.0.0.0
WORKDIR /tmp
USER 10001:10001
# Python is process 1 and gets the signals. The command is a module and its arguments.
ENTRYPOINT ["python", "-m"]

# Registry and store API; with another command the reconciler (bedplate_workers.reconciler), a store node
# (bedplate_services.shards.node) or the migrations (bedplate_services.migrations upgrade). No PyTorch.
FROM runtime AS api
LABEL org.opencontainers.image.title="bedplate-api" \
      org.opencontainers.image.description="Bedplate: API of registry and store, reconciler, store node, migrations"
COPY --from=packages-api /opt/bedplate /opt/bedplate
COPY --from=bedplate /opt/bedplate/lib /opt/bedplate/lib
COPY --from=bedplate /opt/bedplate/bin/bedplate /opt/bedplate/bin/bedplate
EXPOSE 8700
CMD ["bedplate_services.api"]

FROM runtime AS inference
LABEL org.opencontainers.image.title="bedplate-inference" \
      org.opencontainers.image.description="Bedplate: inference service, on CPUs"
COPY --from=packages-cpu /opt/bedplate /opt/bedplate
COPY --from=bedplate /opt/bedplate/lib /opt/bedplate/lib
COPY --from=bedplate /opt/bedplate/bin/bedplate /opt/bedplate/bin/bedplate
EXPOSE 8701
CMD ["bedplate_services.inference"]

FROM runtime AS worker-cpu
LABEL org.opencontainers.image.title="bedplate-worker-cpu" \
      org.opencontainers.image.description="Bedplate: Celery worker, on CPUs"
COPY --from=packages-cpu /opt/bedplate /opt/bedplate
COPY --from=bedplate /opt/bedplate/lib /opt/bedplate/lib
COPY --from=bedplate /opt/bedplate/bin/bedplate /opt/bedplate/bin/bedplate
CMD ["bedplate_workers"]

# CUDA comes with the wheels; the driver comes from the node, through NVIDIA's container runtime. Which GPUs a container
# sees is for whoever starts it to say: an image that asks for all would take what Kubernetes gave to others.
FROM runtime AS worker-gpu
LABEL org.opencontainers.image.title="bedplate-worker-gpu" \
      org.opencontainers.image.description="Bedplate: Celery worker and inference service, on NVIDIA GPUs"
COPY --from=packages-gpu /opt/bedplate /opt/bedplate
COPY --from=bedplate /opt/bedplate/lib /opt/bedplate/lib
COPY --from=bedplate /opt/bedplate/bin/bedplate /opt/bedplate/bin/bedplate
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    BEDPLATE_DEVICE=cuda
CMD ["bedplate_workers"]
