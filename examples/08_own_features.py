# %% [markdown]
"""# Features of your own

What is compared is any function of an image that describes each of its voxels.
"""

# %%
import torch
from torch.nn.functional import avg_pool3d

from convexadam import Concat, Image, MindSSC, Precomputed, RegistrationConfig, register
from convexadam.data import phantom_pair
from convexadam.metrics import dice

pair = phantom_pair((64, 54, 48), contrasts=("t1", "t2"), displacement_mm=25, seed=3)


def overlap(moved_labels) -> float:
    """Mean Dice of all organs."""
    scores = dice(pair.fixed_labels.data[0], moved_labels.data[0])
    return sum(scores.values()) / len(scores)


# %% [markdown]
# Edges lie at the same places in all contrasts. `weight` is 0 where there is no evidence.


# %%
def edges(image: Image, /, *, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Strength of edges at two scales, [2, i, j, k], in [0, 1)."""
    channels, seen = [], slice(None) if weight is None else weight > 0
    for width in (1, 3):
        smooth = avg_pool3d(image.data.float(), width, stride=1, padding=width // 2, count_include_pad=False)[0]
        strength = torch.stack(torch.gradient(smooth)).square().sum(0).sqrt()
        channels.append(strength / (strength + strength[seen].mean() + 1e-6))
    return torch.stack(channels)


# %% [markdown]
# Squared differences of all channels are summed up: the weight of a part says how far it is trusted.

# %%
found = {"nothing": overlap(pair.moving_labels)}
both = Concat(parts=(MindSSC(), edges), weights=(1.0, 2.0))
for name, features in (("MIND", MindSSC()), ("edges", edges), ("both", both)):
    result = register(pair.fixed, pair.moving, RegistrationConfig(features=features))
    found[name] = overlap(result.transform.warp(pair.moving_labels))
print("mean Dice by what was compared:", ", ".join(f"{name} {score:.3f}" for name, score in found.items()))

# %% [markdown]
# Maps that exist already are images of several channels, each with its own grid.

# %%
maps = [Image(edges(image), image.grid) for image in (pair.fixed, pair.moving)]
result = register(*maps, RegistrationConfig(features=Precomputed(), linear=None))
found["maps"] = overlap(result.transform.warp(pair.moving_labels))
print(f"from maps: {found['maps']:.3f}")
assert min(found["edges"], found["both"], found["maps"]) > found["nothing"] + 0.02
