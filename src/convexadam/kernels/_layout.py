"""How the channels and points of feature maps lie in memory."""

from __future__ import annotations

from convexadam._typing import Channels, Shaped, Tensor


def find_memory(maps: Channels) -> tuple[Shaped[Tensor, " n"], int, int] | None:
    """Return the memory of maps, how far channels lie apart there, and how far neighbouring points.

    The memory is that from the first to the last value. ``None`` unless points lie evenly, in their order: so do those
    of channels that are first or last in memory, or some of them.
    """
    points, (apart, *steps, along) = maps[0].numel(), maps.stride()
    _, _, n1, n2 = maps.shape
    if steps != [n1 * n2 * along, n2 * along]:
        return None
    return maps.as_strided(((len(maps) - 1) * apart + (points - 1) * along + 1,), (1,)), apart, along
