"""Requests and answers of a model type that does not describe its own."""

from pydantic import BaseModel


class AnyObject(BaseModel, extra="allow"):
    """Any JSON object."""
