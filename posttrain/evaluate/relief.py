"""Height maps as people see them: coloured by height, lit from the north-west."""

from __future__ import annotations

import torch
from torch import Tensor

from posttrain.rewards.terrain import CELL, heights

COLOURS = torch.tensor([  # of pictures from −1 to 1, evenly: grass, scrub, earth, rock, snow
    [0.36, 0.53, 0.32], [0.55, 0.63, 0.36], [0.78, 0.70, 0.48], [0.62, 0.50, 0.40], [0.60, 0.57, 0.56],
    [0.97, 0.97, 0.98]])
LIGHT = torch.tensor([-0.5, -0.5, 0.7071])  # of length 1: where it comes from, right, down and up


def relief(picture: Tensor, width: int) -> Tensor:
    """[n, D] -> [n, 3 D] in [−1, 1], channel by channel: rows of `width` heights as a shaded map."""
    h = heights(picture, width).float()
    down, right = torch.gradient(h, spacing=CELL, dim=(1, 2))
    normal = torch.stack([-right, -down, torch.ones_like(h)], 3)
    lit = (normal @ LIGHT / normal.norm(dim=3)).clamp(0.1, 1) / LIGHT[2]  # 1 on the level
    place = (picture.float().clamp(-1, 1).view_as(h) + 1) / 2 * (len(COLOURS) - 1)
    below = place.long().clamp(max=len(COLOURS) - 2)
    colour = torch.lerp(COLOURS[below], COLOURS[below + 1], (place - below)[..., None])
    seen: Tensor = (2 * colour * lit[..., None] - 1).clamp(-1, 1)
    return seen.permute(0, 3, 1, 2).flatten(1)
