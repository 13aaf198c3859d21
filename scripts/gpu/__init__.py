"""What a developer does with the kernels on a CUDA machine: `scripts/gpu/run`. Not a part of the package.

`verify`, `bench`, `record` and `train` are the parts of the command; the `items(setup)` of each lists what there is to
do. `ahead` compiles kernels without a GPU, and `page` writes what that finds to docs/kernels.md.
"""
