"""The page about a release, and the one about an A/B test."""

from kreislauf.release import releases


def page(release: releases.Release) -> str:
    """The release as Markdown."""
    before = release.previous or "nothing"
    text = (
        f"# Release {release.number}: {release.model} version {release.champion} is live\n\n"
        f"{release.reason}\n\nBefore: {before}. By: {release.who}."
    )
    if release.hold:
        text += (
            f"\n\nOn hold: {release.hold} A person is asked before the next version goes live, "
            "until somebody ends the hold with the flow `lift`."
        )
    return text


def experiment_page(release: releases.Release) -> str:
    """The A/B test that is in force, as Markdown."""
    return f"# {release.model}\n\n{release.reason}"
