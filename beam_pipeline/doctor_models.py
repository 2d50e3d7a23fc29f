"""What the models of a configuration need, told before a job: downloads, memory, licences, and whether they load.

    for check in check_models("panda70m", None): ...

Small models that come with packages are loaded, and small students that stand on this machine. Of others nothing is
downloaded and nothing loaded: their files are looked for, and what is missing is told with its size.
"""

from __future__ import annotations

import dataclasses
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from beam_pipeline.checks import Check, State
from beam_pipeline.training import provenance

if TYPE_CHECKING:
    from beam_pipeline.config import Config
    from model_handlers.catalogue import Entry

NETWORK_DEADLINE_S = 10
#: From this many billions of parameters on, a CPU is no place for a model.
LARGE_B = 1.0


def check_models(profile: str | None, config_file: str | None, commercial_only: bool = False) -> Iterator[Check]:
    """What each model of the configuration needs; those of packages are loaded, which compares their SHA-256."""
    from beam_pipeline.config import ConfigError, load_config

    try:
        config = load_config(profile, config_file, commercial_only=commercial_only, complete=False)
    except ConfigError as error:
        fix = "reelscribe profiles   # lists what can be chosen"
        if str(error).startswith("measures.lpips"):
            fix = "name the weights' file in the configuration: measures: {lpips: FILE.safetensors}"
        elif "; run: " in str(error):
            fix = str(error).partition("; run: ")[2]
        elif str(error).startswith("--commercial-only"):
            fix = "reelscribe teachers   # says what each licence allows; choose others"
        yield Check("configuration", "fail", str(error), fix)
        return
    yield Check("configuration", "ok", config.profile)
    yield from load_each(entry for entry in config.models if entry.settings is None)
    large = [entry for entry in config.models if entry.settings is not None]
    for entry in large:
        if _is_student(entry) and entry.parameters_b < LARGE_B and os.path.isdir(os.path.expanduser(entry.model)):
            yield from load_each([entry])
            continue
        check = check_files(entry)
        if entry.trained:
            check = dataclasses.replace(check, what=f"{check.what}; {provenance.told(entry.trained.as_json())}")
        yield check
    if large:
        yield check_download(large)
        yield check_gpu_memory(config)
    yield from check_licences(config.models)


def load_each(models: Iterable[Entry]) -> Iterator[Check]:
    """Load each model, and say what mends it where that fails."""
    from model_handlers.checkpoints import is_hub_id
    from model_handlers.measures.catalogue import SUMMARIES
    from model_handlers.weights import WeightsError

    for entry in models:
        if is_hub_id(entry.model) and entry.name in SUMMARIES:
            told = f"{entry.model} is fetched at first use, unless the hub's cache has it; licence {entry.licence}"
            yield Check(f"model {entry.name}", "ok", told)
            continue
        try:
            entry.build().load_model()
        except Exception as error:
            # A broken install shows itself in many ways; each is a finding here, not a crash.
            fix = "pip install --force-reinstall 'reelscribe[local]'"
            if "torchvision::nms" in str(error):
                fix = "pip install --force-reinstall -c constraints.txt torch torchvision   # they are built as a pair"
            elif _is_student(entry):
                fix = "name a whole version in the configuration, or train it again; see docs/student.md"
            elif entry.name == "lpips" and isinstance(error, WeightsError):
                fix = "name other weights, or none, in the configuration: measures: {lpips: FILE.safetensors}"
            elif entry.name in SUMMARIES and isinstance(error, WeightsError):
                fix = f"name other weights in the configuration: measures: {{{entry.name}: {{weights: DIRECTORY}}}}"
            yield Check(f"model {entry.name}", "fail", f"{type(error).__name__}: {error}", fix)
        else:
            yield Check(f"model {entry.name}", "ok", f"loads: {entry.model}, {entry.revision}; licence {entry.licence}")


def _is_student(entry: Entry) -> bool:
    return entry.listed_name == "student"


def check_files(entry: Entry) -> Check:
    """Are a model's files here, or will they be fetched; does its endpoint answer?"""
    settings, name = entry.settings, f"model {entry.name}"
    assert settings is not None
    if not settings.weights:
        first = f"{entry.made_by}   # then " if entry.made_by else ""
        fix = f"{first}in a --config file: {{name: {entry.name}, weights: ...}}   # see docs/models.md"
        return Check(name, "fail", f"nobody has said where its weights are; licence {entry.licence}", fix)
    from model_handlers.checkpoints import FILES, is_hub_id

    if url := getattr(settings, "url", ""):
        from model_handlers.endpoint_answers import EndpointError
        from model_handlers.endpoint_keys import read_secret

        key, secret = os.environ.get(getattr(settings, "key_env", ""), ""), getattr(settings, "key_secret", "")
        try:
            key = read_secret(secret) if secret else key
        except EndpointError as error:
            return Check(name, "fail", str(error), "see docs/models.md")
        return _check_endpoint(name, url, key)
    if os.path.exists(os.path.expanduser(settings.weights)):
        return Check(name, "ok", f"{settings.weights}, {_size_gb(settings.weights):.1f} GB")
    if settings.weights.startswith("gs://"):
        return Check(name, "ok", f"{settings.weights}, copied once a worker")
    if not is_hub_id(settings.weights):
        told = f"there is no directory {settings.weights} on this machine; what runs the model must hold it"
        return Check(name, "warn", told, "run reelscribe doctor in the workers' image   # see docs/dataflow.md")
    if _is_cached(settings.weights, settings.revision):
        return Check(name, "ok", f"{settings.weights} at {settings.revision[:12]} is in the hub's cache")
    told = f"{settings.weights} at {settings.revision[:12]} will be downloaded, {entry.download_gb:.1f} GB"
    kinds = " ".join(f"'*{ending}'" for ending in FILES)
    fetch = f"hf download {settings.weights} --revision {settings.revision} --include {kinds}"
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "on", "yes", "true"):
        return Check(name, "fail", f"{settings.weights} is not in the hub's cache, and HF_HUB_OFFLINE is set", fetch)
    if entry.gated and not _has_token():
        fix = f"agree to the licence on the hub's page of {settings.weights}, then: hf auth login"
        return Check(name, "fail", f"{told}; the hub asks who you are", fix)
    return Check(name, "ok", told)


def check_download(models: Iterable[Entry]) -> Check:
    """How much will be downloaded, and is there room for it in the hub's cache?"""
    from huggingface_hub.constants import HF_HUB_CACHE

    from beam_pipeline.checks import free_gb
    from model_handlers.checkpoints import is_hub_id

    wanted = {
        entry.settings.weights: entry.download_gb
        for entry in models
        if entry.settings
        and entry.settings.weights
        and is_hub_id(entry.settings.weights)
        and not hasattr(entry.settings, "url")
        and not _is_cached(entry.settings.weights, entry.settings.revision)
    }
    total, free = sum(wanted.values()), free_gb(HF_HUB_CACHE)
    if total > free:
        fix = f"export HF_HOME=...   # a disk with {total:.0f} GB free, or name directories or gs:// as weights"
        return Check("downloads", "fail", f"{total:.1f} GB to come, but {free:.1f} GB free at {HF_HUB_CACHE}", fix)
    return Check("downloads", "ok", f"{total:.1f} GB to come, {free:.0f} GB free" if wanted else "none")


def check_gpu_memory(config: Config) -> Check:
    """Do the models fit on the GPU together, as they are placed?"""
    import torch

    teachers = sorted((entry.memory_gb for entry in config.teachers), reverse=True)
    at_once = config.placement.models_at_once or len(teachers)
    total = config.embedder.memory_gb + config.selector.memory_gb + sum(teachers[:at_once])
    names = ", ".join(entry.name for entry in config.models if entry.memory_gb)
    if unknown := [entry.name for entry in config.teachers if _is_student(entry) and not entry.memory_gb]:
        told = f"not known: the files of {', '.join(unknown)} can't be read on this machine"
        return Check("gpu memory", "warn", told, "run reelscribe doctor where they are")
    if not names:
        return Check("gpu memory", "ok", "none of these models needs a GPU's")
    told = f"about {total:.0f} GB for {names} in 16 bits"
    if at_once < len(teachers):
        told += f", with {at_once} teachers at once"
    if not torch.cuda.is_available():
        large = [entry.name for entry in config.models if entry.parameters_b >= LARGE_B]
        if large:
            fix = "run on workers with GPUs, or: reelscribe curate --profile small"
            return Check("gpu memory", "warn", f"{told}; there is no GPU, and {', '.join(large)} crawl on a CPU", fix)
        return Check("gpu memory", "ok", f"{told}; there is no GPU, and these are small enough for a CPU")
    have = torch.cuda.get_device_properties(0).total_memory / 2**30
    if total > have:
        fix = "in the configuration: placement: {teachers: together, models_at_once: 1}"
        return Check("gpu memory", "warn", f"{told}; the GPU has {have:.0f} GB", fix)
    return Check("gpu memory", "ok", f"{told}; the GPU has {have:.0f} GB")


def check_licences(models: Iterable[Entry]) -> Iterator[Check]:
    """One check for all: which of them restrict what they may be used for."""
    from model_handlers.catalogue import restrictions

    told = restrictions(models)
    if not told:
        yield Check("licences", "ok", "none restricts what the captions may be used for, by what the catalogue knows")
        return
    yield Check("licences", "warn", told, "reelscribe curate --commercial-only ...   # refuses them")


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key would go along to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _check_endpoint(name: str, url: str, key: str) -> Check:
    headers = {"Authorization": f"Bearer {key}"} if (key := key.strip()) else {}
    asked = urllib.request.Request(url.rstrip("/") + "/models", headers=headers)
    fix = f"curl {url.rstrip('/')}/models   # start the server, or mend url in the configuration"
    try:
        with urllib.request.build_opener(_StayHere).open(asked, timeout=NETWORK_DEADLINE_S) as answer:
            state: State = "ok"
            told = f"{url} answers ({answer.status})"
    except urllib.error.HTTPError as error:
        refused = "refuses the key" if error.code in (401, 403) else f"answers {error.code}"
        state, told = "fail", f"{url} {refused}"
    except (OSError, http.client.HTTPException) as error:
        state, told = "fail", f"{url} doesn't answer: {error}"
    except ValueError:
        # Its message repeats the header, and so the key.
        state, told = "fail", "the key holds what no header may hold, such as a line break"
    return Check(name, state, told, fix if state == "fail" else "")


def _is_cached(weights: str, revision: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(weights, "config.json", revision=revision or None), str)
    except HFValidationError:
        return False


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _size_gb(path: str) -> float:
    from model_handlers.checkpoints import files_of

    path = os.path.expanduser(path)
    if os.path.isfile(path):
        return os.path.getsize(path) / 1e9
    return sum(os.path.getsize(os.path.join(path, part)) for part in files_of(path)) / 1e9
