"""`hauswart retrain`: the low tier's model learns from this host and its operator, offline.

From the champion's own weights, on what telemetry kept and on the lines of judged incidents; what nobody
labelled is held where the champion sees it, so that little feedback moves little else. Writes only
`candidates/`; what wins the contest may then serve.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from daemon.command.session import Session, session_of
from daemon.errors import HauswartError
from daemon.locks import FileLock
from daemon.settings import Settings
from models import shelf
from models.bundle import WORDING, Bundle, verify
from models.lines import encode
from training.verbs import missing

Row = dict[str, Any]
Tell = Callable[[str], None]

TIER = "low"
EPOCHS, BATCH, LEARNING_RATE = 3.0, 32, 2e-4
STEPS_LEAST = 400  # with fewer, a young host's few rows leave no trace beside the 400 of the catalogue
SOFT_WEIGHT = 0.6  # of staying where the champion is
# Of what is learned, so that one answer among thousands of lines is heard; at most so often each.
FEEDBACK_SHARE, COPIES_MAX = 0.2, 128
CANARY_SHARE = 0.2
CANARY_MAX = 5000
WORK, LOCK = ".work", ".lock"
KEPT = 6  # candidates with their reports, the latest; what was promoted is a copy
_VERSION = re.compile(r"\d{8}T\d{6}")


class NothingToLearnError(HauswartError):
    """A young host without lines or verdicts."""


class Outcome(NamedTuple):
    """What became of a retraining."""

    candidate: Path
    won: bool
    promoted: bool
    figures: dict[str, Any]
    reasons: list[str]
    changed: list[dict[str, Any]]


def retrain(
    settings: Settings,
    *,
    store: Path,
    telemetry: Path | None = None,
    promote: bool = True,
    epochs: float = EPOCHS,
    seed: int = 0,
    tell: Tell = lambda _said: None,
) -> Outcome:
    """Train a challenger and let it contest with the champion; HauswartError if nothing is to be learned.

    Raises LockedError while another retraining runs. The candidate stays under
    `STATE/candidates/low/VERSION`, `VERSION.json` beside it, whatever came out, until KEPT later ones are
    there.
    """
    shop = shelf.candidates(TIER, settings.state)
    shop.mkdir(parents=True, exist_ok=True)
    shelf.give(shop, shop.parent)  # what root began, the nightly unit goes on with
    with FileLock(shop / LOCK, "retraining", "wait until that one has ended"):
        return _retrain(
            settings,
            store,
            telemetry or settings.state / "telemetry",
            promote=promote,
            epochs=epochs,
            seed=seed,
            tell=tell,
        )


def _retrain(
    settings: Settings, store: Path, telemetry: Path, *, promote: bool, epochs: float, seed: int, tell: Tell
) -> Outcome:
    from models.runtime import Classifier  # noqa: PLC0415  # numpy and onnxruntime
    from training import bundle, contest, dataset, finetune, rows  # noqa: PLC0415  # torch

    state = settings.state
    trust = trust_of(settings)
    champion = shelf.look(TIER, settings.models.low, state, trust).bundle
    old = Classifier(champion)
    shop = shelf.candidates(TIER, state)
    work = shop / WORK
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    shelf.give(shop, shop.parent)  # what root began, the nightly unit goes on with
    try:
        judged, host = gather(store, telemetry, tell)
        if not judged and not host:
            raise NothingToLearnError(
                "there is nothing to learn from: no feedback and no kept lines",
                hint="answer incidents with good or bad, and let the daemon run for a while",
            )
        shares = {"test": CANARY_SHARE}
        prepared = dataset.preprocess_data([*judged, *anchors(), *host], seed=seed, shares=shares)
        canary = [row["text"] for row in prepared.rows if row["split"] == "test"][:CANARY_MAX]
        taught = [row for row in prepared.rows if row["split"] == "train"]
        tell(f"{len(judged)} lines of feedback, {len(taught)} rows to learn, {len(canary)} as canary")
        held = old.logits([row["text"] for row in taught])
        for row, logits in zip(taught, held, strict=True):
            row["soft"] = logits if row["source"] != "feedback" else None
        taught = repeat(taught)
        rows.write_parquet(work / "rows.parquet", taught, prepared.statistics)
        finetune.train_folder(
            work / "rows.parquet",
            str(bundle.unpack(champion.directory, work / "champion")),
            work / "model",
            tier=TIER,
            sequence=champion.config.sequence,
            max_steps=max(STEPS_LEAST, round(epochs * len(taught) / BATCH)),
            batch=BATCH,
            learning_rate=LEARNING_RATE,
            soft_weight=SOFT_WEIGHT,
            temperature=1.0,
            seed=seed,
            recipe="retrain",
            tell=tell,
        )
        version = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
        spoken = [(str(row["text"]), row["alert"] >= contest.ALERT) for row in judged]
        candidate = pack(work / "model", champion, shop / version, version, spoken)
        new = Classifier(candidate)
        result = contest.compare(
            contest.judge_with(old, champion.config.thresholds),
            contest.judge_with(new, candidate.config.thresholds),
            golden=contest.read_golden(),
            canary=canary,
            feedback=spoken,
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)
    promoted = result.won and promote
    outcome = Outcome(
        candidate.directory, result.won, promoted, result.figures, result.reasons, result.changed
    )
    report = outcome._asdict() | {"champion": champion.name, "candidate": candidate.name}
    (shop / f"{version}.json").write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")
    forget(shop)
    shelf.give(shop, shop.parent)
    if promoted:
        shelf.install(candidate.directory, TIER, state, trust)
    return outcome


def forget(shop: Path) -> None:
    """Remove all but the latest candidates; what lies there under another name is somebody else's."""
    made = sorted(path for path in shop.iterdir() if _VERSION.fullmatch(path.stem))
    for version in sorted({path.stem for path in made})[:-KEPT]:
        shutil.rmtree(shop / version, ignore_errors=True)
        (shop / f"{version}.json").unlink(missing_ok=True)


def pack(
    model: Path, champion: Bundle, out: Path, version: str, spoken: Sequence[tuple[str, bool]] = ()
) -> Bundle:
    """The trained folder as a bundle like the champion, verified.

    Where the champion weighs words, they take up what the operator has `spoken` of encoded texts.
    """
    from training import bundle, export, folder, quantize  # noqa: PLC0415  # torch

    trained, _, _ = folder.load_folder(model)
    whole = export.to_onnx(trained, model / "float.onnx")
    quantize.quantize_onnx(whole, model / "int8.onnx")
    bundle.make_bundle(
        model,
        out,
        onnx=model / "int8.onnx",
        wording=champion.directory / WORDING if WORDING in champion.manifest.files else None,
        version=version,
        licence=champion.manifest.licence,
        sources=[*champion.manifest.data, {"origin": "this host's telemetry and feedback"}],
        recipe="retrain",
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        thresholds=champion.config.thresholds,
        calibration=champion.config.calibration,
    )
    made = verify(out, TIER)
    if spoken and WORDING in made.manifest.files:
        (out / WORDING).write_bytes(_taught(made, spoken))
        bundle.seal(out, made.manifest)
    return verify(out, TIER)


def _taught(made: Bundle, spoken: Sequence[tuple[str, bool]]) -> bytes:
    """The bundle's table of words after the operator's word."""
    from models.runtime import Classifier  # noqa: PLC0415  # numpy and onnxruntime
    from models.wording import Wording  # noqa: PLC0415
    from training.wording import teach  # noqa: PLC0415

    logits = Classifier(made).logits([text for text, _ in spoken])
    return teach(Wording(made.read(WORDING)), spoken, logits, made.config.thresholds).pack()


def gather(store: Path, telemetry: Path, tell: Tell) -> tuple[list[Row], list[Row]]:
    """Rows of judged incidents, and rows of this host's kept lines."""
    from training import feedback, hostlines  # noqa: PLC0415

    judged = list(feedback.line_rows(feedback.read_verdicts(store))) if store.exists() else []
    found = hostlines.Collected("template")
    if telemetry.is_dir():
        hostlines.from_telemetry(telemetry, found, tell)
    return judged, found.rows


def repeat(taught: list[Row]) -> list[Row]:
    """The rows with those of feedback as often as their share wants."""
    spoken = [row for row in taught if row["source"] == "feedback"]
    if not spoken:
        return taught
    wanted = FEEDBACK_SHARE * (len(taught) - len(spoken)) / (1.0 - FEEDBACK_SHARE)
    return taught + spoken * (min(COPIES_MAX, max(1, round(wanted / len(spoken)))) - 1)


def anchors() -> list[Row]:
    """The catalogue's own examples: what every host may say one day, unlabelled, held by the champion."""
    from models.known import load  # noqa: PLC0415

    known = [{"text": encode(one.example), "group": f"known {one.slug}"} for one in load().messages]
    return [row | {"source": "catalogue", "split": "train"} for row in known]


def trust_of(settings: Settings) -> shelf.Trust:
    """Who may sign, by the settings."""
    models = settings.models
    return shelf.Trust(
        Path(models.allowed_signers) if models.allowed_signers else None, models.signature_required
    )


# --- command ------------------------------------------------------------------------------------------------

app = typer.Typer(invoke_without_command=True, help="Learn from this host's telemetry and feedback, offline.")


@app.callback()
def command(
    context: typer.Context,
    *,
    promote: Annotated[
        bool, typer.Option(help="Let the candidate serve if nothing got worse; else it only lies there.")
    ] = True,
    epochs: Annotated[float, typer.Option(min=0.1)] = EPOCHS,
    seed: Annotated[int, typer.Option()] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Exit code 0 whether it won or not: a champion that stays is no failure."""
    if context.invoked_subcommand:
        return
    session: Session = session_of(context)
    try:
        outcome = retrain(
            session.settings,
            store=session.store_path,
            promote=promote,
            epochs=epochs,
            seed=seed,
            tell=lambda said: print(f"hauswart: {said}", file=sys.stderr, flush=True),  # noqa: T201
        )
    except NothingToLearnError as error:
        sys.stderr.write(f"hauswart: {error}; {error.hint}\n")
        return
    except ModuleNotFoundError as error:
        raise missing("retrain", error) from error
    if as_json:
        sys.stdout.write(json.dumps(outcome._asdict(), default=str) + "\n")
        return
    sys.stdout.write(describe(outcome))


@app.command("promote", help="Verify and judge the newest candidate; it serves if it is worse at nothing.")
def promote_command(context: typer.Context) -> None:
    """What `hauswart-switch.service` does; a candidate that lost is no failure."""
    from training.promote import promote, tell  # noqa: PLC0415  # it imports this module

    session: Session = session_of(context)
    made = promote(session.settings, store=session.store_path)
    sys.stdout.write(tell(made, session.settings))


def describe(outcome: Outcome) -> str:
    """The contest in words."""
    said = [f"{name}: {_figure(one)}" for name, one in outcome.figures.items()]
    if outcome.promoted:
        said.append(f"promoted: {outcome.candidate.name} serves now (undo: hauswart models rollback {TIER})")
    elif outcome.won:
        said.append(f"won, not promoted: hauswart models install {outcome.candidate}")
    else:
        said += ["not promoted, the champion goes on serving:", *(f"  - {one}" for one in outcome.reasons)]
    said.append(f"{len(outcome.changed)} verdicts changed" + (":" if outcome.changed else ""))
    said += [
        f"  {one['text'][:80]}: alert {one['alert'][0]} -> {one['alert'][1]}, "
        f"{one['severity'][0]} -> {one['severity'][1]}"
        for one in outcome.changed[:20]
    ]
    return "\n".join(said) + "\n"


def _figure(one: Mapping[str, float]) -> str:
    return f"{one['challenger']:.1%} (champion {one['champion']:.1%}, n={one['n']:.0f})"
