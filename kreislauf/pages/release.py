"""The page about a release, and the one about an A/B test."""

from kreislauf.release import releases


def page(release: releases.Release) -> str:
    """The release as Markdown."""
    before = release.previous or "nothing"
    return (
        f"# Release {release.number}: {release.model} version {release.champion} is live\n\n"
        f"{release.reason}\n\nBefore: {before}. By: {release.who}."
    )


def experiment_page(release: releases.Release) -> str:
    """The A/B test that is in force, as Markdown."""
    return f"# {release.model}\n\n{release.reason}"
