"""The whole recipe as a Dataflow job, translated without a network: workers, hints, fusion, options, and no secrets."""

import apache_beam as beam
import pytest
from dataflow_graph import ACCELERATOR, IMAGE, MIN_RAM, translated

from beam_pipeline.config import load_config
from beam_pipeline.pipeline import CurateVideos
from beam_pipeline.streaming import CurateUploads, Uploads
from beam_pipeline.worker_shape import worker_flags
from transforms.sources import Source

L4 = "type:nvidia-l4;count:1;install-nvidia-driver"
H100 = "type:nvidia-h100-80gb;count:1;install-nvidia-driver"
SUBSCRIPTION = "projects/proj-test/subscriptions/uploads"
#: Stands in every variable that names a secret while the jobs are made, and must stand nowhere in them.
SECRET = "f2a1-nobody-may-read-this"
KEY = "SOME_ENDPOINTS_KEY"

#: The paper's ensemble with everything that a job can do beside; nobody has named the selector's weights, and nothing
#: of any model is loaded.
EVERYTHING = """
extends: panda70m
speech: {weights: openai/whisper-tiny, revision: "0123456789012345678901234567890123456789"}
measures: {blur: true, nsfw: true}
hygiene: {language: true}
write_clips: encode
"""
PLACEMENTS = {
    "fitted": f'{{teachers: together, accelerator: "{L4}", min_ram: 30GB, decode_min_ram: 16GB}}',
    "alike": f'{{teachers: together, workers: alike, accelerator: "{L4}"}}',
}
FITTED, ALIKE = (f"{EVERYTHING}placement: {placement}" for placement in PLACEMENTS.values())
APART = f"""
extends: small
teachers:
  - {{name: blip-base, accelerator: "{H100}"}}
  - git-base
  - {{name: endpoint, url: "https://api.example.com/v1", weights: some-model, key_env: {KEY}}}
placement: {{accelerator: "{L4}"}}
"""
JOBS = {
    "fitted batch": (FITTED, False),
    "fitted stream": (FITTED, True),
    "alike batch": (ALIKE, False),
    "alike stream": (ALIKE, True),
    "apart": (APART, False),
    "lite": ("extends: lite", False),
}
MODES = ["fitted batch", "fitted stream", "alike batch", "alike stream"]

#: What works hardest in a job, by the step that does it.
DECODING = {"Detect shots", "Write clips"}
ON_GPU = {"Hear videos", "Embed shots", "Models", "Ask together", "Judge captions"}
ON_CPU = {"Pixels", "Language"}


@pytest.fixture(scope="module")
def job_of(tmp_path_factory):
    """Make each of the jobs once."""
    made = {}

    def make(name):
        if name not in made:
            text, streaming = JOBS[name]
            folder = tmp_path_factory.mktemp("job")
            (folder / "mine.yaml").write_text(text)
            config = load_config(str(folder / "mine.yaml"), complete=False)
            flags = worker_flags(config, streaming=streaming, given=[])
            with pytest.MonkeyPatch.context() as patch:
                for variable in ("HF_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS", KEY):
                    patch.setenv(variable, SECRET)
                made[name] = translated(recipe_of(config, streaming), folder / "out", flags, streaming=streaming)
        return made[name]

    return make


def recipe_of(config, streaming):
    def build(pipeline):
        if streaming:
            uploads = CurateUploads(Uploads(SUBSCRIPTION), config, "gs://bucket-test/dataset", "run-1")
            return pipeline | "Uploads" >> uploads
        sources = [Source("v-1", "gs://bucket-test/videos/a.mp4", "1", 1000)]
        recipe = CurateVideos(config, "gs://bucket-test/dataset", "run-1")
        return pipeline | "Sources" >> beam.Create(sources) | "Curate" >> recipe

    return build


def hard_work(step):
    """The part of the recipe whose hard work a step does; None of all other steps."""
    parts = step.split("/")
    if parts[-1] == "BeamML_RunInference":
        # "Hear videos/Hear/...", and what asks one model of several: "Measure clips/Models/Measure/..."
        return parts[-3]
    for part, last in (("Detect shots", "FlatMap(_split)"), ("Write clips", "Write"), ("Commit", "Commit")):
        if part in parts and parts[-1] == last:
            return part
    return None


def together(job):
    """The hard work of each stage that has some."""
    stages = [sorted(work for step in stage if (work := hard_work(step))) for stage in job.stages()]
    return sorted(stage for stage in stages if stage)


@pytest.mark.parametrize("name", MODES)
def test_no_stage_does_hard_work_of_two_kinds(job_of, name):
    alone = DECODING | ON_GPU | ON_CPU | {"Commit"}
    assert together(job_of(name)) == sorted([work] for work in alone)


def test_lite_teachers_share_a_stage_and_decoding_stays_apart(job_of):
    teachers = [f"Ask {name}" for name in load_config("lite").values["teachers"]]
    alone = ["Commit", "Detect shots", "Embed shots", "Judge captions"]
    assert together(job_of("lite")) == sorted([sorted(teachers), *([work] for work in alone)])


@pytest.mark.parametrize("name", list(JOBS))
def test_videos_are_spread_before_they_are_read_and_decoded(job_of, name):
    job = job_of(name)
    (reading,) = [
        stage for stage in job.stages() if any(step.endswith("Read videos/Read/FlatMap(_read)") for step in stage)
    ]
    spread = [step for step in reading if "/Read videos/Spread/" in step]
    assert sorted(step.rsplit("/", 1)[1] for step in spread) == [
        "FlatMap(restore_metadata_default_window)",
        "RemoveRandomKeys",
    ]
    # What lists, or pulls, is behind the shuffle.
    assert not [
        step for step in reading if "/Recall videos/" in step or step.startswith(("Sources/", "Uploads/Watch/"))
    ]


@pytest.mark.parametrize("name", ["fitted batch", "fitted stream"])
def test_only_models_stand_on_gpu_workers(job_of, name):
    job = job_of(name)
    hinted = job.hinted(ACCELERATOR)
    assert set(hinted.values()) == {L4}
    models = {step.removesuffix("BeamML_RunInference") for step in hinted if hard_work(step)}
    assert {hard_work(f"{model}BeamML_RunInference") for model in models} == ON_GPU
    # Batches are made on the machine that computes them; nothing else is there.
    batching = "BatchElements/ParDo(_GlobalWindowsBatchingDoFn)"
    assert set(hinted) == {f"{model}{step}" for model in models for step in ("BeamML_RunInference", batching)}
    assert sum({f"{model}{batching}", f"{model}BeamML_RunInference"} in job.stages() for model in models) == len(ON_GPU)


@pytest.mark.parametrize("name", ["fitted batch", "fitted stream"])
def test_each_stage_says_what_memory_it_needs(job_of, name):
    found = {}
    for step, ram in job_of(name).hinted(MIN_RAM).items():
        found.setdefault(int(ram), set()).add(hard_work(step))
    assert found == {16 * 10**9: DECODING, 30 * 10**9: {*ON_GPU, "Language", None}}


def test_a_teacher_of_its_own_accelerator_has_it_and_one_that_is_asked_elsewhere_has_none(job_of):
    hinted = job_of("apart").hinted(ACCELERATOR)
    works = {hard_work(step): accelerator for step, accelerator in hinted.items() if hard_work(step)}
    assert works == {"Ask blip-base": H100, "Ask git-base": L4, "Judge captions": L4}


@pytest.mark.parametrize("name", ["alike batch", "alike stream", "lite"])
def test_workers_that_are_alike_have_no_hints(job_of, name):
    job = job_of(name)
    assert (job.hinted(ACCELERATOR), job.hinted(MIN_RAM)) == ({}, {})


BATCH = ["beam_fn_api", "use_unified_worker", "use_runner_v2", "use_portable_job_submission"]
STREAM = [*BATCH, "enable_streaming_engine", "enable_windmill_service"]
ONE, MANY = "no_use_multiple_sdk_containers", "use_multiple_sdk_containers"
SERVICE = [f"worker_accelerator={L4}"]


@pytest.mark.parametrize(
    "name, kind, experiments, services, pool",
    [
        ("fitted batch", "BATCH", [ONE, *BATCH], None, {"numThreadsPerWorker": 4, "diskSizeGb": 210}),
        ("fitted stream", "STREAMING", [ONE, *STREAM], None, {"numThreadsPerWorker": 8, "diskSizeGb": 210}),
        (
            "alike batch",
            "BATCH",
            [ONE, *BATCH],
            SERVICE,
            {"numThreadsPerWorker": 8, "diskSizeGb": 210, "machineType": "g2-standard-8"},
        ),
        (
            "alike stream",
            "STREAMING",
            [ONE, *STREAM],
            SERVICE,
            {"numThreadsPerWorker": 16, "diskSizeGb": 210, "machineType": "g2-standard-8"},
        ),
        ("apart", "BATCH", [ONE, *BATCH], None, {"numThreadsPerWorker": 4, "diskSizeGb": 60}),
        ("lite", "BATCH", [*BATCH, MANY], None, {"diskSizeGb": 50}),
    ],
)
def test_a_job_is_of_its_kind_and_its_workers_of_their_shape(job_of, name, kind, experiments, services, pool):
    job = job_of(name)
    assert job.values["type"] == f"JOB_TYPE_{kind}"
    assert job.environment["version"]["job_type"] == f"FNAPI_{kind}"
    assert job.environment["experiments"] == experiments
    assert job.environment.get("serviceOptions") == services
    shape = ("numThreadsPerWorker", "diskSizeGb", "machineType")
    assert {key: job.pool[key] for key in shape if key in job.pool} == pool
    assert job.images() == {IMAGE}
    assert {one["containerImage"] for one in job.pool["sdkHarnessContainerImages"]} == {IMAGE}


def test_a_stream_with_hints_scales_as_right_fitting_wants_it(job_of):
    algorithm = job_of("fitted stream").pool["autoscalingSettings"]["algorithm"]
    assert algorithm == "AUTOSCALING_ALGORITHM_BASIC"
    assert job_of("alike stream").pool["autoscalingSettings"] == {}


def test_the_steps_of_the_recipe_stand_in_the_job_by_their_names(job_of):
    graph = job_of("fitted batch").graph.components
    (recipe,) = [one for one in graph.transforms.values() if one.unique_name == "Curate"]
    names = [graph.transforms[one].unique_name.removeprefix("Curate/") for one in recipe.subtransforms]
    steps = [name for name in names if not name.startswith("Flatten")]
    assert steps[: steps.index("Commit") + 1] == [
        "Recall videos",
        "Read videos",
        "Detect shots",
        "Hear videos",
        "Embed shots",
        "Stitch shots",
        "Clips",
        "Measure clips",
        "Caption clips",
        "Judge captions",
        "Clean captions",
        "Verdicts",
        "Assemble videos",
        "Write clips",
        "Fail videos",
        "All videos",
        "Count",
        "Commit",
    ]


def test_the_stream_pulls_the_subscription_by_dataflows_own_reader(job_of):
    (read,) = [step for name, step in job_of("fitted stream").steps.items() if name.endswith("/Watch/Pull/Read")]
    assert read.spec.urn == "beam:transform:pubsub_read:v1"
    assert SUBSCRIPTION.encode() in read.spec.payload


@pytest.mark.parametrize("name", list(JOBS))
def test_no_secret_of_the_environment_goes_into_a_job(job_of, name):
    assert SECRET.encode() not in job_of(name).told


def test_a_word_that_is_pickled_into_a_job_is_found_there(job_of):
    # Or the search for secrets would find none, wherever they stand: the name of the key travels, and the key stays.
    job = job_of("apart")
    assert KEY.encode() in job.told
    assert KEY.encode() not in job.graph.SerializeToString()


def test_a_secret_in_a_step_would_be_found(tmp_path):
    def build(pipeline):
        return pipeline | beam.Create([1]) | beam.Map(lambda number, told: (number, told), {"key": SECRET})

    assert SECRET.encode() in translated(build, tmp_path / "out").told
