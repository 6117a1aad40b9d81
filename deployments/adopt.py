"""Write the best parameters of a search into prefect.yaml, for the deployments train and retrain.

`python -m deployments.adopt MODEL STUDY`, or `make adopt MODEL=... STUDY=...`. No flow does this.
"""

import argparse
import difflib
import inspect
import io
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from deployments import triggers
from deployments.stack import ROOT
from kreislauf import search
from kreislauf.registry import RegistryError, studies
from models import spec

TRAINING = ("flows.train.train", "flows.retrain.retrain")


def adopt(model: str, study: str, file: Path = ROOT / "prefect.yaml") -> str:
    """Write the best parameters of a study into the deployments that train `model`.

    Returns the change as a diff. Nothing is written when it raises: ValueError when no trial has
    finished, the parameters do not fit the model type any more, or no deployment trains the model;
    registry.RegistryError when there is no such study.
    """
    model_type = spec.load(model)
    record = studies.get(model, study)
    params = {**record.fixed, **search.best(studies.trials(record)).params}
    model_type.Params.model_validate(params)
    before = file.read_text()
    after = edit(before, model, params)
    file.write_text(after)
    lines = difflib.unified_diff(
        before.splitlines(True), after.splitlines(True), file.name, f"{file.name}, adopted"
    )
    return "".join(lines)


def edit(text: str, model: str, params: dict[str, Any]) -> str:
    """The text of prefect.yaml with `params`, and everything else as it was, comments too."""
    from ruamel.yaml import YAML

    editor = YAML()
    out = io.StringIO()
    editor.preserve_quotes = True
    editor.width = 4096
    editor.indent(mapping=2, sequence=4, offset=2)
    content = editor.load(text)
    trainings = list(select_trainings(model, content["deployments"]))
    if not trainings:
        raise ValueError(
            f"No deployment in prefect.yaml trains {model}: give {' or '.join(TRAINING)} one "
            f"with the parameter `model: {model}`."
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


def select_trainings(model: str, deployments: list) -> Iterator[Any]:
    """The deployments that train `model`."""
    from flows.train import train

    default = inspect.signature(train.fn).parameters["model"].default
    for deployment in deployments:
        if deployment["entrypoint"] not in TRAINING:
            continue
        parameters = deployment.get("parameters") or {}
        if parameters.get("model", default) == model:
            yield deployment


def refuse_to_share(deployment: Any, model: str) -> None:
    """Raise ValueError if events of models with other parameters start the deployment with
    these."""
    own = spec.load(model).Params
    others = [name for name in spec.names() if spec.load(name).Params is not own]
    for trigger in triggers.triggers([deployment]):
        other_models = [
            name for name in others if fnmatch(f"kreislauf.model.{name}", trigger.resource)
        ]
        if other_models:
            raise ValueError(
                f"The trigger {trigger.name} starts {trigger.deployment} for "
                f"{', '.join(other_models)}, too, which would get the parameters of {model}. Let "
                f"it match `kreislauf.model.{model}` alone, and give the others a deployment of "
                "their own."
            )


def main() -> None:
    """Adopt the parameters, and print the change."""
    parser = argparse.ArgumentParser(prog="make adopt", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="a folder in models/")
    parser.add_argument("study", metavar="STUDY", help="as the flow tune printed it")
    arguments = parser.parse_args()
    try:
        change = adopt(arguments.model, arguments.study)
    except (ValueError, RegistryError) as error:
        sys.exit(str(error))
    if not change:
        sys.exit("prefect.yaml says this already; `make deploy` puts it in place.")
    print(
        f"{change}\nNothing else was changed. Review it, then put it in place with `make deploy`."
    )


if __name__ == "__main__":
    main()
