"""A pack held against a reference: files, facts, graphs, the code around them, whole pictures."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from ...core.arrays import Image
from ...core.errors import GraphError, PackError, PackTamperedError
from ...core.pack.manifest import Manifest, PackedFile
from ...core.pack.store import check_file
from .finals import Pictures, budget, forms_of, forms_stage, paint, picture_stage, task_stage, tiling_stage
from .findings import ORDER, Check, Layer, Report, Stage, unmeasured
from .golden import golden_stage, recorded_here
from .graphs import PICTURES, Replayed, replay, rounding, scales, sites
from .host import Replay, compare_pictures
from .layers import compared, pairs
from .legs import Chain, Leg, Pack, chain, described, float_leg
from .limits import breach, drop_of, limit_of, twice
from .measures import as_unit, measure
from .recording import Recording, facts_of, load

__all__ = ["Wanted", "compare"]

PACKAGES = ("pocketprior", "numpy", "onnxruntime", "openvino", "coremltools")
ALONE = "no recording was given: --against names one"


class Wanted(NamedTuple):
    """How a pack is to be run, and against what; None for what the pack says, or brings along.

    precision: of the files. against: a recording. floats: the pack that it was quantized from. layers: whether to look
    into graphs. task: of a pack whose tasks have graphs of their own.
    """

    runtime: str = "onnxruntime"
    arithmetic: str | None = None
    precision: str | None = None
    against: Path | None = None
    floats: Path | None = None
    layers: bool = False
    threads: int | None = None
    task: str | None = None


class _Run(NamedTuple):
    """What is the same for all comparisons of a run.

    legs: all of them; the last is what is shipped. chain: those that are held against the recording and one another.
    recorded: whether there is a recording, or the golden photos were restored here to stand for one. floats: another
    pack's float graphs, if one was named.
    """

    pack: Pack
    chain: Chain
    legs: Sequence[Leg]
    recording: Recording
    recorded: bool
    floats: Leg | None
    wanted: Wanted


def compare(folder: Path, wanted: Wanted) -> Report:
    """Compare the pack in `folder` with its reference.

    Raises PackError and its kinds for a manifest or a recording that cannot be used, UsageError for options that do
    not fit, UnknownNameError for a task that the pack does not have.
    """
    whole = Manifest.load(folder)
    pack = Pack(folder, whole.of(wanted.task))
    files = _files_stage(Pack(folder, whole))
    if files.broken:
        return _report(pack, wanted, "none: the files come first", [files])
    floats = None if wanted.floats is None else Pack(wanted.floats, Manifest.load(wanted.floats).of(wanted.task))
    found = chain(pack, wanted.runtime, wanted.arithmetic, floats, wanted.precision)
    other = None if floats is None or found.legs[0].folder == floats.folder else float_leg(floats)
    if wanted.against is None:
        base, *others = found.legs
        try:
            recording = recorded_here(base, wanted.threads)
        except (PackError, GraphError) as error:
            broken = Stage(base.stage, (Check("", str(base), str(error)),))
            return _report(pack, wanted, "none: the graphs come first", [files, broken])
        alone = found._replace(legs=others, missing={**found.missing, base.stage: ALONE})
        return _compared(_Run(pack, alone, found.legs, recording, False, other, wanted), [files])
    recording = load(wanted.against)
    facts = _facts_stage(pack.manifest, recording)
    if facts.broken:
        return _report(pack, wanted, recording.origin, [files, facts])
    return _compared(_Run(pack, found, found.legs, recording, True, other, wanted), [files, facts])


def _compared(run: _Run, stages: list[Stage]) -> Report:
    """Everything that there is to compare once files and facts hold."""
    known, recording, threads = run.pack.manifest, run.recording, run.wanted.threads
    replayed = replay(run.chain, recording, known, threads)
    painted = {leg.stage: paint(leg, recording, threads) for leg in run.chain.legs}
    shipped = painted[run.legs[-1].stage] if painted else paint(run.legs[-1], recording, threads)
    limit = limit_of(run.chain.kind, known)
    host, answered = _pipeline_stage(run)
    pictured, pictures = picture_stage(shipped, recording, limit)
    stages += [*replayed.stages, *unmeasured(_missing(run, replayed)), host, _kernel_stage(run), _steps_stage(run)]
    stages += [
        tiling_stage(run.legs[-1], shipped, recording, limit, threads),
        forms_stage(
            run.legs[-1], recording, limit_of("form", known) if run.chain.kind == "fp32" else twice(limit), threads
        ),
        pictured if run.recorded or painted else Stage("picture", (), reason=ALONE),
        task_stage(shipped, recording, drop_of(known)) if run.recorded else Stage("task", (), reason=ALONE),
        golden_stage(run.pack, run.legs[-1], threads),
    ]
    reference = Pictures(_references(run), {})
    shares = budget([("", reference), *([("pipeline", answered)] if run.recorded else []), *painted.items()])
    report = _report(run.pack, run.wanted, recording.origin, stages)
    layers, said = _layers(run, replayed) if run.wanted.layers else ([], "")
    return replace(
        report,
        environment={**report.environment, **_origin(recording)},
        runs=tuple(f"{leg.stage}: {leg}" for leg in run.chain.legs),
        budget=shares,
        pictures=tuple(pictures),
        layers=tuple(layers),
        notes=(*_notes(run), *([said] if said else [])),
    )


def _origin(recording: Recording) -> dict[str, str]:
    """Where the reference is from, beside what tells where this run was."""
    return {f"reference {name}": words for name, words in recording.about.environment.items()}


def _report(pack: Pack, wanted: Wanted, reference: str, stages: Sequence[Stage]) -> Report:
    return Report(
        pack=pack.manifest.name,
        model=pack.manifest.model,
        runtime=described(wanted.runtime),
        precision=wanted.precision or "as packed",
        arithmetic=wanted.arithmetic or "as packed",
        reference=reference,
        environment={"processor": _processor(), "python": platform.python_version(), **_versions()},
        runs=(),
        stages=tuple(sorted(stages, key=lambda stage: ORDER.index(stage.name))),
    )


def _files_stage(pack: Pack) -> Stage:
    return Stage("files", tuple(Check("", packed.file, _tampering(pack, packed)) for packed in pack.manifest.files()))


def _tampering(pack: Pack, packed: PackedFile) -> str:
    try:
        check_file(pack.folder, packed)
    except PackTamperedError as error:
        return str(error)
    return ""


def _facts_stage(manifest: Manifest, recording: Recording) -> Stage:
    """The manifest against the recording: whether it is of this model, and is to be sampled so."""
    here, there = json.loads(facts_of(manifest)), json.loads(recording.about.facts)
    graphs = here.pop("graphs"), there.pop("graphs")
    reach = here.pop("receptive_field"), there.pop("receptive_field")
    checks = [_fact(name, here.get(name), there.get(name)) for name in there]
    checks += [_fact(f"interface of {name}", told, graphs[1].get(name)) for name, told in graphs[0].items()]
    checks += [_fact(f"receptive_field of {name}", told, reach[1].get(name)) for name, told in reach[0].items()]
    checks.append(_fact("checkpoint", manifest.made_by.get("checkpoint"), recording.about.checkpoint))
    return Stage("facts", tuple(checks))


def _fact(name: str, here: object, there: object) -> Check:
    told = f"the pack says {_short(here)}, the recording {_short(there)}"
    return Check("", name, "" if here == there else told)


def _short(fact: object) -> str:
    text = json.dumps(fact)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _pipeline_stage(run: _Run) -> tuple[Stage, Pictures]:
    """The code around the graphs, with the recorded answers in place of graphs."""
    if not run.recorded:
        return Stage("pipeline", (), reason=ALONE), Pictures({}, {})
    limit = limit_of("host", run.pack.manifest)
    checks: list[Check] = []
    painted: dict[tuple[str, str], Image] = {}
    for case in run.recording.about.cases:
        for form in (form for form in forms_of(run.pack.manifest) if form in case.calls):
            answering = Replay(run.recording, case, form, limit)
            picture = answering.restore(run.pack.manifest)
            checks += answering.checks
            if picture is not None:
                reference = run.recording.arrays[case.pictures[form]]
                checks.append(compare_pictures(picture, reference, limit, f"picture, {form}, {case.name}"))
                painted[form, case.name] = picture
    return Stage("pipeline", tuple(checks), limit), Pictures(painted, {})


def _kernel_stage(run: _Run) -> Stage:
    """Fused kernels against plain PyTorch, as it was on the machine of the recording."""
    recording, limit = run.recording, limit_of("fp32", run.pack.manifest)
    units, checks = scales(recording), list[Check]()
    for site in sites(recording):
        outputs = recording.named(site.call.outputs)
        for name, fused in recording.named(site.call.kernels).items():
            found = measure(fused, outputs[name], units[site.call.graph, name])
            problem = breach(found, limit, picture=name in PICTURES)
            checks.append(Check(site.call.graph, site.place(name), problem, found))
    if checks:
        return Stage("kernel", tuple(checks), limit)
    return Stage("kernel", (), reason=f"{recording.origin}; fused kernels run on CUDA" if run.recorded else ALONE)


def _steps_stage(run: _Run) -> Stage:
    """The model against its teacher. Nothing is asked of it: fewer steps change a picture on purpose."""
    checks: list[Check] = []
    for case in run.recording.about.cases:
        if case.teacher is not None:
            form = forms_of(run.pack.manifest)[-1]
            mine, teacher = (as_unit(run.recording.arrays[key]) for key in (case.pictures[form], case.teacher))
            checks.append(Check("", f"against the teacher, {case.name}", "", measure(mine, teacher)))
    reason = "no teacher was recorded (--teacher)" if run.recorded else ALONE
    return Stage("steps", tuple(checks), reason="" if checks else reason)


def _missing(run: _Run, replayed: Replayed) -> dict[str, str]:
    """Legs without a stage: what is before them could not be opened."""
    measured = {stage.name for stage in replayed.stages}
    after = {leg.stage: "what it would be held against cannot be opened" for leg in run.chain.legs}
    return {name: why for name, why in {**run.chain.missing, **after}.items() if name not in measured}


def _layers(run: _Run, replayed: Replayed) -> tuple[list[Layer], str]:
    """The layers worth a look; and why there are none."""
    known = [site for site in sites(run.recording) if site.call.graph in run.pack.manifest.graphs]
    looked, said = pairs(run.legs, replayed.first, known, run.floats)
    layers: list[Layer] = []
    for pair in looked:
        try:
            layers += compared(pair, run.recording, limit_of(pair.kind, run.pack.manifest))
        except (GraphError, PackError) as error:
            said = f"layers of {pair.site.call.graph} could not be looked at: {error}"
    return layers, said


def _references(run: _Run) -> dict[tuple[str, str], Image]:
    return {
        (form, case.name): run.recording.arrays[case.pictures[form]]
        for case in run.recording.about.cases
        for form in forms_of(run.pack.manifest)
        if form in case.pictures
    }


def _notes(run: _Run) -> Iterator[str]:
    largest = max(rounding(run.recording).values(), default=0.0)
    if largest > 0:
        floor = -20 * math.log10(largest)
        yield f"PyTorch in float32 is itself {floor:.1f} dB from PyTorch in float64, at the worst of these calls"


def _processor() -> str:
    return f"{platform.system()} {platform.machine()}"


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
