# %% [markdown]
"""# Your own features

Any function that computes a vector of numbers for each voxel of an image can serve as features.
"""

# %%
import torch
from torch.nn.functional import avg_pool3d

from convexadam import Concat, Image, MindSSC, Precomputed, RegistrationConfig, register
from convexadam.data import phantom_pair
from convexadam.metrics import dice

pair = phantom_pair((48, 40, 36), contrasts=("t1", "t2"), displacement_mm=25, seed=3)


def overlap(moved_labels) -> float:
    """Mean Dice of all organs."""
    per_label = dice(pair.fixed_labels.data[0], moved_labels.data[0])
    return sum(per_label.values()) / len(per_label)


# %% [markdown]
# Edges are at the same positions in all contrasts. `weight` is 0 outside the mask and the field of view.


# %%
def edges(image: Image, /, *, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Edge strength at two scales, [2, i, j, k], in [0, 1)."""
    channels, inside = [], slice(None) if weight is None else weight > 0
    for width in (1, 3):
        smooth = avg_pool3d(image.data.float(), width, stride=1, padding=width // 2, count_include_pad=False)[0]
        strength = torch.stack(torch.gradient(smooth)).square().sum(0).sqrt()
        channels.append(strength / (strength + strength[inside].mean() + 1e-6))
    return torch.stack(channels)


# %% [markdown]
# Squared differences of all channels are summed; the weights set the influence of each part.

# %%
scores = {"before": overlap(pair.moving_labels)}
both = Concat(parts=(MindSSC(), edges), weights=(1.0, 2.0))
for name, features in (("MIND", MindSSC()), ("edges", edges), ("both", both)):
    result = register(pair.fixed, pair.moving, RegistrationConfig(features=features))
    scores[name] = overlap(result.transform.warp(pair.moving_labels))
print("mean Dice by features:", ", ".join(f"{name} {score:.3f}" for name, score in scores.items()))

# %% [markdown]
# Precomputed feature maps are images with several channels, each with its own grid.

# %%
maps = [Image(edges(image), image.grid) for image in (pair.fixed, pair.moving)]
result = register(*maps, RegistrationConfig(features=Precomputed(), linear=None))
scores["maps"] = overlap(result.transform.warp(pair.moving_labels))
print(f"from maps: {scores['maps']:.3f}")
assert min(scores["edges"], scores["both"], scores["maps"]) > scores["before"] + 0.02
