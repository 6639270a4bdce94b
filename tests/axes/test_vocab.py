import copy

import torch
from torch import nn

from icd_lib.axes.vocab import apply_token_map, install_token_map


def test_rows_move_and_token_ids_stay():
    generator = torch.Generator().manual_seed(0)
    table, decoder = nn.Embedding(5, 3), nn.Linear(3, 5)
    nn.init.normal_(decoder.bias, generator=generator)
    ids, hidden = torch.arange(5), torch.randn(2, 3, generator=generator)
    rows, logits = table(ids), decoder(hidden)
    perm = torch.tensor([2, 0, 1, 4, 3])
    for module in (table, decoder):
        install_token_map(module)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(parameter[perm].clone())
        apply_token_map(module, torch.argsort(perm))
    assert torch.equal(table(ids), rows)
    assert torch.allclose(decoder(hidden), logits, atol=1e-6)


def test_installing_twice_keeps_the_map_and_the_parameters():
    table = nn.Embedding(4, 2)
    weight = table.weight
    install_token_map(table)
    apply_token_map(table, torch.tensor([1, 2, 0, 3]))
    install_token_map(table)
    assert table.weight is weight
    assert table.id_map.tolist() == [1, 2, 0, 3]
    assert copy.deepcopy(table).id_map.tolist() == [1, 2, 0, 3]
