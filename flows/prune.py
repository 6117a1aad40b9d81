"""Prune: delete old versions of a model, and their files, in MLflow."""

from prefect import flow, get_run_logger

from kreislauf import registry
from kreislauf.registry import claims
from kreislauf.release import releases


@flow
def prune(model: str = "session_recommender", keep: int = 20) -> list[int]:
    """Delete all but the newest versions, which nobody can go back to afterwards.

    Never deleted are: what the release log has in force (champion, challenger, previous), what
    nobody has judged or published yet, the newest version that was, and the parents of trainings
    that go on. Nor is a version about which a person is asked. Decisions and cards of deleted
    versions go, too, but for their rows in the table `decisions`. To run it again, or after a kill,
    is harmless.

    Args:
        model: Name of the model type.
        keep: Number of newest versions that stay, at least one.

    Returns:
        The numbers of the versions that were deleted, oldest first.

    Raises:
        ValueError: `keep` is less than one.
        registry.RegistryError: MLflow does not answer.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}: at least one version has to stay.")
    parents = {claim.lineage.parent for claim in claims.unfinished(model)}
    old = prunable(registry.versions(model), releases.current(model), parents, keep)
    for version in old:
        registry.delete(version)
        get_run_logger().info(f"{model} version {version.number} is deleted")
    return [version.number for version in old]


def prunable(
    versions: list[registry.Version],
    release: releases.Release | None,
    parents: set[int | None],
    keep: int,
) -> list[registry.Version]:
    """Which of the `versions`, newest first, may be deleted, oldest first; `parents` are those of
    trainings that go on."""
    needed = {version.number for version in versions[:keep]} | parents
    if release:
        needed.update(release.versions)
    closed = [version for version in versions if version.closed and not version.question]
    old = [version for version in closed[1:] if version.number not in needed]
    return old[::-1]
