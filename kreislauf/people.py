"""What people give in forms."""

from typing import Annotated

from pydantic import Field, StringConstraints

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
"""A name or a reason: not empty."""

Share = Annotated[float, Field(ge=0, le=1)]
"""A share: 0.1 is a tenth."""
