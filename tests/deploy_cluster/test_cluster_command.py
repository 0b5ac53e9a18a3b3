"""The cluster check as a command: what it prints, when it fails, what it makes of a folder that does not build."""

from pathlib import Path

import pytest

from deploy.cluster import check
from deploy.cluster.manifests import BuildError, build


def test_the_command_says_what_is_wrong_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [pod.yaml]\n")
    (tmp_path / "pod.yaml").write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: stray}\nspec: {containers: []}\n")
    assert check.main([str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "pod/stray: v1/Pod is not a kind we know  [kinds_are_known]" in printed


def test_the_command_passes_what_we_ship(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([]) == 0
    assert capsys.readouterr().out.count("ok ") == len(check.folders())


def test_what_does_not_build_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]\n")
    with pytest.raises(BuildError, match="missing"):
        build(tmp_path)
    assert check.main([str(tmp_path)]) == 1


def test_what_kustomize_warns_of_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("commonLabels: {a: b}\n")
    with pytest.raises(BuildError, match="deprecated"):
        build(tmp_path)
