"""Height maps as people see them."""

from __future__ import annotations

import torch

from posttrain.evaluate.relief import COLOURS, relief


def test_level_ground_has_the_colour_of_its_height() -> None:
    seen = relief(torch.tensor([-1.0, 0.2, 1.0])[:, None].expand(3, 16), 4).view(3, 3, 16)
    # The picture's −1, 0.2 and 1 lie at 0, 3 and 5 of six colours.
    torch.testing.assert_close(seen[..., 0], 2 * COLOURS[[0, 3, 5]] - 1)
    assert (seen == seen[..., :1]).all()


def test_light_comes_from_the_north_west() -> None:
    """The same ramp of small slope, rising to the right and falling to it: the second faces away from the light."""
    ramp = torch.linspace(-0.9, -0.89, 8).expand(8, 8)
    rising, falling, level = (relief(x.reshape(1, 64), 8).mean() for x in (ramp, ramp.flip(1), ramp * 0 - 0.895))
    assert rising > level > falling
    down = ramp.T.reshape(1, 64)
    assert relief(down, 8).mean() > level  # rises to the south: faces north
