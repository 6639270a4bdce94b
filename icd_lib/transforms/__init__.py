"""What changes a model so that it is smaller or faster: a file or a folder each, one row of `TRANSFORMS`."""

from icd_lib.registry import Registry

TRANSFORMS = Registry("transforms", {"sparsity": "icd_lib.transforms.sparsity.transform:TRANSFORM"})
