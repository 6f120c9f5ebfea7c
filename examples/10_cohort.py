# %% [markdown]
"""# A cohort

Three images are registered to a fourth one. One of the files is damaged; when it has been replaced, the same call
registers this pair and keeps the others.
"""

# %%
import csv
from pathlib import Path
from tempfile import TemporaryDirectory

from convexadam.cohort import PairFiles, register_cohort
from convexadam.data import phantom_pair
from convexadam.io import write_image


def write_study(folder: Path) -> list[PairFiles]:
    """Write images and labels of four people, and return the pairs of the first with each other one."""
    pairs = []
    for number in range(4):
        person = phantom_pair((32, 28, 24), displacement_mm=1.0 + 5.0 * (number > 0) + 3.0 * number, seed=5)
        write_image(person.fixed, folder / f"{number}.nii.gz")
        write_image(person.fixed_labels, folder / f"{number}_labels.nii.gz")
        files = {"moving": folder / f"{number}.nii.gz", "moving_labels": folder / f"{number}_labels.nii.gz"}
        atlas = {"fixed": folder / "0.nii.gz", "fixed_labels": folder / "0_labels.nii.gz"}
        if number:
            pairs.append(PairFiles(id=f"person-{number}", **files, **atlas))
    return pairs


# %%
with TemporaryDirectory() as temporary:
    study = Path(temporary)
    pairs = write_study(study)
    content = pairs[0].moving.read_bytes()
    pairs[0].moving.write_bytes(content[:1000])
    for outcome in register_cohort(pairs, output_dir=study / "out"):
        print(outcome.id, outcome.status, outcome.error or outcome.verdict)
    pairs[0].moving.write_bytes(content)
    statuses = {outcome.id: outcome.status for outcome in register_cohort(pairs, output_dir=study / "out")}
    print(statuses)
    with (study / "out" / "cohort.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
for row in rows:
    print(f"{row['id']}: Dice {float(row['dice_before']):.3f} -> {float(row['dice']):.3f}, verdict {row['verdict']}")
assert statuses == {"person-1": "done", "person-2": "kept", "person-3": "kept"}
assert sum(float(row["dice"]) - float(row["dice_before"]) for row in rows) > 0.03
