"""Adds the toy family and its shape, from outside: ICD_EXTENSIONS=toy_extension."""

from toy_family import FAMILY, SHAPE

from icd_lib.models.families import FAMILIES
from icd_lib.models.shapes import SHAPES

FAMILIES.add("toy", FAMILY)
SHAPES.add("toy-tiny", SHAPE)
