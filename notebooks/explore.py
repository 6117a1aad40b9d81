# %% [markdown]
# # What is in the lake
#
# Pictures of the table `events`, and of what was rejected on its way there. Open this file as a
# notebook (VS Code, PyCharm, JupyterLab with jupytext), or run `python -m notebooks.explore
# [FOLDER]`. It writes the pictures, and a page with all of them, into the folder (by default
# `explore` in KREISLAUF_HOME), and prints where the page is.

# %%
import os
import sys
from pathlib import Path

# Jupyter starts in the notebook's folder; the packages are in the checkout.
sys.path.insert(0, str(Path.cwd()).removesuffix("/notebooks"))

from notebooks import lake_data, loads, popularity, sessions, suspects
from notebooks.pictures import Page

os.chdir(sys.path[0])  # A local lake has its place in the checkout.
ARGUMENTS: list[str] = []
if "ipykernel" not in sys.modules:
    ARGUMENTS = sys.argv[1:]
PAGE = Page(lake_data.output_folder(ARGUMENTS))

# %% [markdown]
# ## Events and loads
# Times are UTC; days and weeks (of seven days) are counted from the first midnight. `gap` is the
# time since the event before in the same session, in ms; `pace` is how many events a minute the
# session's median gap would make.

# %%
DATA = lake_data.read()
loads.show_loads(PAGE, DATA)

# %% [markdown]
# ## What was rejected, and why
# What is in quarantine now: lines that a replay could load are no longer there.

# %%
loads.show_rejects(PAGE, DATA)

# %% [markdown]
# ## How popularity moves
# Clicks only. An article is new on the day on which the lake first has it: on the first days,
# nearly all are.

# %%
popularity.show_popularity(PAGE, DATA)

# %% [markdown]
# ## How session length moves
# A session belongs to the week in which it begins.

# %%
sessions.show_sessions(PAGE, DATA)

# %% [markdown]
# ## Which events are suspicious
# A session is too fast or too long, and an article too frequent in an hour, beyond 3.5 robust
# standard deviations of the median. An hour is silent if it has no event where that could not be
# chance. `notebooks/suspects.py` says more.

# %%
suspects.show_suspects(PAGE, DATA.events, DATA.sessions)

# %%
print(PAGE.write("What is in the lake"))
