"""Compare a pack with a reference: files, facts, graphs, the code around them, whole images."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...core.errors import GraphError, PackError
from ...core.pack.manifest import Manifest
from ...core.restore.reference import ParityReference, facts_of, load
from ...core.restore.selftest import file_check
from ..limits import doubled, limit_of, task_drop_db
from . import images
from .call_replay import kernel_source, pipeline_source, replay, rounding
from .findings import ORDER, Check, ErrorSource, LayerDifference, ParityReport, unmeasured
from .layers import layer_differences
from .variants import CompareOptions, PackFolder, Variant, VariantChain, described, float_variant, variant_chain

__all__ = ["CompareOptions", "compare"]

PACKAGES_SHOWN = ("pocketprior", "numpy", "onnxruntime", "openvino", "coremltools")
NO_REFERENCE = "no reference was given (--against)"


def compare(folder: Path, options: CompareOptions | None = None) -> ParityReport:
    """Compare the pack in `folder` with its reference; `report.ok` says whether all that was compared passed.

    options: How to run it and what to compare it with; None for the defaults.

    Raises:
        PackError: The manifest or the reference cannot be used.
        UsageError: Options do not fit together, or the machine lacks what they ask for.
        UnknownNameError: The pack does not have the task.
    """
    options = options or CompareOptions()
    whole = Manifest.load(folder)
    pack = PackFolder(folder, whole.of(options.task))
    files = _files_source(PackFolder(folder, whole))
    if files.broken:
        return _report(pack, options, "skipped: file checks failed", [files])
    floats = options.floats and PackFolder(options.floats, Manifest.load(options.floats).of(options.task))
    chain = variant_chain(pack, options, floats)
    if options.against is not None:
        reference = load(options.against)
        facts = _facts_source(pack.manifest, reference)
        if facts.broken:
            return _report(pack, options, reference.origin, [files, facts])
        return _compared(pack, chain, chain.variants, reference, [files, facts], options, floats)
    base, *others = chain.variants
    try:
        reference = images.recorded_here(base)
    except (PackError, GraphError) as error:
        broken = ErrorSource(base.source, [Check("", str(base), str(error))])
        return _report(pack, options, "skipped: a graph failed", [files, broken])
    chain = chain._replace(missing={**chain.missing, base.source: NO_REFERENCE})
    return _compared(pack, chain, others, reference, [files], options, floats)


def _compared(
    pack: PackFolder,
    chain: VariantChain,
    variants: Sequence[Variant],
    reference: ParityReference,
    sources: list[ErrorSource],
    options: CompareOptions,
    floats: PackFolder | None,
) -> ParityReport:
    """All comparisons, once the files and facts are known to be right; `variants` are those that need a reference."""
    known, last = pack.manifest, chain.variants[-1]
    replayed, first = replay(variants, reference, known)
    restored = {variant.source: images.restore_all(variant, reference) for variant in variants}
    shipped = restored[last.source] if restored else images.restore_all(last, reference)
    limit = limit_of(chain.kind, known)
    final, results = images.image_source(shipped, reference, limit)
    form_limit = limit_of("form", known) if chain.kind == "fp32" else doubled(limit)
    measured = {source.name for source in replayed}
    after = {variant.source: "the variant before it cannot be opened" for variant in variants}
    missing = {name: why for name, why in {**chain.missing, **after}.items() if name not in measured}
    sources += [
        *replayed,
        *unmeasured(missing),
        images.tiling_source(last, shipped, reference, limit),
        images.forms_source(last, reference, form_limit),
        images.golden_source(pack, last),
    ]
    recorded = {
        (form, case.name): reference.arrays[case.pictures[form]]
        for case in reference.about.cases
        for form in images.forms_of(known)
        if form in case.pictures
    }
    steps = [("", images.ImageSet(recorded, {})), *restored.items()]
    if options.against is not None:
        host, answered = pipeline_source(known, reference, limit_of("host", known))
        sources += [
            host,
            kernel_source(reference, limit_of("fp32", known)),
            images.task_source(shipped, reference, task_drop_db(known)),
            images.steps_source(reference, images.forms_of(known)[-1]),
        ]
        steps.insert(1, ("pipeline", answered))
    else:
        sources += unmeasured(dict.fromkeys(("kernel", "pipeline", "task", "steps"), NO_REFERENCE))
    sources += [final] if options.against is not None or restored else unmeasured({"picture": NO_REFERENCE})
    notes: list[str] = []
    largest = max(rounding(reference).values(), default=0.0)
    if largest > 0:
        floor = f"{-20 * math.log10(largest):.1f} dB"
        notes.append(f"PyTorch in float32 is itself {floor} from PyTorch in float64, at the worst of these calls")
    layers: list[LayerDifference] = []
    if options.layers:
        other = None if floats is None or chain.variants[0].folder == floats.folder else float_variant(floats)
        layers, note = layer_differences(chain.variants, first, reference, known, other)
        notes += [note] if note else []
    return _report(
        pack,
        options,
        reference.origin,
        sources,
        {f"reference {name}": words for name, words in reference.about.environment.items()},
        runs=[f"{variant.source}: {variant}" for variant in variants],
        budget=images.budget(steps),
        images=results,
        layers=layers,
        notes=notes,
    )


def _report(
    pack: PackFolder,
    options: CompareOptions,
    reference: str,
    sources: Sequence[ErrorSource],
    recorded_on: Mapping[str, str] | None = None,
    **found: Any,
) -> ParityReport:
    return ParityReport(
        pack=pack.manifest.name,
        model=pack.manifest.model,
        runtime=described(options.runtime),
        precision=options.precision or "as packed",
        arithmetic=options.arithmetic or "as packed",
        reference=reference,
        environment={
            "processor": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES_SHOWN if find_spec(package) is not None},
            **(recorded_on or {}),
        },
        sources=sorted(sources, key=lambda source: ORDER.index(source.name)),
        **found,
    )


def _files_source(pack: PackFolder) -> ErrorSource:
    checks = [file_check(pack.folder, packed) for packed in pack.manifest.files()]
    return ErrorSource("files", [Check("", check.file, check.problem) for check in checks])


def _facts_source(manifest: Manifest, reference: ParityReference) -> ErrorSource:
    """Compare the manifest with the reference: the model, its sampling and the interfaces of its graphs."""
    here, there = json.loads(facts_of(manifest)), json.loads(reference.about.facts)
    graphs = here.pop("graphs"), there.pop("graphs")
    fields = here.pop("receptive_field"), there.pop("receptive_field")
    checks = [_fact(name, here.get(name), there.get(name)) for name in there]
    checks += [_fact(f"interface of {name}", own, graphs[1].get(name)) for name, own in graphs[0].items()]
    checks += [_fact(f"receptive_field of {name}", own, fields[1].get(name)) for name, own in fields[0].items()]
    checks.append(_fact("checkpoint", manifest.made_by.get("checkpoint"), reference.about.checkpoint))
    return ErrorSource("facts", checks)


def _fact(name: str, here: object, there: object) -> Check:
    problem = f"the pack says {_short(here)}, the reference {_short(there)}"
    return Check("", name, "" if here == there else problem)


def _short(fact: object) -> str:
    text = json.dumps(fact)
    return text if len(text) <= 60 else f"{text[:57]}..."
