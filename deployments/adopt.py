"""Make the best parameters of a search those of the deployments train and retrain, in prefect.yaml.

`python -m deployments.adopt MODEL STUDY`, or `make adopt MODEL=... STUDY=...`. No flow does this.
"""

import argparse
import difflib
import inspect
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from deployments.stack import ROOT
from kreislauf import search
from kreislauf.registry import RegistryError, studies
from models import spec

TRAINING = ("flows.train.train", "flows.retrain.retrain")


def adopt(model: str, study: str, file: Path = ROOT / "prefect.yaml") -> str:
    """Write the best parameters of a study into the deployments that train `model`. Returns the
    change as a diff.

    Raises ValueError when nothing of the study has finished, its parameters are not the model
    type's any more, or no deployment trains the model; registry.RegistryError when there is no such
    study. Then nothing is written.
    """
    kind = spec.load(model)
    found = studies.get(model, study)
    params = {**found.fixed, **search.best(studies.trials(found)).params}
    kind.Params.model_validate(params)
    before = file.read_text()
    after = edited(before, model, params)
    file.write_text(after)
    lines = difflib.unified_diff(
        before.splitlines(True), after.splitlines(True), file.name, f"{file.name}, adopted"
    )
    return "".join(lines)


def edited(text: str, model: str, params: dict[str, Any]) -> str:
    """prefect.yaml with `params` in place, and everything else as it was, comments too."""
    from ruamel.yaml import YAML

    editor = YAML()
    out = io.StringIO()
    editor.preserve_quotes = True
    editor.width = 4096
    editor.indent(mapping=2, sequence=4, offset=2)
    content = editor.load(text)
    trainings = list(of(model, content["deployments"]))
    if not trainings:
        raise ValueError(
            f"No deployment in prefect.yaml trains {model}: give {' or '.join(TRAINING)} one with the parameter "
            f"`model: {model}`."
        )
    for deployment in trainings:
        refuse_to_share(deployment, model)
        if "parameters" not in deployment:
            deployment.insert(
                list(deployment).index("work_pool") + 1, "parameters", editor.load("{}")
            )
        # Prefect reads YAML 1.1, where the editor's own 1e-05 would be a text.
        deployment["parameters"]["params"] = editor.load(
            yaml.safe_dump(params, default_flow_style=True, width=4096)
        )
    editor.dump(content, out)
    return out.getvalue()


def of(model: str, deployments: list) -> Iterator[Any]:
    """The deployments that train `model`."""
    from flows.train import train

    default = inspect.signature(train.fn).parameters["model"].default
    for deployment in deployments:
        if (
            deployment["entrypoint"] in TRAINING
            and deployment.get("parameters", {}).get("model", default) == model
        ):
            yield deployment


def refuse_to_share(deployment: Any, model: str) -> None:
    """Raise ValueError if an event of another model would start the deployment with this model's
    parameters."""
    others = [name for name in spec.names() if name != model]
    for trigger in deployment.get("triggers", []):
        if others and str(trigger.get("match", {}).get("prefect.resource.id", "*")).endswith("*"):
            raise ValueError(
                f"The trigger {trigger['name']} starts {deployment['name']} for {', '.join(others)}, too, which would "
                f"get the parameters of {model}. Let it match `kreislauf.model.{model}` alone, and give the others a "
                "deployment of their own."
            )


def main() -> None:
    parser = argparse.ArgumentParser(prog="make adopt", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="a folder in models/")
    parser.add_argument("study", metavar="STUDY", help="as the flow tune printed it")
    given = parser.parse_args()
    try:
        change = adopt(given.model, given.study)
    except (ValueError, RegistryError) as error:
        sys.exit(str(error))
    if not change:
        sys.exit("prefect.yaml says this already; `make deploy` puts it in place.")
    print(
        f"{change}\nNothing else was changed. Review it, then put it in place with `make deploy`."
    )


if __name__ == "__main__":
    main()
