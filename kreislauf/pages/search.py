"""The page about a search for better hyperparameters."""

from collections.abc import Sequence

from kreislauf.pages import markdown
from kreislauf.registry import studies
from kreislauf.search.result import TuningResult

SHOWN = 10
"""Maximum number of trials on the page."""

PAGE = """## {tuned.model}: {tuned.validation:.4f}, with the defaults {tuned.default_validation:.4f}

The validation metric of the training, on rows before the hold-out. Trial 0 has the defaults. \
Attempts: {states}.

{table}

Nothing was changed. To train with the best parameters from now on, in the checkout that is \
deployed:

```
{tuned.adopt}
make deploy
```
"""


def page(tuned: TuningResult, trials: Sequence[studies.Trial]) -> str:
    """The result as Markdown, with the best of the trials."""
    finished = [trial for trial in trials if trial.state == "finished"]
    best = sorted(finished, key=lambda trial: -trial.validation)[:SHOWN]
    names = list(best[0].params)
    rows = []
    for trial in best:
        values = [f"{trial.params[name]:.6g}" for name in names]
        rows.append([f"{trial.number}", f"{trial.validation:.4f}", *values])
    table = markdown.table(["trial", "validation", *names], rows)
    states = ", ".join(f"{count} {state}" for state, count in tuned.trials.items())
    return PAGE.format(tuned=tuned, states=states, table=table)
