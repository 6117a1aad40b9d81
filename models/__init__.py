"""One folder per model type.

`models` folders elsewhere on `sys.path` are joined to this one, so a team keeps its own model types
in its own repository and only puts that on PYTHONPATH.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
