"""Data sets by name, file formats, and batches."""

from __future__ import annotations

from dslc.data.arrays import from_python
from dslc.data.batches import Batches, epoch_order
from dslc.data.dataset import DataSet, Split
from dslc.data.description import DataDescription, Field, FieldDescription
from dslc.data.sources import open_data

__all__ = ["Batches", "DataDescription", "DataSet", "Field", "FieldDescription", "Split", "epoch_order", "from_python", "open_data"]
