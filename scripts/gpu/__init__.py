"""What a developer does with the kernels on a CUDA machine: `scripts/gpu/run`. Not a part of the package.

`verify`, `bench`, `record` and `train` are the parts of the command; the `items(setup)` of each lists what there is to
do as (name, iterator of result rows). `tables` writes what is known of the ops without a GPU to docs/kernels.md.
"""
