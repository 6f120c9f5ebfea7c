# %% [markdown]
"""# In a training loop

A small network learns to improve the features of a CT and an MR scan, through the cost volume of the search and the
displacement that it implies. Its features then serve in a registration.
"""

# %%
import torch
from torch.nn.functional import leaky_relu

from convexadam import ConvexSearch, Image, MindSSC, RegistrationConfig, register
from convexadam.data import PhantomPair, phantom_pair
from convexadam.discrete import Window, cost_volume, soft_displacement

pairs = [phantom_pair((28, 24, 20), contrasts=("ct", "t1"), displacement_mm=25, seed=seed) for seed in range(5)]
*training, held_out = pairs


class Improved(torch.nn.Module):
    """Eight channels from the twelve of MIND; the same network for both contrasts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Conv3d(12, 12, 3, padding=1), torch.nn.Conv3d(12, 8, 3, padding=1)

    def forward(self, image: Image) -> torch.Tensor:
        """Return feature maps, [8, i, j, k]."""
        return torch.tanh(self.second(leaky_relu(self.first(MindSSC()(image)[None]), 0.1)))[0]


# %% [markdown]
# Costs of all displacements up to two voxels, as in the search. `soft_displacement` is their mean, weighted by how
# well the features match, and has a gradient. The loss is the distance to the true displacement within the organs.

# %%
window = Window((2, 2, 2), ball=True)


def error_vox(features, pair: PhantomPair) -> torch.Tensor:
    """Mean distance to the true displacement within the organs, in voxels."""
    costs = cost_volume(features(pair.fixed), features(pair.moving), window)
    disp_vox = soft_displacement(costs, window, sharpness=10.0)
    return (disp_vox - pair.disp_vox).norm(dim=0)[pair.fixed_labels.data[0] > 0].mean()


torch.manual_seed(0)
network = Improved()
optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
for step in range(20):
    loss = error_vox(network, training[step % len(training)])
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if step % 4 == 0:
        print(f"step {step}: {loss.item():.2f} voxels")

# %% [markdown]
# On a pair that the network has not seen:

# %%
with torch.no_grad():
    scores = {"MIND": error_vox(MindSSC(), held_out).item(), "learned": error_vox(network, held_out).item()}
    scores["no registration"] = held_out.disp_vox.norm(dim=0)[held_out.fixed_labels.data[0] > 0].mean().item()
print("error in voxels:", ", ".join(f"{name} {score:.2f}" for name, score in scores.items()))
assert scores["learned"] < scores["MIND"] < scores["no registration"]

# %% [markdown]
# A function of an image is an extractor: the learned features in a registration.


# %%
@torch.no_grad()
def learned(image: Image, /, *, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Feature maps of the trained network, [8, i, j, k]."""
    return network(image)


config = RegistrationConfig(linear=None, discrete=ConvexSearch(spacing=2, radius=2), features=learned)
result = register(held_out.fixed, held_out.moving, config)
print({name: round(value, 3) for name, value in result.diagnostics.items() if name.startswith("dissimilarity")})
assert result.diagnostics["dissimilarity_after"] < result.diagnostics["dissimilarity_before"]
