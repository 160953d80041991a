"""One search from its first request to its result, kept in a folder so that it goes on where it stopped.

trials.jsonl    what was searched, the probe, the defaults, and each step with its answers, at once
tune.log        the same in words, with times, and each retry
audit.jsonl     one line a request: its hash and outcome, never its text
result.json     what came out
search.html, search.png
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from daemon.errors import ChatError, ConfigError
from training import intervals, trials
from training.endpoint import Patient, open_chat
from training.workshop.tuning import engines, probe
from training.workshop.tuning.cases import Case, split
from training.workshop.tuning.files import write_whole
from training.workshop.tuning.judge import Judge, mean, seeds
from training.workshop.tuning.settings import Settings
from training.workshop.tuning.space import Params, Space, read_space

LOG, RESULT, AUDIT = "trials.jsonl", "result.json", "audit.jsonl"
LONG_S = 600.0  # from here on the user is told what it will cost the machine
_LONG = (
    "this is long and keeps the server's machine busy all the while, since Bayesian optimisation needs many "
    "answers; fewer --init-points, --n-iter, --repeats or cases, or --minutes, make it shorter"
)
_HELD_OUT = 1 << 20  # the number whose seeds the held-out cases get: no trial has it
_DEFAULTS = 1 << 21
Tell = Callable[[str], None]
Watch = Callable[[Mapping[str, Any], int], None]


def tune(
    cases: Sequence[Case],
    out: Path,
    settings: Settings,
    *,
    resume: bool = False,
    tell: Tell = lambda _said: None,
    watch: Watch = lambda _trial, _total: None,
) -> dict[str, Any]:
    """Search, and judge what was found on the cases held out; the result as it is kept.

    `watch` is told each step and how many there will be, and at first those of before a resumption. Raises
    ConfigError and ChatError; what was done so far is kept then, and `resume` goes on with it.
    """
    space = read_space(settings.pbounds)
    _check_fixed(settings, space)
    searched, held = split(cases, settings.held_out)
    head = _head(settings, space, searched, held)
    try:
        logged = trials.open_log(out / LOG, head, resume=resume)
        log = _open_logger(out / "tune.log", tell)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error}") from error
    try:
        chat = open_chat(settings.endpoint(out / AUDIT), "prompts", tell=log.warning, final=("empty",))
        parts = _Cases(searched, held)
        return _Search(chat, settings, space, parts, out=out, logged=logged, log=log).run(watch)
    except (ChatError, ConfigError) as error:
        log.debug("stopped: %s", error)
        done = sum(one.get("kind") == "trial" for one in logged)
        if isinstance(error, ChatError) and logged:
            error.hint = f"{error.hint + '; ' if error.hint else ''}{done} steps are kept, --resume goes on"
        if not logged:
            (out / LOG).unlink(missing_ok=True)
        raise
    except OSError as error:
        raise ConfigError(
            f"{out} cannot be written: {error}", hint="with room or rights again, --resume goes on"
        ) from error
    finally:
        _close(log)


class _Cases(NamedTuple):
    searched: Sequence[Case]
    held: Sequence[Case]


class _Search:
    """The state of one search: what was logged, and whom to ask."""

    def __init__(
        self,
        chat: Patient,
        settings: Settings,
        space: Space,
        cases: _Cases,
        *,
        out: Path,
        logged: list[dict[str, Any]],
        log: logging.Logger,
    ) -> None:
        self.chat, self.settings, self.space, self.out = chat, settings, space, out
        self.searched, self.held = cases
        self.logged, self.log = logged, log
        self.began = time.monotonic()
        self.judge = Judge(chat, settings.similarity, settings.fixed, seeded=True)

    def run(self, watch: Watch) -> dict[str, Any]:
        """All of it; see `tune`."""
        takes_seed, answer_s = probe.takes_seed(self.chat, self.searched[0], self.settings.fixed)
        self.judge = Judge(self.chat, self.settings.similarity, self.settings.fixed, seeded=takes_seed)
        self._say_cost(answer_s)
        heeds = self._probed(takes_seed=takes_seed)
        if not self.space.parameters:
            raise ConfigError("no parameter is left to search", hint="the server heeds none of pbounds")
        defaults = self._defaults()
        steps = self._steps(watch)
        best = engines.recommend(
            self.settings.engine, self.space, steps, init_points=self.settings.init_points
        )
        held = self._judge_held_out(best["params"])
        result = {
            "target": best["target"],
            "params": best["params"],
            "step": best["trial"],
            "steps": len(steps),
            "engine": self.settings.engine,
            "similarity": self.settings.similarity,
            "defaults": defaults["target"],
            "held_out": held,
            "probe": heeds,
            "requests": _asked(self.out / AUDIT),
            "seconds": round(time.monotonic() - self.began, 1),
        }
        write_whole(self.out / RESULT, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        self.log.debug("result: %s", result)
        return result

    def _keep(self, one: dict[str, Any]) -> dict[str, Any]:
        trials.append(self.out / LOG, one)
        self.logged.append(one)
        return one

    def _kept(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.logged if one.get("kind") == kind]

    def _say_cost(self, answer_s: float) -> None:
        """What is still to do, in requests and time, from the one answer that was measured."""
        settings = self.settings
        asked, probing = self._left()
        seconds = (asked + probing / 4) * answer_s
        self.log.info(
            "%d requests to search and judge, at most %d to probe; one answer took %.1f s: about %s in all",
            asked,
            probing,
            answer_s,
            _duration(seconds),
        )
        if seconds > LONG_S and not 0 < settings.minutes * 60.0 < LONG_S:
            self.log.warning("%s", _LONG)
        if len(self.searched) * settings.repeats < 3:
            self.log.warning("with so few answers a step, the best one may be luck: more cases or --repeats")
        if not self.held:
            self.log.warning(
                "no case is held out, so nothing says whether the result holds for other prompts"
            )

    def _left(self) -> tuple[int, int]:
        """Requests still to make for the search, and at most for the probe; retries come on top."""
        settings = self.settings
        steps = settings.init_points + settings.n_iter + 1  # and the defaults
        steps -= len(self._kept("trial")) + len(self._kept("defaults"))
        asked = settings.repeats * (max(0, steps) * len(self.searched) + 2 * len(self.held))
        if not settings.probe or self._kept("probe"):
            return asked, 0
        return asked, probe.most_requests(self.space, len(self.searched))

    def _probed(self, *, takes_seed: bool) -> list[dict[str, str]]:
        """Say what the server ignores, and leave it out if asked to."""
        if not self.settings.probe:
            return []
        kept = self._kept("probe")
        if not kept:
            found = probe.probe(
                self.chat, self.space, self.searched, self.settings.fixed, takes_seed=takes_seed
            )
            heeds = [one._asdict() for one in found.heeds]
            kept = [
                self._keep({"kind": "probe", "heeds": heeds, "seeded": takes_seed, "repeats": found.repeats})
            ]
        heeds = kept[0]["heeds"]
        for one in heeds:
            level = logging.INFO if one["verdict"] == "heeded" else logging.WARNING
            self.log.log(level, "the server %s", _heed_said(one))
        if not kept[0]["repeats"]:
            self.log.warning("the server gives other answers under the same seed")
        refused = [one["name"] for one in heeds if one["verdict"] == "refused"]
        if refused and not self.settings.drop_ignored:
            raise ConfigError(
                f"the server refuses {', '.join(refused)}", hint="narrow its bounds, or --drop-ignored"
            )
        if self.settings.drop_ignored:
            dropped = [one["name"] for one in heeds if one["verdict"] in {"ignored", "refused"}]
            self.space = self.space.without(dropped)
            if dropped:
                self.log.info("left out of the search: %s", ", ".join(dropped))
        return list(heeds)

    def _defaults(self) -> dict[str, Any]:
        """What the server's defaults are worth on the cases that are searched with."""
        for one in self._kept("defaults"):
            return one
        judged = self.judge.judge(
            self.searched, {}, seeds(self.settings.seed, _DEFAULTS, self.settings.repeats)
        )
        self.log.info("the server's defaults: similarity %.4f", mean(judged))
        return self._keep({"kind": "defaults", "target": round(mean(judged), 6), **_answers(judged)})

    def _steps(self, watch: Watch) -> list[dict[str, Any]]:
        settings = self.settings
        total = settings.init_points + settings.n_iter
        steps = self._kept("trial")
        for one in steps:
            watch(one, total)
        while len(steps) < total:
            if settings.minutes and steps and time.monotonic() - self.began > settings.minutes * 60.0:
                self.log.warning("%g minutes are over: %d of %d steps", settings.minutes, len(steps), total)
                break
            params = engines.suggest(
                settings.engine, self.space, steps, init_points=settings.init_points, seed=settings.seed
            )
            steps.append(self._step(params, len(steps)))
            watch(steps[-1], total)
        return steps

    def _step(self, params: Params, number: int) -> dict[str, Any]:
        began = time.monotonic()
        judged = self.judge.judge(
            self.searched, params, seeds(self.settings.seed, number, self.settings.repeats)
        )
        one = {"kind": "trial", "trial": number + 1, "params": params, "target": round(mean(judged), 6)}
        one |= {**_answers(judged), "seconds": round(time.monotonic() - began, 2)}
        self.log.debug("step %d: %s: %s", number + 1, params, one["target"])
        return self._keep(one)

    def _judge_held_out(self, params: Params) -> dict[str, Any]:
        """The recommended parameters against the defaults, on the same cases and seeds; chooses nothing."""
        if not self.held:
            return {}
        drawn = seeds(self.settings.seed, _HELD_OUT, self.settings.repeats)
        tuned = self.judge.judge(self.held, params, drawn)
        plain = self.judge.judge(self.held, {}, drawn)
        gained = np.array([one.score - other.score for one, other in zip(tuned, plain, strict=True)])
        groups = np.array([one.case for one in tuned])
        bounds = intervals.intervals({"gain": lambda w: float(np.average(gained, weights=w))}, groups)["gain"]
        found = {
            "cases": len(self.held),
            "answers": len(tuned),
            "tuned": round(mean(tuned), 6),
            "defaults": round(mean(plain), 6),
            "gain": round(float(gained.mean()), 6),
            "gain_low": round(bounds.low, 6),
            "gain_high": round(bounds.high, 6),
        }
        self.log.info("%s", held_out_said(found))
        return found


def held_out_said(found: Mapping[str, Any]) -> str:
    """What the held-out cases say, in a sentence."""
    low, high = found["gain_low"], found["gain_high"]
    verdict = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
    return (
        f"held out ({found['cases']} cases, {found['answers']} answers): {found['tuned']:.4f} against "
        f"{found['defaults']:.4f} of the defaults; the difference of {found['gain']:+.4f} lies in "
        f"{low:+.4f} to {high:+.4f} (95 %): {verdict}"
    )


def _asked(audit: Path) -> int:
    """All requests so far, those before a resumption too."""
    return sum(1 for _ in audit.open(encoding="utf-8"))


def _answers(judged: Sequence[Any]) -> dict[str, Any]:
    return {"answers": [one._asdict() | {"score": round(one.score, 6)} for one in judged]}


def _heed_said(one: Mapping[str, str]) -> str:
    words = {"heeded": "heeds", "ignored": "IGNORES", "refused": "refuses", "unclear": "may or may not heed"}
    return f"{words[one['verdict']]} {one['name']} ({one['said']})"


def _head(settings: Settings, space: Space, searched: Sequence[Case], held: Sequence[Case]) -> dict[str, Any]:
    """What makes two searches the same; how many steps may grow from one run to the next."""
    told = json.dumps([msgspec.to_builtins([*searched]), msgspec.to_builtins([*held])], sort_keys=True)
    return {
        "kind": "search",
        "url": settings.url,
        "model": settings.model,
        "pbounds": space.described(),
        "cases": hashlib.sha256(told.encode()).hexdigest()[:16],
        "engine": settings.engine,
        "similarity": settings.similarity,
        "init_points": settings.init_points,
        "repeats": settings.repeats,
        "fixed": settings.fixed,
        "seed": settings.seed,
        "drop_ignored": settings.drop_ignored,
    }


def _check_fixed(settings: Settings, space: Space) -> None:
    both = sorted(set(settings.fixed) & {*space.names, "messages", "model", "stream", "seed"})
    if both:
        raise ConfigError(f"fixed.{both[0]} is set by the search itself", hint="take it out of [fixed]")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds:.0f} s ({seconds / 60:.0f} min)"


# --- logging ------------------------------------------------------------------------------------------------


class _Told(logging.Handler):
    """What is for the user's eyes: from INFO on."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.INFO)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Tell it."""
        self._tell(record.getMessage())


def _open_logger(path: Path, tell: Tell) -> logging.Logger:
    log = logging.getLogger(f"hauswart.tune.{path.parent}")
    log.setLevel(logging.DEBUG)
    log.propagate = False
    kept = logging.FileHandler(path, encoding="utf-8")
    kept.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(kept)
    log.addHandler(_Told(tell))
    return log


def _close(log: logging.Logger) -> None:
    for handler in [*log.handlers]:
        log.removeHandler(handler)
        handler.close()
