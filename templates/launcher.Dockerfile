# What a Flex Template's launch runs: builds the job's graph and hands it to Dataflow. Small: no model, no torch.
# Built by templates/build.sh; by hand: DOCKER_BUILDKIT=1 docker build -f templates/launcher.Dockerfile -t LAUNCHER .
# PYTHON is the worker image's, too: the graph holds pickled functions. For builds that repeat byte by byte name the
# bases by digest: --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:...
ARG PYTHON=3.11
ARG PYTHON_IMAGE=python:${PYTHON}-slim-bookworm
# Of this image the launcher alone is taken, which is the same for every Python.
ARG LAUNCHER_IMAGE=gcr.io/dataflow-templates-base/python311-template-launcher-base:20240812-rc01

FROM ${LAUNCHER_IMAGE} AS google

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /src
COPY setup.py pyproject.toml README.md LICENSE ./
COPY beam_pipeline beam_pipeline
COPY transforms transforms
COPY model_handlers model_handlers
RUN pip wheel --no-cache-dir --no-deps -w /wheel .

FROM ${PYTHON_IMAGE}
ARG EXTRAS=launcher
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    --mount=type=bind,source=templates/install.sh,target=/install.sh \
    SBOM=/usr/share/reelscribe/sbom.json sh /install.sh /wheel/*.whl "${EXTRAS}" /constraints.txt

COPY --from=google /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
COPY LICENSE /usr/share/reelscribe/LICENSE
COPY templates/main.py /template/main.py
# No FLEX_TEMPLATE_PYTHON_REQUIREMENTS_FILE and no _SETUP_FILE: the worker image holds what a worker needs.
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/main.py
WORKDIR /template

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="reelscribe launcher" \
      org.opencontainers.image.description="Launches reelscribe's Dataflow jobs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# No Beam boot here: this image is never a worker's.
ENTRYPOINT ["/opt/google/dataflow/python_template_launcher"]
