"""The Dockerfile's install steps for what runs models, in a clean directory; a platform of it goes round.

``make test-gpu-image`` does it for the image worker-gpu as well, which is GIGABYTES to download.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
from tests.images.dockerfile import read_stages
from tests.images.installed import Installed, Running, Volumes

from bedplate_services.supervisor.ports import choose_ports

pytestmark = [pytest.mark.timeout(1800), pytest.mark.usefixtures("read_only_root")]
HOST = "127.0.0.1"
TOKEN = "0123456789abcdef" * 4
STAGES = {"worker-cpu": ("inference", "worker-cpu"), "worker-gpu": ("worker-gpu", "worker-gpu")}
"""Of what is installed: the images that run the inference service and workers from it."""
HAS_GPU = shutil.which("nvidia-smi") is not None


@dataclass(frozen=True)
class Platform:
    """The processes of an API, a reconciler, an inference service and a worker, on one directory."""

    api: Running
    reconciler: Running
    inference: Running
    worker: Running


@pytest.fixture
def stages(model_image: Installed) -> tuple[str, str]:
    return STAGES[model_image.environment.name]


@pytest.fixture
def settings(volumes: Volumes, stages: tuple[str, str]) -> dict[str, str]:
    api, inference = choose_ports(HOST, [(0, "--port"), (0, "--inference-port")])
    gpu = HAS_GPU and "worker-gpu" in stages
    return {
        "BEDPLATE_REGISTRY_DATABASE_URL": f"sqlite:///{volumes.folder / 'registry.db'}",
        "BEDPLATE_STORE_DATABASE_URL": f"sqlite:///{volumes.folder / 'store.db'}",
        "BEDPLATE_OBJECTS_URL": f"file://{volumes.folder / 'objects'}",
        "BEDPLATE_BROKER_URL": f"filesystem://{volumes.folder / 'broker'}",
        "BEDPLATE_SIGNING_KEY": TOKEN,
        "BEDPLATE_HOST": HOST,
        "BEDPLATE_PORT": str(api),
        "BEDPLATE_INFERENCE_HOST": HOST,
        "BEDPLATE_INFERENCE_PORT": str(inference),
        "BEDPLATE_URL": f"http://{HOST}:{api}",
        "BEDPLATE_INFERENCE_URL": f"http://{HOST}:{inference}",
        "BEDPLATE_TOKEN": TOKEN,
        "BEDPLATE_ADMIN_TOKEN": TOKEN,
        "BEDPLATE_HEARTBEAT_FILE": str(volumes.folder / "heartbeat"),
        "BEDPLATE_DRAIN_SECONDS": "0",
        "BEDPLATE_DEVICE": "cuda" if gpu else "cpu",
    }


@contextmanager
def running(
    api_image: Installed,
    model_image: Installed,
    stages: tuple[str, str],
    volumes: Volumes,
    settings: dict[str, str],
) -> Iterator[Platform]:
    """Migrated and provisioned, each process by its image's command; killed at the end if it runs still."""
    api = api_image.variables("api", volumes, **settings)
    for command in (["bedplate_services.migrations", "upgrade"], ["bedplate_services.provisioning"]):
        once = api_image.start(*command, volumes=volumes, environment=api)
        assert once.wait() == 0, once.output()

    with ExitStack() as stack:

        def start(image: Installed, command: str, environment: dict[str, str]) -> Running:
            started = image.start(command, volumes=volumes, environment=environment)
            stack.callback(started.kill)
            return started

        inference, worker = (model_image.variables(stage, volumes, **settings) for stage in stages)
        no_beat = {**api, "BEDPLATE_HEARTBEAT_FILE": f"{settings['BEDPLATE_HEARTBEAT_FILE']}-reconciler"}
        yield Platform(
            start(api_image, "bedplate_services.api", api),
            start(api_image, "bedplate_workers.reconciler", no_beat),
            start(model_image, "bedplate_services.inference", inference),
            start(model_image, "bedplate_workers", worker),
        )


def test_a_version_is_published_embedded_searched_and_served(
    api_image: Installed,
    model_image: Installed,
    stages: tuple[str, str],
    volumes: Volumes,
    settings: dict[str, str],
) -> None:
    """On a root file system that is read-only; and each process ends by itself when it is told to."""
    own = model_image.variables(stages[1], volumes, **settings)
    with running(api_image, model_image, stages, volumes, settings) as platform:
        platform.api.wait_until_ready(settings["BEDPLATE_URL"])
        platform.inference.wait_until_ready(settings["BEDPLATE_INFERENCE_URL"])
        tour = model_image.start(
            "bedplate_services.round_trip", "--timeout-seconds=100", volumes=volumes, environment=own
        )
        said = f"{tour.wait()}: {tour.output()}{platform.worker.output()}"
        assert said.startswith("0: ")
        assert "every answer was right" in said
        model_image.run("-m", "bedplate_workers.alive", environment=own)
        processes = vars(platform)
        ended = {name: process.stop() for name, process in processes.items()}
        said = "".join(process.output() for process in processes.values())
        assert ended == dict.fromkeys(processes, 0), said
    assert "Traceback" not in said
    assert volumes.compiled() == ""


@pytest.mark.parametrize("place", [0, 1], ids=["inference", "worker"])
def test_a_device_that_is_not_there_ends_the_process_and_says_so(
    model_image: Installed, stages: tuple[str, str], place: int, volumes: Volumes, settings: dict[str, str]
) -> None:
    device = "cuda:99" if HAS_GPU else "cuda"
    command = ["bedplate_services.inference", "bedplate_workers"][place]
    environment = model_image.variables(stages[place], volumes, **(settings | {"BEDPLATE_DEVICE": device}))
    process = model_image.start(command, volumes=volumes, environment=environment)
    assert process.wait() == 1
    assert process.output().startswith(f"BEDPLATE_DEVICE is '{device}', and PyTorch ")
    assert "Set BEDPLATE_DEVICE=cpu" in process.output()


def test_a_call_of_a_compiler_would_be_noticed(
    model_image: Installed, stages: tuple[str, str], volumes: Volumes
) -> None:
    environment = model_image.variables(stages[0], volumes)
    subprocess.run("gcc -c nothing.c", shell=True, env=environment, check=False)
    assert volumes.compiled() == "gcc -c nothing.c\n"


def test_it_holds_the_pytorch_and_faiss_that_its_name_says(model_image: Installed) -> None:
    code = (
        "import faiss, torch; print(torch.version.cuda is not None, hasattr(faiss, 'StandardGpuResources'))"
    )
    gpu = model_image.environment.name == "worker-gpu"
    assert model_image.run("-c", code) == f"{gpu} {gpu}"


def test_each_image_runs_its_own_command() -> None:
    """Those that the platform above is started with, from what is installed above."""
    inference, worker = (read_stages()[stage] for stage in STAGES["worker-cpu"])
    assert inference.words("CMD") == ["bedplate_services.inference"]
    assert worker.words("CMD") == ["bedplate_workers"]
    assert inference.values("COPY") == worker.values("COPY")
