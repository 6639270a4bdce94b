"""Codes of a few bits in bytes, and back.

Low bits first, in a code and in a byte: two codes of four bits lie as OpenVINO's u4 lays them.
"""

import torch

from icd_lib.errors import ArtifactError


def packed_length(count: int, bits: int) -> int:
    """Bytes that `count` codes take.

    >>> packed_length(5, 3)
    2
    """
    return -(-count * bits // 8)


def pack_bits(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 codes (rows, count), each below 2^bits, as uint8 (rows, bytes); the last byte is filled up with zeros.

    >>> pack_bits(torch.tensor([[1, 2, 15]], dtype=torch.uint8), 4).tolist()
    [[33, 15]]
    """
    if bits == 8:
        return codes.contiguous()
    rows, count = codes.shape
    filled = codes.new_zeros(rows, packed_length(count, bits) * 8)
    filled[:, : count * bits] = ((codes[..., None] >> _places(bits, codes)) & 1).reshape(rows, -1)
    return (filled.reshape(rows, -1, 8) << _places(8, codes)).sum(2, dtype=torch.uint8)


def unpack_bits(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """The inverse of `pack_bits` for so many codes a row; `ArtifactError` where the bytes are of another number.

    >>> unpack_bits(torch.tensor([[33, 15]], dtype=torch.uint8), 4, 3).tolist()
    [[1, 2, 15]]
    """
    if packed.dtype != torch.uint8 or packed.ndim != 2 or packed.shape[1] != packed_length(count, bits):
        raise ArtifactError(
            f"{count} codes of {bits} bits take {packed_length(count, bits)} bytes a row, the file has {packed.dtype} "
            f"of shape {list(packed.shape)}; write the model again with save_optimized"
        )
    if bits == 8:
        return packed
    rows = len(packed)
    single = ((packed[..., None] >> _places(8, packed)) & 1).reshape(rows, -1)[:, : count * bits]
    return (single.reshape(rows, count, bits) << _places(bits, packed)).sum(2, dtype=torch.uint8)


def _places(count: int, like: torch.Tensor) -> torch.Tensor:
    return torch.arange(count, dtype=torch.uint8, device=like.device)
