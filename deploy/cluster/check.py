"""Build the base and every overlay and hold them against the Kubernetes schemas and our own rules, all offline.

    python -m deploy.cluster.check [FOLDER ...]

Prints one line per build, then each problem with object and rule; the exit code is 1 if there is any.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import kubernetes_validate

from deploy.cluster import pod_rules, shop_rules, tls_rules
from deploy.cluster.manifests import BuildError, Manifests, Problem, build, where

HERE = Path(__file__).parent
KUBERNETES_VERSIONS = ("1.34", "1.37")
"""Oldest supported (the first where a preStop sleep is stable) and newest whose schemas we have."""

Rule = Callable[[Manifests], Iterable[Problem]]


def fits_the_schemas(manifests: Manifests) -> Iterator[Problem]:
    """Strict: an unknown field is an error, and so is an object whose schema is missing."""
    for version in KUBERNETES_VERSIONS:
        for candidate in manifests.objects:
            try:
                kubernetes_validate.validate(candidate, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                path = ".".join(str(step) for step in error.path)
                yield Problem(where(candidate), f"Kubernetes {version}: {path}: {error.message}")
            except (kubernetes_validate.SchemaNotFoundError, KeyError) as error:
                yield Problem(where(candidate), f"Kubernetes {version}: no schema: {error}")


FORM: tuple[Rule, ...] = (shop_rules.kinds_are_known, fits_the_schemas)
"""Asked first: the rules below read only what has the right form."""

RULES: tuple[Rule, ...] = (
    shop_rules.objects_are_unique,
    shop_rules.services_are_complete,
    shop_rules.services_are_told_what_they_need,
    shop_rules.references_exist,
    shop_rules.selectors_mean_one_server,
    shop_rules.servers_can_be_left_out,
    shop_rules.nothing_passes_unasked,
    shop_rules.calls_are_those_of_the_table,
    shop_rules.pods_reach_what_they_stand_on,
    pod_rules.pods_ask_for_nothing,
    pod_rules.containers_have_limits,
    pod_rules.servers_are_probed,
    pod_rules.ports_exist,
    pod_rules.servers_drain,
    pod_rules.replicas_outlive_a_node,
    pod_rules.identity_is_a_token_for_the_shop,
    pod_rules.secrets_are_files,
    pod_rules.images_are_pinned,
    pod_rules.commands_fit_one_image,
    tls_rules.tls_is_on,
)


def problems(manifests: Manifests) -> list[tuple[str, Problem]]:
    """All breaches with the name of the rule; when the form is wrong, only those of the form."""
    for rules in (FORM, RULES):
        found = [(rule.__name__, problem) for rule in rules for problem in rule(manifests)]
        if found:
            return found
    return []


def folders() -> list[Path]:
    """The base and all overlays of this repository."""
    return [HERE / "base", *sorted(path.parent for path in HERE.glob("overlays/*/kustomization.yaml"))]


def main(arguments: Sequence[str]) -> int:
    """Check the folders named, or all; returns the exit code."""
    failed = False
    for folder in [Path(argument) for argument in arguments] or folders():
        try:
            manifests = Manifests(build(folder))
        except BuildError as error:
            failed = True
            print(f"FAILED  {folder.name}: does not build\n  {error}")
            continue
        found = problems(manifests)
        failed = failed or bool(found)
        verdict = f"{len(found)} problems" if found else f"{len(RULES)} rules kept"
        versions = " and ".join(KUBERNETES_VERSIONS)
        print(
            f"{'FAILED' if found else 'ok':7} {folder.name}: {len(manifests.objects)} objects, "
            f"schemas of Kubernetes {versions}, {verdict}"
        )
        for rule, problem in found:
            print(f"  {problem.where}: {problem.what}  [{rule}]")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
