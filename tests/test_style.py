"""The counters of style count what they say: each has an offender that is planted here."""

import pytest

from benchmarks import call_depth, folders, rooms, style, words
from benchmarks.sources import Source


def reasons(offenders: list) -> list[tuple[int, str]]:
    """Line and reason of each offender."""
    return [(offender.line, offender.reason) for offender in offenders]


@pytest.mark.parametrize(
    "text",
    [
        "from prefect import task\n\n@task\ndef load(): ...\n",
        "from prefect import task as job\n\n@job(retries=2)\ndef load(): ...\n",
        "import prefect\n\n@prefect.task\ndef load(): ...\n",
        "from prefect.tasks import task\n\nload = task(print)\n",
    ],
)
def test_a_task_outside_tasks_is_counted(text: str):
    assert len(rooms.outside([Source("flows/load.py", text)], "task")) == 1
    assert not rooms.outside([Source("tasks/load.py", text)], "task")
    assert not rooms.outside([Source("tests/load.py", text)], "task")


def test_a_flow_outside_flows_is_counted():
    text = "from prefect import flow\n\n@flow\ndef load(): ...\n"
    assert len(rooms.outside([Source("tasks/load.py", text)], "flow")) == 1
    assert not rooms.outside([Source("flows/load.py", text)], "flow")
    assert not rooms.outside([Source("tasks/load.py", text.replace("prefect", "water"))], "flow")


def test_a_task_that_calls_a_task_is_counted():
    first = "from prefect import task\n\n@task\ndef load(): ...\n"
    second = "from tasks import first\n\ndef help():\n    first.load.submit()\n"
    third = "from tasks.first import load\n\ndef help(load_rows):\n    return load_rows, load\n"
    same = first + "\ndef help():\n    load()\n"
    files = [Source("tasks/first.py", first), Source("tasks/second.py", second)]
    assert [o.path for o in rooms.tasks_in_tasks(files)] == ["tasks/second.py"]
    assert len(rooms.tasks_in_tasks([Source("tasks/first.py", first)])) == 0
    assert len(rooms.tasks_in_tasks([Source("tasks/first.py", same)])) == 1
    assert len(rooms.tasks_in_tasks([files[0], Source("tasks/third.py", third)])) == 1


def test_code_in_a_face_is_counted():
    face = '"""Doc."""\nimport models\nfrom a import b\n__all__ = ["b"]\nSPEC = b()\n'
    good = Source("models/a/__init__.py", face)
    assert not rooms.code_in_faces([good])
    for line in ("def c(): ...", "C = 1", "if b:\n    import c", "print(b)", "class C: ..."):
        assert len(rooms.code_in_faces([Source(good.path, face + line)])) == 1
    assert not rooms.code_in_faces([Source("models/a/b.py", "C = 1")])


def test_a_long_face_is_counted():
    lines = "import a\n\n" * rooms.MAX_FACE
    assert not rooms.long_faces([Source("models/__init__.py", lines)])
    assert len(rooms.long_faces([Source("models/__init__.py", lines + "import b\n")])) == 1


def test_long_files_and_functions_are_counted():
    body = "def a():\n" + "    b\n" * (style.MAX_FUNCTION - 1)
    assert not style.long_functions([Source("demo/a.py", body)])
    assert len(style.long_functions([Source("demo/a.py", "async " + body + "    b\n")])) == 1
    assert not style.long_files([Source("demo/a.py", "a\n" * style.MAX_FILE)])
    assert len(style.long_files([Source("demo/a.py", "a\n" * (style.MAX_FILE + 1))])) == 1


def test_dense_statements_are_counted():
    text = "a, b = 1, 2\nc = 1 if a else 2\n\na, b = b()\n(a, b), c = d = 1, 2\n"
    file = Source("demo/a.py", text)
    assert [o.line for o in style.parallel_assignments([file])] == [1, 5]
    assert [o.line for o in style.conditionals([file])] == [2]
    assert style.per_1000(style.conditionals([file]), [file]) == 250
    assert style.per_1000(style.conditionals([file]), [file], "flows/") == 0


def test_a_long_line_is_counted_wherever_it_is():
    line = "#" * style.MAX_LINE
    assert not style.long_lines([Source("tests/a.py", line)])
    assert reasons(style.long_lines([Source("tests/a.py", "\n" + line + "#")])) == [
        (2, "101 characters")
    ]


def test_a_line_that_is_not_formatted_is_counted():
    text = "a = 1  # fmt: skip\n# fmt: off\nb = 1  # format it\n"
    assert [o.line for o in style.format_skips([Source("demo/a.py", text)])] == [1, 2]
    assert not style.format_skips([Source("tests/a.py", text)])


def test_a_private_name_of_another_module_is_counted():
    text = "from kreislauf.lake import delta, _a\nfrom os import _exit\n\ndelta._b()\nself._c = 1\n"
    assert [o.line for o in rooms.private_names([Source("flows/a.py", text)])] == [1, 4]


@pytest.mark.parametrize(
    "text",
    [
        "found = 1",
        "def found(): ...",
        "class View: ...",
        "def f(known): ...",
        "f(told=1)",
        "a.taught",
        "from a import alike",
        "from a import b as octave",
        "def f(kind: ModelSpec): ...",
        "def f(kind: 'spec.ModelSpec'): ...",
        "class A:\n    kind: spec.ModelSpec",
        'a == "quiet"',
        'a = "the world  changed"',
        'f"{a} and data broken"',
        'def f():\n    """By learning\n    anew."""',
    ],
)
def test_an_old_word_is_counted(text: str):
    assert len(words.old_words([Source("flows/a.py", text)], [])) == 1


@pytest.mark.parametrize(
    "text",
    [
        "founder = 1",
        "a = b.unknown",
        "def f(kind: str): ...",
        'a = "it was found"',
        'a = "kreislauf.data.broken"',
        'a = "quiet please"',
        'a = "metadata broken"',
    ],
)
def test_a_word_that_only_contains_an_old_one_is_not_counted(text: str):
    assert not words.old_words([Source("flows/a.py", text)], [])


def test_old_words_are_counted_in_tests_except_in_those_of_stored_names():
    text = "found = 1"
    assert len(words.old_words([Source("tests/flows/test_loop.py", text)], [])) == 1
    assert not words.old_words([Source("tests/flows/test_stored.py", text)], [])


def test_old_words_of_pages_are_counted_and_those_of_mappings_are_not():
    assert reasons(words.old_words([], [("docs/a.md", "One\n\ntwo `fresh` three")])) == [
        (3, "`fresh` -> `refit_baseline`")
    ]
    assert not words.old_words([Source("kreislauf/monitoring/renamed.py", "found = 1")], [])


def test_words_a_sentence_are_those_of_running_text():
    text = "# A heading of words\n\nOne two three. Four `five six` e.g. seven!\n\n| a | table |"
    assert words.sentence_lengths(text) == [3, 5]
    assert words.sentence_lengths("- one two\n- three\n\n```\ncode of it\n```\nfour") == [2, 1, 1]
    entries = "Does it.\n\nArgs:\n    a: One two\n        three.\n    b: Four.\n\n"
    entries += "Returns:\n    All of it."
    assert words.sentence_lengths(entries) == [2, 3, 1, 3]
    docstring = Source("flows/a.py", 'A = 1\n"""One two three four."""\n')
    assert words.words_a_sentence([docstring], []) == 4
    assert words.words_a_sentence([docstring], [("docs/a.md", "One two three four five.")]) == 5


def test_long_sentences_and_merged_sections_are_named():
    text = f'A = 1\n"""{"word " * 40}."""\n'
    assert reasons(words.long_sentences([Source("flows/a.py", text)], [])) == [
        (2, "a sentence of 40 words")
    ]
    page = f"Short.\n\n{'word ' * 36}"
    assert [o.line for o in words.long_sentences([], [("docs/a.md", page)])] == [3]
    merged = 'def f(a):\n    """Does.\n\n    Args: a: One.\n    """\n'
    assert len(words.merged_sections([Source("flows/a.py", merged)])) == 1
    separate = merged.replace("Args: ", "Args:\n        ")
    assert not words.merged_sections([Source("flows/a.py", separate)])


def test_the_lines_of_a_model_type_are_divided(tmp_path):
    files = {
        "__init__": "from models.shop import spec_file",
        "spec_file": "from models import text\nfrom models.shop.names import A\n\nB = A",
        "names": "A = 1\n\nC = 2",
        "network": "from torch import nn\nclass Network(nn.Module):\n    a = 1\n    b = 2",
        "export": "def export():\n    import onnx",
        "fit": "import lightning\nfrom models import text\nclass Task(lightning.LightningModule):"
        "\n    a = 1\n    b = 2",
    }
    shops = [tmp_path / "models" / name for name in ("shop", "stall")]
    for shop in shops:
        shop.mkdir(parents=True)
        for name, text in files.items():
            (shop / f"{name}.py").write_text(text)
    assert folders.lines_of(shops[0]) == {"glue": 6, "graph": 6, "training": 5}
    (tmp_path / "models" / "text.py").write_text("A = 1\nB = 2")
    assert folders.shared_lines(tmp_path / "models", shops) == 2
    assert folders.shared_lines(tmp_path / "models", shops[:1]) == 0


LIBRARY = """
import mlflow
from kreislauf.registry import runs as runs_module

class Client:
    child: "Child"

    def __init__(self, url: str):
        self.other = Child()
        self.name = self.name.strip()

    def ask(self):
        return self.other.ask()

class Child:
    @property
    def answer(self):
        return mlflow.get_run("1")

    def ask(self):
        return self.answer

def make() -> Client:
    return Client("")

def again():
    again()
    mlflow.start_run()
"""
"""The organ that the chains of the next test go through."""


@pytest.mark.parametrize(
    ("body", "chain"),
    [
        ("mlflow.start_run()", ""),
        ("polars.col('a')", None),
        ("frame.collect()", ""),
        ("runs.again()", "again"),
        ("registry.again()", "again"),
        ("handed_on()", "again"),
        ("retried(runs.again)", None),
        ("runs.Client('').ask()", "Client.ask Child.ask Child.answer"),
        ("client = runs.make()\n    client.ask()", "Client.ask Child.ask Child.answer"),
        ("client: runs.Client = x\n    client.ask()", "Client.ask Child.ask Child.answer"),
        ("client: runs.Client = x\n    client.child.ask()", "Child.ask Child.answer"),
        ("runs.make().child.answer", "Child.answer"),
        ("runs.again.submit()", "again"),
        ("runs.again.with_options(a=1)(2)", "again"),
        ("runs = x\n    runs.again()", None),
    ],
)
def test_the_chain_from_a_flow_to_the_work(body: str, chain: str | None):
    imports = "import mlflow, polars\nfrom kreislauf import registry\n"
    imports += (
        "from kreislauf.registry import runs\nfrom kreislauf.registry import again as handed_on\n"
    )
    face = "from kreislauf.registry.runs import again\n"
    files = [
        Source("kreislauf/registry/__init__.py", face),
        Source("kreislauf/registry/runs.py", LIBRARY),
        Source("flows/train.py", f"{imports}\ndef train(x):\n    {body}\n"),
    ]
    names = [] if chain is None else ["flows.train.train"]
    names += [f"kreislauf.registry.runs.{name}" for name in (chain or "").split()]
    assert call_depth.chains(files)["train"] == names
    assert not call_depth.lost_calls(files)


def test_a_deep_flow_and_one_without_work_are_counted():
    steps = "".join(f"def f{i}():\n    f{i + 1}()\n" for i in range(1, call_depth.MAX_DEPTH))
    steps += f"def f{call_depth.MAX_DEPTH}():\n    mlflow.start_run()\n"
    flows = {
        flow: f"import mlflow\n\ndef {flow}():\n    mlflow.start_run()\n"
        for flow in call_depth.FLOWS
    }
    flows["train"] = "import mlflow\n\ndef train():\n    f1()\n\n" + steps
    flows["publish"] = "def publish(): ...\n"
    files = [Source(f"flows/{flow}.py", text) for flow, text in flows.items()]
    assert [o.path for o in call_depth.deep_flows(files)] == ["flows/train.py", "flows/publish.py"]
    assert call_depth.depths(files)["train"] == call_depth.MAX_DEPTH + 1


def test_a_call_of_what_is_not_there_is_counted():
    files = [
        Source("kreislauf/a.py", "LIMITS = {}\n"),
        Source(
            "flows/b.py", "from kreislauf import a\n\ndef b():\n    a.gone()\n    a.LIMITS.get(1)\n"
        ),
    ]
    assert reasons(call_depth.lost_calls(files)) == [(3, "kreislauf.a.gone")]


def test_each_figure_counts_the_offenders_of_its_name():
    tasks = "from prefect import task\n\n@task\ndef load(): ...\n"
    flows = "from prefect import flow\n\n@flow\ndef load(): ...\n"
    dense = '"""What it does.\n\nArgs: rows and columns.\n"""\n'
    dense += "from kreislauf.flow import _hidden\nfound = 1  # fmt: skip\n"
    dense += f"long = {'1' * style.MAX_LINE}\n"
    dense += "def load():\n" + "    a, b = 1, 2\n" * style.MAX_FILE
    files = [
        Source("flows/task.py", tasks),
        Source("kreislauf/flow.py", flows),
        Source("tasks/load.py", tasks + "\ndef help():\n    load()\n"),
        Source("kreislauf/__init__.py", "C = 1\n"),
        Source("kreislauf/dense.py", dense),
    ]
    pages = [("docs/page.md", "A page has sentences.\n")]
    figures = style.figures(files, pages, style.offenders(files, pages))
    assert [counter for counter in style.COUNTED if figures[counter] != 1] == []
    assert figures["parallel_assignments_per_1000"] > 900
