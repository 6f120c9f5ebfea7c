# %% [markdown]
"""# Register two NIfTI files

Files contain the positions of their voxels. Grids, spacings and orientations of the two may differ.
"""

# %%
import tempfile
from pathlib import Path

import numpy as np

from convexadam import RegistrationConfig, preset, read_image, register, write_image
from convexadam.data import phantom_pair
from convexadam.geometry import resample
from convexadam.io import read_itk_field, write_itk_field, write_learn2reg
from convexadam.metrics import evaluate_transform

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)

# %% [markdown]
# Make the files. The axes of the fixed scan point to left, posterior and superior; the moving scan has another grid.

# %%
affine = np.array([[-6.5, 0, 0, 200], [0, -6, 0, 150], [0, 0, 8, -145], [0, 0, 0, 1]])
pair = phantom_pair((62, 50, 37), affine=affine, displacement_mm=20, seed=1)
other = pair.moving.grid.canonical().with_spacing((7.0, 7.0, 7.0))
for name in ("fixed", "fixed_labels"):
    write_image(getattr(pair, name), folder / f"{name}.nii.gz")
for name in ("moving", "moving_labels"):
    write_image(resample(getattr(pair, name), other), folder / f"{name}.nii.gz")

# %% [markdown]
# Settings are values. They are saved as TOML, and loaded by `RegistrationConfig.load` or `--config`.

# %%
config = preset("default").with_settings("continuous.levels.0.iterations = 60")
config.save(folder / "settings.toml")
assert RegistrationConfig.load(folder / "settings.toml") == config

result = register(folder / "fixed.nii.gz", folder / "moving.nii.gz", config)
write_image(result.moved, folder / "moved.nii.gz")
result.save_summary(folder / "report.json")  # settings, times, versions, folding

# %% [markdown]
# Fields for other programs: ITK, ANTs and Slicer read the first file, Learn2Reg the second.

# %%
write_itk_field(result.transform, folder / "transform.nii.gz")
write_learn2reg(result.transform, folder / "disp.nii.gz")

transform = read_itk_field(folder / "transform.nii.gz")
labels = {f"{name}_labels": read_image(folder / f"{name}_labels.nii.gz") for name in ("fixed", "moving")}
scores = evaluate_transform(transform, **labels, surface=False)
print(f"Dice {scores['dice_before']:.3f} -> {scores['dice']:.3f}, folded {scores['folded_percent']:.3f} %")
assert scores["dice"] > scores["dice_before"]
temporary.cleanup()
