# What Dataflow's workers run, with and without a GPU: decoding and every model that Transformers loads.
# Built by templates/build.sh; by hand: DOCKER_BUILDKIT=1 docker build -f templates/worker.Dockerfile -t WORKER .
# CUDA comes with torch's own wheels; the driver with the machine (install-nvidia-driver), mounted at /usr/local/nvidia.
# So no CUDA base image is needed, which would hold a second CUDA of several gigabytes.
# Licences: the PyAV wheel bundles FFmpeg with x264 and x265 (GPL), and NVIDIA's wheels have NVIDIA's: mind both when you
# pass the image on. Weights copied in keep theirs (OPT, LLaMA and Vicuna restrict use): `reelscribe teachers` names them.
ARG PYTHON=3.11
ARG BEAM=2.77.0
ARG PYTHON_IMAGE=python:${PYTHON}-slim-bookworm
ARG BEAM_IMAGE=apache/beam_python${PYTHON}_sdk:${BEAM}

FROM ${BEAM_IMAGE} AS beam

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /src
COPY setup.py pyproject.toml README.md LICENSE ./
COPY beam_pipeline beam_pipeline
COPY transforms transforms
COPY model_handlers model_handlers
RUN pip wheel --no-cache-dir --no-deps -w /wheel .

FROM ${PYTHON_IMAGE} AS worker
ARG EXTRAS=local,gcp,endpoint,hygiene,ocr,transnet
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    --mount=type=bind,source=templates/install.sh,target=/install.sh \
    SBOM=/usr/share/reelscribe/sbom.json sh /install.sh /wheel/*.whl "${EXTRAS}" /constraints.txt

COPY --from=beam /opt/apache/beam /opt/apache/beam
COPY LICENSE /usr/share/reelscribe/LICENSE
# PATH and LD_LIBRARY_PATH: where Dataflow mounts the driver. torch finds its own CUDA beside itself, so nothing else is
# named here. RUN_PYTHON_...: all is installed, so Beam's boot need not make an environment at every start.
ENV PATH=/usr/local/nvidia/bin:${PATH} \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64 \
    RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1 \
    PYTHONUNBUFFERED=1

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="reelscribe worker" \
      org.opencontainers.image.description="Long videos to a dataset of captioned clips: a Dataflow worker" \
      org.opencontainers.image.licenses="Apache-2.0 AND GPL-2.0-or-later AND LicenseRef-NVIDIA-Proprietary" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# No USER, as in Beam's own images: as which user a container runs is chosen by Dataflow.
ENTRYPOINT ["/opt/apache/beam/boot"]

# The same with weights, for --target worker-with-models: configurations say `weights: /models/NAME, revision: WHICH`.
FROM worker AS worker-with-models
COPY models /models

# Last, as what is built when no target is named.
FROM worker
