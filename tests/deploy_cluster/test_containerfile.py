"""What the image is built from exists, and it runs as nobody special."""

import re
from pathlib import Path

from deploy.cluster import check

ROOT = check.HERE.parents[1]
CONTAINERFILE = ROOT / "deploy" / "Containerfile"


def instructions(name: str) -> list[str]:
    joined = CONTAINERFILE.read_text().replace("\\\n", " ")
    return [line.removeprefix(name).strip() for line in joined.splitlines() if line.startswith(f"{name} ")]


def test_every_file_copied_from_the_repository_exists() -> None:
    sources = [source for copy in instructions("COPY") if "--from=" not in copy for source in copy.split()[:-1]]
    assert sources == ["requirements.lock", "requirements-dev.lock", "proto", "services"]
    assert all((ROOT / source).exists() for source in sources)


def test_what_is_copied_is_not_ignored() -> None:
    allowed = Path(f"{CONTAINERFILE}.dockerignore").read_text().splitlines()
    assert {line[1:] for line in allowed if line.startswith("!")} == {
        "requirements.lock",
        "requirements-dev.lock",
        "proto",
        "services",
    }


def test_the_base_image_is_pinned_to_one_patch_release_and_names_no_host() -> None:
    images = {line.split()[0] for line in instructions("FROM")}
    assert len(images) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", images.pop())


def test_packages_come_from_the_locks_with_their_hashes() -> None:
    installs = [run for run in instructions("RUN") if " install " in run]
    assert len(installs) == 2
    assert all("--require-hashes" in run and "--only-binary=:all:" in run for run in installs)


def test_the_user_is_the_one_of_the_pods() -> None:
    assert instructions("USER") == ["10001:10001"]
    pod = (check.HERE / "base" / "service" / "pod.yaml").read_text()
    assert "runAsUser: 10001\n" in pod
    assert "runAsGroup: 10001\n" in pod


def test_code_is_found_where_the_image_has_it() -> None:
    environment = " ".join(instructions("ENV"))
    assert "PYTHONPATH=/app:/app/proto" in environment
    assert "PATH=/venv/bin:" in environment
