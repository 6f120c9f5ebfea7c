# %% [markdown]
"""# A template of a group

Three scans of one shape, each deformed, become a template with their mean shape.
"""

# %%
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

from convexadam import read_image, write_image
from convexadam.data import phantom_pair
from convexadam.metrics import dice
from convexadam.template import build_template

folder = tempfile.TemporaryDirectory()
scans = Path(folder.name)
rows = ["id,image,labels"]
for seed in range(3):
    pair = phantom_pair((40, 34, 30), displacement_mm=15, seed=seed)
    write_image(pair.moving, scans / f"{seed}.nii.gz")
    write_image(pair.moving_labels, scans / f"{seed}_labels.nii.gz")
    rows.append(f"scan-{seed},{seed}.nii.gz,{seed}_labels.nii.gz")
(scans / "scans.csv").write_text("\n".join(rows) + "\n")

# %% [markdown]
# The same call continues an interrupted run. `convexadam template scans.csv --output-dir template` does the same.

# %%
template = build_template(scans / "scans.csv", output_dir=scans / "template", linear_rounds=1, rounds=1)
for one in template.rounds:
    print(f"round {one.number}: intensities changed by {one.change_percent:.1f} %")
print(f"{template.image.grid}, {template.bias_mm:.3f} mm from the mean shape of {len(template.scans)} scans")
assert template.bias_mm < 0.2

# %% [markdown]
# A coronal slice of each scan, and of the template.

# %%
# %matplotlib inline
figure = Figure(figsize=(9, 2.6), layout="constrained")
shown = {name: read_image(scans / f"{name[-1]}.nii.gz") for name in template.scans} | {"template": template.image}
for axes, (name, image) in zip(figure.subplots(1, 4), shown.items(), strict=True):
    axes.imshow(image.slice("coronal"), cmap="gray", aspect="auto")
    axes.set(title=name, xticks=[], yticks=[])
figure

# %% [markdown]
# The labels of the scans on the template, and their vote.

# %%
labels = [read_image(scans / "template" / "scans" / name / "labels.nii.gz") for name in template.scans]
scores = dice(labels[0], labels[1])
print(f"mean Dice of two scans on the template: {sum(scores.values()) / len(scores):.3f}")
assert sum(scores.values()) / len(scores) > 0.4
folder.cleanup()
