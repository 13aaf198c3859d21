"""Compare a pack with a reference: files, facts, graphs, the code around them, whole images."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ...core.arrays import Image
from ...core.errors import GraphError, PackError, PackTamperedError
from ...core.pack.manifest import Manifest
from ...core.pack.store import check_file
from ..limits import doubled, limit_of, task_drop_db
from .findings import ORDER, Check, ErrorSource, LayerDifference, ParityReport, unmeasured
from .goldens import golden_source, recorded_here
from .graph_replay import IMAGE_OUTPUTS, Replayed, replay, rounding, scales, sites
from .host_replay import pipeline_source
from .images import ImageSet, budget, forms_of, forms_source, image_source, restore_all, task_source, tiling_source
from .layers import compared, pairs
from .measures import as_unit, breach, measure
from .reference import ParityReference, facts_of, load
from .variants import PackFolder, Variant, VariantChain, described, float_variant, variant_chain

__all__ = ["CompareOptions", "compare"]

PACKAGES_SHOWN = ("pocketprior", "numpy", "onnxruntime", "openvino", "coremltools")
NO_REFERENCE = "no reference was given (--against)"


class CompareOptions(NamedTuple):
    """How `compare` runs a pack, and what it compares with."""

    runtime: str = "onnxruntime"
    arithmetic: str | None = None  # of numbers other than integers; None for the pack's own
    precision: str | None = None  # of the files; None for the pack's own
    against: Path | None = None  # a reference; None for the golden restorations of the pack
    floats: Path | None = None  # the pack that it was quantized from
    layers: bool = False  # whether to compare the layers of graphs
    threads: int | None = None  # for one graph call; None for the runtime's own choice
    task: str | None = None  # of a pack whose tasks have graphs of their own; None for the first


class _Run(NamedTuple):
    """What all comparisons of a run share."""

    pack: PackFolder
    chain: VariantChain  # the variants that are compared with the reference and with one another
    variants: Sequence[Variant]  # all of them; the last is shipped
    reference: ParityReference
    recorded: bool  # False if the golden photos were restored here to stand in for a reference
    floats: Variant | None  # another pack's float graphs
    options: CompareOptions


def compare(folder: Path, options: CompareOptions | None = None) -> ParityReport:
    """Compare the pack in `folder` with its reference.

    Args:
        folder: The pack.
        options: How to run it and what to compare it with; None for the defaults.

    Returns:
        The report; `report.ok` says whether something was compared and all checks passed.

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
    found = variant_chain(pack, options.runtime, options.arithmetic, floats, options.precision)
    other = None if floats is None or found.variants[0].folder == floats.folder else float_variant(floats)
    if options.against is None:
        base, *others = found.variants
        try:
            reference = recorded_here(base, options.threads)
        except (PackError, GraphError) as error:
            broken = ErrorSource(base.source, (Check("", str(base), str(error)),))
            return _report(pack, options, "skipped: a graph failed", [files, broken])
        compared = found._replace(variants=others, missing={**found.missing, base.source: NO_REFERENCE})
        return _compared(_Run(pack, compared, found.variants, reference, False, other, options), [files])
    reference = load(options.against)
    facts = _facts_source(pack.manifest, reference)
    if facts.broken:
        return _report(pack, options, reference.origin, [files, facts])
    return _compared(_Run(pack, found, found.variants, reference, True, other, options), [files, facts])


def _compared(run: _Run, sources: list[ErrorSource]) -> ParityReport:
    """All comparisons, once the files and facts are known to be right."""
    known, reference, threads = run.pack.manifest, run.reference, run.options.threads
    replayed = replay(run.chain, reference, known, threads)
    restored = {variant.source: restore_all(variant, reference, threads) for variant in run.chain.variants}
    shipped = restored[run.variants[-1].source] if restored else restore_all(run.variants[-1], reference, threads)
    limit = limit_of(run.chain.kind, known)
    final, images = image_source(shipped, reference, limit)
    form_limit = limit_of("form", known) if run.chain.kind == "fp32" else doubled(limit)
    sources += [*replayed.sources, *unmeasured(_missing(run, replayed)), _kernel_source(run), _steps_source(run)]
    sources += [
        tiling_source(run.variants[-1], shipped, reference, limit, threads),
        forms_source(run.variants[-1], reference, form_limit, threads),
        golden_source(run.pack, run.variants[-1], threads),
    ]
    steps = [("", ImageSet(_references(run), {})), *restored.items()]
    if run.recorded:
        host, answered = pipeline_source(known, reference, limit_of("host", known))
        sources += [host, task_source(shipped, reference, task_drop_db(known))]
        steps.insert(1, ("pipeline", answered))
    else:
        sources += unmeasured(dict.fromkeys(("pipeline", "task"), NO_REFERENCE))
    sources += [final] if run.recorded or restored else unmeasured({"picture": NO_REFERENCE})
    report = _report(run.pack, run.options, reference.origin, sources)
    layers, note = _layers(run, replayed) if run.options.layers else ([], "")
    return replace(
        report,
        environment={
            **report.environment,
            **{f"reference {name}": words for name, words in reference.about.environment.items()},
        },
        runs=tuple(f"{variant.source}: {variant}" for variant in run.chain.variants),
        budget=budget(steps),
        images=tuple(images),
        layers=tuple(layers),
        notes=(*_notes(run), *([note] if note else [])),
    )


def _report(pack: PackFolder, options: CompareOptions, reference: str, sources: Sequence[ErrorSource]) -> ParityReport:
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
            **_versions(),
        },
        runs=(),
        sources=tuple(sorted(sources, key=lambda source: ORDER.index(source.name))),
    )


def _files_source(pack: PackFolder) -> ErrorSource:
    checks: list[Check] = []
    for packed in pack.manifest.files():
        try:
            check_file(pack.folder, packed)
            checks.append(Check("", packed.file, ""))
        except PackTamperedError as error:
            checks.append(Check("", packed.file, str(error)))
    return ErrorSource("files", tuple(checks))


def _facts_source(manifest: Manifest, reference: ParityReference) -> ErrorSource:
    """Compare the manifest with the reference: the model, its sampling and the interfaces of its graphs."""
    here, there = json.loads(facts_of(manifest)), json.loads(reference.about.facts)
    graphs = here.pop("graphs"), there.pop("graphs")
    fields = here.pop("receptive_field"), there.pop("receptive_field")
    checks = [_fact(name, here.get(name), there.get(name)) for name in there]
    checks += [_fact(f"interface of {name}", own, graphs[1].get(name)) for name, own in graphs[0].items()]
    checks += [_fact(f"receptive_field of {name}", own, fields[1].get(name)) for name, own in fields[0].items()]
    checks.append(_fact("checkpoint", manifest.made_by.get("checkpoint"), reference.about.checkpoint))
    return ErrorSource("facts", tuple(checks))


def _fact(name: str, here: object, there: object) -> Check:
    problem = f"the pack says {_short(here)}, the reference {_short(there)}"
    return Check("", name, "" if here == there else problem)


def _short(fact: object) -> str:
    text = json.dumps(fact)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kernel_source(run: _Run) -> ErrorSource:
    """Compare fused kernels with plain PyTorch, as recorded on the machine of the reference."""
    reference, limit = run.reference, limit_of("fp32", run.pack.manifest)
    units, checks = scales(reference), list[Check]()
    for site in sites(reference):
        outputs = reference.named(site.call.outputs)
        for name, fused in reference.named(site.call.kernels).items():
            found = measure(fused, outputs[name], units[site.call.graph, name])
            problem = breach(found, limit, image=name in IMAGE_OUTPUTS)
            checks.append(Check(site.call.graph, site.place(name), problem, found))
    if checks:
        return ErrorSource("kernel", tuple(checks), limit)
    reason = f"{reference.origin}; fused kernels run on CUDA" if run.recorded else NO_REFERENCE
    return ErrorSource("kernel", (), reason=reason)


def _steps_source(run: _Run) -> ErrorSource:
    """Compare the model with its teacher, without a limit: fewer steps change an image on purpose."""
    checks: list[Check] = []
    for case in run.reference.about.cases:
        if case.teacher is not None:
            form = forms_of(run.pack.manifest)[-1]
            mine, teacher = (as_unit(run.reference.arrays[key]) for key in (case.pictures[form], case.teacher))
            checks.append(Check("", f"against the teacher, {case.name}", "", measure(mine, teacher)))
    reason = "no teacher was recorded (--teacher)" if run.recorded else NO_REFERENCE
    return ErrorSource("steps", tuple(checks), reason="" if checks else reason)


def _missing(run: _Run, replayed: Replayed) -> dict[str, str]:
    """Error sources that were not measured, with the reasons."""
    measured = {source.name for source in replayed.sources}
    after = {variant.source: "the variant before it cannot be opened" for variant in run.chain.variants}
    return {name: why for name, why in {**run.chain.missing, **after}.items() if name not in measured}


def _layers(run: _Run, replayed: Replayed) -> tuple[list[LayerDifference], str]:
    """The layers worth a look, and a note if there are none."""
    known = [site for site in sites(run.reference) if site.call.graph in run.pack.manifest.graphs]
    looked, note = pairs(run.variants, replayed.first, known, run.floats)
    layers: list[LayerDifference] = []
    for pair in looked:
        try:
            layers += compared(pair, run.reference, limit_of(pair.kind, run.pack.manifest))
        except (GraphError, PackError) as error:
            note = f"layers of {pair.site.call.graph} could not be compared: {error}"
    return layers, note


def _references(run: _Run) -> dict[tuple[str, str], Image]:
    return {
        (form, case.name): run.reference.arrays[case.pictures[form]]
        for case in run.reference.about.cases
        for form in forms_of(run.pack.manifest)
        if form in case.pictures
    }


def _notes(run: _Run) -> Iterator[str]:
    largest = max(rounding(run.reference).values(), default=0.0)
    if largest > 0:
        floor = -20 * math.log10(largest)
        yield f"PyTorch in float32 is itself {floor:.1f} dB from PyTorch in float64, at the worst of these calls"


def _versions() -> dict[str, str]:
    return {package: version(package) for package in PACKAGES_SHOWN if find_spec(package) is not None}
