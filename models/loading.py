"""All model types that can be loaded."""

from models import spec


def load_sound() -> tuple[list[spec.ModelSpec], dict[str, Exception]]:
    """The model types that can be loaded, and why each other one cannot: one that is broken must
    not stop the rest."""
    sound = []
    broken: dict[str, Exception] = {}
    for name in spec.names():
        try:
            sound.append(spec.load(name))
        except Exception as error:
            broken[name] = error
    return sound, broken
