"""What can be permuted: axes as data, and the operations on them."""

from icd_lib.axes.axis import Attribute, Axis, Slot
from icd_lib.axes.compact import compact
from icd_lib.axes.permutation import check_permutation, hash_permutation, invert_permutation
from icd_lib.axes.permute import permute
from icd_lib.axes.verify import verify_axes

__all__ = [
    "Attribute",
    "Axis",
    "Slot",
    "check_permutation",
    "compact",
    "hash_permutation",
    "invert_permutation",
    "permute",
    "verify_axes",
]
