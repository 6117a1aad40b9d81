"""The page about a release, and the one about an A/B test."""

from kreislauf import registry
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


def question_page(version: registry.Version, question: str) -> str:
    """What a person is asked, and how to answer, as Markdown."""
    command = (
        f"prefect deployment run approve/approve --param model={version.model} \\\n"
        f'    --param version={version.number} --param who="Your name"'
    )
    return (
        f"# May {version.model} version {version.number} go live?\n\n{question}\n\n"
        "Answer with *Custom run* of the deployment `approve`; or in a shell into which the last "
        f"line of `make status` was copied, with\n\n```\n{command}\n```\n\n"
        "To say no, add `--param go_live=false`. Nothing waits for the answer: the live version "
        "goes on serving, and a newer version that is promoted withdraws the question."
    )


def experiment_page(release: releases.Release, horizon: str) -> str:
    """The A/B test that is in force, and how long it takes, as Markdown."""
    return f"# {release.model}\n\n{release.reason} {horizon}".rstrip()
