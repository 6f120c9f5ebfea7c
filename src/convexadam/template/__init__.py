"""Unbiased templates of a group of images.

The output folder holds

- ``template.nii.gz`` and ``deviation.nii.gz``: the average of the scans, and their standard deviation at each voxel;
- ``convergence.csv``: one row for each round (see `TemplateRound`);
- ``scans/ID/`` for each scan: ``transform.nii.gz`` from the template to the scan, ``log_jacobian.nii.gz``, and
  ``labels.nii.gz`` if the scan has labels, on the grid of the template;
- ``labels.nii.gz`` and ``confidence.nii.gz``: the majority vote of these labels;
- ``rounds/NN/``: the template that a round starts with, ``initial/``, the affine transforms at which deformable
  registrations start, and the registrations, a cohort (see `convexadam.cohort`), from which an interrupted run
  continues.
"""

from convexadam.template.build import Template, TemplateRound, build_template

__all__ = ["Template", "TemplateRound", "build_template"]
