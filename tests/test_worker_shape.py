"""The flags that a Dataflow job needs beside those given: what each configuration asks for, and what is refused."""

import re

import pytest

from beam_pipeline.config import load_config
from beam_pipeline.worker_shape import remarks, threads, vcpus, worker_flags

L4 = "type:nvidia-l4;count:1;install-nvidia-driver"
A100 = "type:nvidia-tesla-a100;count:1;install-nvidia-driver"
T4_SHARED = "type:nvidia-tesla-t4;count:1;install-nvidia-driver;use_nvidia_mps"

LITE, PANDA = "extends: lite", "extends: panda70m"
ONE_PROCESS = "--experiments=no_use_multiple_sdk_containers"
#: 151 GB of weights, and 50 for everything else.
PANDA_DISK = "--disk_size_gb=210"


@pytest.fixture
def config_of(tmp_path):
    def load(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        # Nobody has named the selector's weights; the shape of workers does not depend on them.
        return load_config(str(path), complete=False)

    return load


def placed(profile, **placement):
    return f"{profile}\nplacement: {{{', '.join(f'{key}: {value!r}' for key, value in placement.items())}}}"


def of_threads(number):
    return f"--number_of_worker_harness_threads={number}"


ALIKE = (
    f"--dataflow_service_options=worker_accelerator={L4}",
    "--machine_type=g2-standard-8",
    ONE_PROCESS,
    of_threads(8),
    PANDA_DISK,
)


@pytest.mark.parametrize(
    "text, streaming, given, expected",
    [
        (LITE, False, [], ("--disk_size_gb=50",)),
        (LITE, True, [], (of_threads(2), "--disk_size_gb=50")),
        (PANDA, False, [], (PANDA_DISK,)),
        (placed(LITE, decode_min_ram="16GB"), False, [], ("--disk_size_gb=50",)),
        (
            placed(LITE, decode_min_ram="16GB"),
            True,
            [],
            (of_threads(2), "--disk_size_gb=50", "--autoscaling_algorithm=THROUGHPUT_BASED"),
        ),
        # No model of the profile is loaded onto a GPU, whatever the placement says.
        (placed(LITE, accelerator=L4), False, [], ("--disk_size_gb=50",)),
        (placed(PANDA, accelerator=L4), False, [], (ONE_PROCESS, of_threads(4), PANDA_DISK)),
        (
            placed(PANDA, accelerator=L4, min_ram="30GB"),
            True,
            [],
            (ONE_PROCESS, of_threads(8), PANDA_DISK, "--autoscaling_algorithm=THROUGHPUT_BASED"),
        ),
        (
            placed(PANDA, accelerator=L4),
            False,
            ["--machine_type=n1-standard-8"],
            (ONE_PROCESS, of_threads(8), PANDA_DISK),
        ),
        (placed(PANDA, accelerator=L4, one_copy_per="machine"), False, [], (PANDA_DISK,)),
        (placed(PANDA, accelerator=T4_SHARED), False, [], (PANDA_DISK,)),
        (placed(PANDA, workers="alike", accelerator=L4), False, [], ALIKE),
        (placed(PANDA, workers="alike"), False, [], (PANDA_DISK,)),
        (
            placed(PANDA, workers="alike", accelerator=L4.replace(";install", ";machine_type:g2-standard-16;install")),
            True,
            [],
            (ALIKE[0], "--machine_type=g2-standard-16", ONE_PROCESS, of_threads(16), PANDA_DISK),
        ),
        (
            placed(PANDA, workers="alike", accelerator=A100),
            False,
            [],
            (
                f"--dataflow_service_options=worker_accelerator={A100}",
                "--machine_type=a2-highgpu-1g",
                ONE_PROCESS,
                of_threads(12),
                PANDA_DISK,
            ),
        ),
    ],
)
def test_a_job_gets_the_flags_that_its_configuration_needs(config_of, text, streaming, given, expected):
    assert worker_flags(config_of(text), streaming=streaming, given=given) == expected


@pytest.mark.parametrize(
    "given, missing",
    [
        (["--machine_type=g2-standard-12"], {1: None, 3: of_threads(12)}),
        (["--worker_machine_type", "g2-standard-12"], {1: None, 3: of_threads(12)}),
        (["--experiments=use_multiple_sdk_containers"], {2: None, 3: None}),
        (["--experiment=foo,no_use_multiple_sdk_containers"], {2: None}),
        (["--experiments=foo"], {}),
        (["--number_of_worker_harness_threads=1"], {3: None}),
        (["--disk_size_gb", "500"], {4: None}),
        # Then the machine is the user's choice too.
        ([f"--dataflow_service_options=worker_accelerator={A100}"], {0: None, 1: None, 3: of_threads(4)}),
        ([f"--experiments=worker_accelerator={A100}"], {0: None, 1: None, 3: of_threads(4)}),
    ],
)
def test_a_flag_that_the_user_gave_is_not_given_again(config_of, given, missing):
    expected = tuple(flag for place, one in enumerate(ALIKE) if (flag := missing.get(place, one)))
    config = config_of(placed(PANDA, workers="alike", accelerator=L4))
    assert worker_flags(config, streaming=False, given=given) == expected


def test_a_gpu_that_only_the_flags_ask_for_has_one_process_too(config_of):
    given = [f"--dataflow_service_options=worker_accelerator={L4}"]
    assert worker_flags(config_of(PANDA), streaming=False, given=given) == (ONE_PROCESS, of_threads(4), PANDA_DISK)


@pytest.mark.parametrize(
    "text, streaming, given, told",
    [
        (
            placed(PANDA, accelerator=L4),
            False,
            [f"--dataflow_service_options=worker_accelerator={L4}"],
            "worker_accelerator is not for stages with resource hints; drop it, or write placement: {workers: alike}",
        ),
        (
            placed(LITE, decode_min_ram="16GB"),
            False,
            [f"--experiments=worker_accelerator={L4}"],
            "worker_accelerator is not for stages with resource hints",
        ),
        (
            placed(PANDA, accelerator=L4),
            False,
            ["--flexrs_goal=COST_OPTIMIZED"],
            "--flexrs_goal=COST_OPTIMIZED takes no resource hints; drop it, or the hints of placement:",
        ),
        (LITE, False, ["--flexrs_goal=COST_OPTIMIZED", "--resource_hint=min_ram=8GB"], "takes no resource hints"),
        (LITE, True, ["--flexrs_goal=COST_OPTIMIZED"], "--flexrs_goal is for batch jobs; drop it"),
        (
            placed(PANDA, accelerator=L4),
            True,
            ["--autoscaling_algorithm=NONE"],
            "resource hints in a stream need autoscaling; drop --autoscaling_algorithm=NONE",
        ),
        (
            placed(PANDA, workers="alike", accelerator=L4),
            False,
            ["--resource_hints=min_ram=8GB"],
            "placement: {workers: alike} has no resource hints; drop --resource_hints",
        ),
        (
            placed("extends: small\nteachers: [{name: blip-base, min_ram: 30GB}]", workers="alike"),
            False,
            [],
            "blip-base has resource hints of its own, but placement: {workers: alike}; drop one of them",
        ),
        (
            placed(PANDA, workers="alike", accelerator=L4),
            False,
            ["--machine_type=n1-standard-8"],
            "nvidia-l4 stands in machines g2-* alone, not in n1-standard-8",
        ),
        (
            placed(PANDA, workers="alike", accelerator=L4),
            False,
            ["--dataflow_service_options=enable_prime"],
            "Dataflow Prime chooses machines itself; drop enable_prime, or placement: {workers: alike}",
        ),
        (
            placed(PANDA, accelerator="type:nvidia-l4;count:1"),
            False,
            [],
            "type:nvidia-l4;count:1 has no driver, and models would run on the CPU; add ;install-nvidia-driver",
        ),
        (
            PANDA,
            False,
            ["--dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1"],
            "add ;install-nvidia-driver",
        ),
        (
            placed(PANDA, accelerator=T4_SHARED),
            False,
            [ONE_PROCESS],
            "use_nvidia_mps is for several processes on a GPU; drop it, or no_use_multiple_sdk_containers",
        ),
    ],
)
def test_flags_that_contradict_the_placement_are_refused_with_advice(config_of, text, streaming, given, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        worker_flags(config_of(text), streaming=streaming, given=given)


def test_flags_that_contradict_nothing_are_let_pass(config_of):
    # The same as none, by Google's own words; and a batch job may have any number of workers.
    for given in (["--flexrs_goal=SPEED_OPTIMIZED"], ["--autoscaling_algorithm=NONE"]):
        flags = worker_flags(config_of(placed(PANDA, accelerator=L4)), streaming=False, given=given)
        assert flags == (ONE_PROCESS, of_threads(4), PANDA_DISK)


@pytest.mark.parametrize(
    "machine_type, expected",
    [
        ("n1-standard-8", 8),
        ("e2-custom-6-16384", 6),
        ("custom-4-16384", 4),
        ("n2-custom-4-65536-ext", 4),
        ("c3-standard-22-lssd", 22),
        ("a2-highgpu-2g", 24),
        ("a2-ultragpu-1g", 12),
        ("a3-highgpu-8g", 208),
        ("a2-megagpu-16g", 96),
        ("e2-medium", 4),
        ("", 4),
    ],
)
def test_vcpus_are_told_by_the_name_of_a_machine_type(machine_type, expected):
    assert vcpus(machine_type) == expected


@pytest.mark.parametrize(
    "one_process, streaming, machine_type, expected",
    [
        (False, False, "n1-standard-16", None),
        (False, True, "n1-standard-16", 2),
        (True, False, "", 4),
        (True, True, "", 8),
        (True, True, "n1-standard-2", 4),
        (True, False, "g2-standard-96", 16),
    ],
)
def test_threads_follow_the_cores_that_decode(one_process, streaming, machine_type, expected):
    assert threads(one_process=one_process, streaming=streaming, machine_type=machine_type) == expected


def test_models_that_would_run_on_cpu_workers_are_told_of(config_of):
    told = (
        "10 models, of up to 17.8 GiB, will run on CPU workers; for GPUs say placement: {accelerator: "
        "'type:nvidia-l4;count:1;install-nvidia-driver'}",
    )
    assert remarks(config_of(PANDA), []) == told
    assert remarks(config_of(LITE), []) == ()
    assert remarks(config_of(placed(PANDA, accelerator=L4)), []) == ()
    assert remarks(config_of(PANDA), [f"--experiments=worker_accelerator={L4}"]) == ()
