"""What is done whenever a machine with a GPU is at hand, however briefly: `scripts/gpu`.

Stages, in the order of `stage.STAGES`, each in its own module, with

    ROW             the dataclass of what one result is
    KEY             those of its fields that say what it is of
    LEAST_S         seconds without which there is no point in starting an item
    items(setup)    what there is to do: names with functions that give rows

`leg` runs them, each in a process of its own, and keeps `results` after every item; `pack` lays out beforehand what
training needs, `collect` puts what came back in its place, and `page` writes the tables of docs/kernels.md.
"""
