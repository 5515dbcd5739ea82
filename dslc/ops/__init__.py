"""Every operator, a family a file. Importing this package fills the registry in `ir/operator.py`."""

from __future__ import annotations

from collections.abc import Mapping

from dslc.ir.operator import OPERATORS, Operator
from dslc.ops import activations as activations
from dslc.ops import adaptive as adaptive
from dslc.ops import attention as attention
from dslc.ops import audio as audio
from dslc.ops import augment as augment
from dslc.ops import boxes as boxes
from dslc.ops import calculus as calculus
from dslc.ops import colors as colors
from dslc.ops import constants as constants
from dslc.ops import contraction as contraction
from dslc.ops import convolution as convolution
from dslc.ops import ctc as ctc
from dslc.ops import divergences as divergences
from dslc.ops import elementwise as elementwise
from dslc.ops import functions as functions
from dslc.ops import indexing as indexing
from dslc.ops import layouts as layouts
from dslc.ops import logic as logic
from dslc.ops import loops as loops
from dslc.ops import losses as losses
from dslc.ops import mixing as mixing
from dslc.ops import movement as movement
from dslc.ops import norms as norms
from dslc.ops import patches as patches
from dslc.ops import piecewise as piecewise
from dslc.ops import pooling as pooling
from dslc.ops import pooling_gradients as pooling_gradients
from dslc.ops import pooling_ranks as pooling_ranks
from dslc.ops import random as random
from dslc.ops import reductions as reductions
from dslc.ops import regions as regions
from dslc.ops import repeats as repeats
from dslc.ops import resampling as resampling
from dslc.ops import resize as resize
from dslc.ops import response as response
from dslc.ops import rounding as rounding
from dslc.ops import sampling as sampling
from dslc.ops import scans as scans
from dslc.ops import scatter as scatter
from dslc.ops import slicing as slicing
from dslc.ops import sorting as sorting
from dslc.ops import statistics as statistics
from dslc.ops import transposed as transposed
from dslc.ops import triangles as triangles


def register_operators() -> Mapping[str, Operator]:
    """All operators by name. Importing this package has filled the registry, in which the frontend and the text of modules look operators
    up: whoever starts with these calls this first."""
    return OPERATORS
